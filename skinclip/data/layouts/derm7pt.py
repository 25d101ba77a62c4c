"""Derm7pt as published (Kawahara et al. 2019): `meta/meta.csv`, `images/`, splits by column or by the index files."""

from __future__ import annotations

from pathlib import Path

from skinclip.core import vocabulary
from skinclip.data import cells
from skinclip.data.cases import Case, CaseTable, DataError
from skinclip.data.files import FileFinder, image_ids, subfolders
from skinclip.data.layouts.base import Layout
from skinclip.data.tables import BadRow, LabelFile, LabelRow, collect, read_labels, require_file

INDEX_FILES = {"train": "train_indexes.csv", "valid": "valid_indexes.csv", "test": "test_indexes.csv"}


def read(folder: Path, strict: bool = False) -> CaseTable:
    """Derm7pt's cases, one per lesion.

    The dermoscopic photo (`derm`) is the case's image, the clinical one (`clinic`) is kept beside it where its file
    is there. The official case number is its id. A diagnosis without a HAM10000 class (lentigo, melanosis,
    miscellaneous) keeps its group alone.
    """
    labels = read_labels(folder / "meta" / "meta.csv", ("derm", "diagnosis"))
    finder, source = FileFinder(_photo_folder(folder)), folder.name
    ids = image_ids(name for row in labels.rows if (name := row.get("derm")))
    official_split = {} if "split" in labels.columns else _splits(folder / "meta", labels)

    def to_case(row: LabelRow) -> Case:
        image = require_file(finder, row, "derm")
        name = row.word("diagnosis")
        if name is not None and name not in vocabulary.DERM7PT_TO_CODE:
            raise BadRow(f"unknown diagnosis {name!r}; not one of Derm7pt's {len(vocabulary.DERM7PT_TO_CODE)}")
        diagnosis = vocabulary.DERM7PT_TO_CODE[name] if name else None
        clinic = row.get("clinic")
        number = row.get("case_num") or ids[row.cells["derm"]]
        return Case(
            image=image,
            image_id=number,
            source=source,
            lesion_id=row.get("case_id") or number,
            diagnosis=diagnosis,
            context=cells.parse_context(row, "age", "sex", "location"),
            split=cells.parse_split(row.get("split")) or official_split.get(row.number),
            malignant=vocabulary.is_malignant(diagnosis),
            criteria=cells.parse_criteria(row),
            diagnosis_group=vocabulary.DERM7PT_DIAGNOSIS_GROUP[name] if name else None,
            clinical_image=finder.find(clinic) if clinic else None,
            kind="dermoscopy",
        )

    return collect(labels, to_case, strict)


def _photo_folder(folder: Path) -> Path:
    for path in subfolders(folder, "images"):
        if path.name.lower() == "images":
            return path
    raise DataError(f"{folder}: no folder images/")


def _splits(meta: Path, labels: LabelFile) -> dict[int, str]:
    """LabelRow number -> split. The published files count rows of the whole meta.csv from 0.

    A part of the set keeps those numbers in a column `index`, or one lower than `case_num`.
    """
    number_of = {row.number: row.number for row in labels.rows}
    if "index" in labels.columns:
        number_of = _numbers(labels, "index", 0)
    splits: dict[int, str] = {}
    for split, name in INDEX_FILES.items():
        if not (meta / name).is_file():
            continue
        for row in read_labels(meta / name, ("indexes",)).rows:
            index = _whole_number(row.cells.get("indexes", ""))
            if row.problem or index is None or splits.get(index, split) != split:
                raise DataError(
                    f"{name} line {row.line}: {row.cells.get('indexes')!r} is not an index, or in two splits"
                )
            splits[index] = split
    if splits and "index" not in labels.columns and max(splits) >= len(labels.rows):
        if "case_num" not in labels.columns:
            raise DataError(f"{labels.path}: {len(labels.rows)} rows, but the index files name row {max(splits)}")
        number_of = _numbers(labels, "case_num", 1)
    return {number: splits[index] for number, index in number_of.items() if index in splits}


def _numbers(labels: LabelFile, column: str, first: int) -> dict[int, int]:
    numbers = {row.number: _whole_number(row.cells.get(column, "")) for row in labels.rows}
    return {row: number - first for row, number in numbers.items() if number is not None}


def _whole_number(text: str) -> int | None:
    number = cells.parse_number(text)
    return None if number is None else int(number)


LAYOUT = Layout(
    "derm7pt",
    "meta/meta.csv with images/ (Derm7pt)",
    lambda folder: (folder / "meta" / "meta.csv").is_file(),
    read,
)
