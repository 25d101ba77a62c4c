"""Readers of the layouts in which lesion data sets are published, and of a plain manifest.

Every reader returns a `CaseTable`. A bad row is reported with its line number: with `strict` it stops the reading,
otherwise it is left out and counted. A label that a file does not give stays missing.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from skinclip.assessment import Context
from skinclip.clinical import (
    CRITERION_BY_CODE,
    CRITERION_CODES,
    DERM7PT_DIAGNOSIS_GROUP,
    DERM7PT_STATES,
    DERM7PT_TO_CODE,
    DIAGNOSIS_CODES,
    ISIC2018_COLUMNS,
    MALIGNANT_CODES,
    SEXES,
    canonical_site,
)
from skinclip.data.cases import Case, CaseTable, DataError

Row = dict[str, str]
SPLIT_NAMES = {"training": "train", "validation": "valid", "val": "valid"}


class _RowError(ValueError):
    """What is wrong with one row; the reader adds file and line."""


class _Index:
    """The files of a folder, found by name whatever the case, without asking the disk for each."""

    def __init__(self, folder: Path, recursive: bool = True) -> None:
        files = folder.rglob("*") if recursive else folder.glob("*")
        self.folder = folder
        self.by_name = {str(f.relative_to(folder)).lower(): f for f in files if f.is_file()}

    def find(self, name: str) -> Path:
        path = self.by_name.get(name.replace("\\", "/").removeprefix("./").lower())
        if path is None:
            raise _RowError(f"there is no file {name} in {self.folder.name}/")
        return path


def read_manifest(folder: Path, strict: bool = False) -> CaseTable:
    """`manifest.csv` with a column `image` and any of diagnosis, mask, age, sex, localization, lesion_id, patient_id,
    split, group, malignant, image_id and the seven criteria."""
    files = _Index(folder)

    def case(row: Row) -> Case:
        image = files.find(_need(row, "image"))
        image_id = row.get("image_id") or image.stem
        diagnosis = _diagnosis(row.get("diagnosis"))
        return Case(
            image=image,
            image_id=image_id,
            source=folder.name,
            lesion_id=row.get("lesion_id") or row.get("patient_id") or image_id,
            diagnosis=diagnosis,
            mask=files.find(row["mask"]) if row.get("mask") else None,
            context=Context(_age(row.get("age")), _sex(row.get("sex")), canonical_site(row.get("localization"))),
            split=_split(row.get("split")),
            group=row.get("group") or None,
            malignant=_malignant(row.get("malignant"), diagnosis),
            criteria=_criteria(row),
            patient_id=row.get("patient_id") or None,
        )

    return _read(folder / "manifest.csv", case, strict, need=("image",))


def read_derm7pt(folder: Path, strict: bool = False) -> CaseTable:
    """Derm7pt as published: `meta/meta.csv`, `images/`, splits by index files or by a column `split`."""
    files = _Index(folder / "images")
    by_index = _derm7pt_splits(folder / "meta")
    position = iter(range(10**9))

    def case(row: Row) -> Case:
        number = next(position)
        name = _need(row, "diagnosis").lower()
        if name not in DERM7PT_DIAGNOSIS_GROUP:
            raise _RowError(f"unknown diagnosis {name!r}")
        image = files.find(_need(row, "derm"))
        code = DERM7PT_TO_CODE[name]
        group = DERM7PT_DIAGNOSIS_GROUP[name]
        return Case(
            image=image,
            image_id=row.get("case_num") or image.stem,
            source=folder.name,
            lesion_id=row.get("case_id") or row.get("case_num") or image.stem,
            diagnosis=code,
            context=Context(None, _sex(row.get("sex")), canonical_site(row.get("location"))),
            split=by_index.get(number) or _split(row.get("split")),
            malignant=code in MALIGNANT_CODES if code else None,
            criteria=_criteria(row),
            diagnosis_group=group,
            clinical_image=files.find(row["clinic"]) if row.get("clinic") else None,
        )

    return _read(folder / "meta" / "meta.csv", case, strict, need=("diagnosis", "derm"))


def _derm7pt_splits(meta: Path) -> dict[int, str]:
    """Row number -> split, from train_indexes.csv and its siblings where they are."""
    splits: dict[int, str] = {}
    for split in ("train", "valid", "test"):
        path = meta / f"{split}_indexes.csv"
        if path.exists():
            splits |= {int(row["indexes"]): split for _, row in _rows(path)}
    return splits


def read_isic2018(folder: Path, strict: bool = False) -> CaseTable:
    """ISIC 2018 Task 3 as published: ISIC2018_Task3_{Training,Validation,Test}_Input/ and _GroundTruth/."""
    cases: list[Case] = []
    problems: list[str] = []
    lesions = {
        row["image"]: row["lesion_id"]
        for path in folder.rglob("ISIC2018_Task3_Training_LesionGroupings.csv")
        for _, row in _rows(path)
    }
    for part in ("Training", "Validation", "Test"):
        photos = folder / f"ISIC2018_Task3_{part}_Input"
        if not photos.is_dir():
            continue
        table = _read_isic_part(folder, part, _Index(photos), lesions, strict)
        cases += table.cases
        problems += table.problems
    if not cases and not problems:
        raise DataError(f"{folder} holds no ISIC2018_Task3_*_Input folder; see the layout of ISIC 2018 Task 3")
    return CaseTable(tuple(cases), tuple(problems))


def _read_isic_part(folder: Path, part: str, files: _Index, lesions: dict[str, str], strict: bool) -> CaseTable:
    truth = folder / f"ISIC2018_Task3_{part}_GroundTruth" / f"ISIC2018_Task3_{part}_GroundTruth.csv"

    def case(row: Row) -> Case:
        image_id = _need(row, "image")
        marked = [code for column, code in ISIC2018_COLUMNS.items() if float(row[column] or 0) > 0.5]
        if len(marked) != 1:
            raise _RowError(f"{len(marked)} diagnoses are marked, expected one")
        return Case(
            image=files.find(f"{image_id}.jpg"),
            image_id=image_id,
            source=folder.name,
            lesion_id=lesions.get(image_id, image_id),
            diagnosis=marked[0],
            split=_split(part),
            malignant=marked[0] in MALIGNANT_CODES,
        )

    return _read(truth, case, strict, need=("image", *ISIC2018_COLUMNS))


def read_ham10000(folder: Path, strict: bool = False) -> CaseTable:
    """HAM10000 as published: HAM10000_metadata(.csv), HAM10000_images_part_*/, segmentation masks where present."""
    metadata = next((p for p in sorted(folder.glob("HAM10000_metadata*")) if p.is_file()), folder / "HAM10000_metadata.csv")
    photos = {f.stem.lower(): f for f in folder.rglob("*.jpg")}
    masks = {f.stem.lower().removesuffix("_segmentation"): f for f in folder.rglob("*_segmentation.png")}

    def case(row: Row) -> Case:
        image_id = _need(row, "image_id")
        if image_id.lower() not in photos:
            raise _RowError(f"there is no photo {image_id}.jpg")
        diagnosis = _diagnosis(_need(row, "dx"))
        return Case(
            image=photos[image_id.lower()],
            image_id=image_id,
            source=folder.name,
            lesion_id=row.get("lesion_id") or image_id,
            diagnosis=diagnosis,
            mask=masks.get(image_id.lower()),
            context=Context(_age(row.get("age")), _sex(row.get("sex")), canonical_site(row.get("localization"))),
            malignant=diagnosis in MALIGNANT_CODES,
        )

    return _read(metadata, case, strict, need=("image_id", "dx"))


LAYOUTS: dict[str, Callable[[Path, bool], CaseTable]] = {
    "isic2018": read_isic2018,
    "ham10000": read_ham10000,
    "derm7pt": read_derm7pt,
    "manifest": read_manifest,
}


def detect_layout(folder: Path) -> str:
    """The layout of `folder`. Raises DataError saying what is expected where none fits."""
    if (folder / "manifest.csv").is_file():
        return "manifest"
    if (folder / "meta" / "meta.csv").is_file():
        return "derm7pt"
    if any(folder.glob("ISIC2018_Task3_*_Input")):
        return "isic2018"
    if any(folder.glob("HAM10000_metadata*")):
        return "ham10000"
    raise DataError(
        f"{folder} has no known layout: expected manifest.csv, meta/meta.csv (Derm7pt), "
        "ISIC2018_Task3_*_Input/ or HAM10000_metadata.csv"
    )


def read_cases(folder: Path, layout: str | None = None, strict: bool = False) -> CaseTable:
    """The cases of one data set. Raises DataError for an unknown layout, an unreadable file or (strict) a bad row."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    name = layout or detect_layout(folder)
    if name not in LAYOUTS:
        raise DataError(f"no layout {name!r}; choose one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name](folder.resolve(), strict)


def discover(root: Path, strict: bool = False) -> dict[str, CaseTable]:
    """The data sets among the subfolders of `root` (or `root` itself), by folder name; others are passed over."""
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; set $SKINCLIP_DATA or give --data")
    tables = {}
    for folder in [root, *sorted(p for p in root.iterdir() if p.is_dir())]:
        try:
            layout = detect_layout(folder)
        except DataError:
            continue
        tables[folder.resolve().name] = read_cases(folder, layout, strict)
    if not tables:
        raise DataError(f"no data set of a known layout in {root} or its subfolders")
    return tables


def _read(path: Path, build: Callable[[Row], Case], strict: bool, need: tuple[str, ...]) -> CaseTable:
    cases: list[Case] = []
    problems: list[str] = []
    known: set[str] = set()
    for line, row in _rows(path, need):
        try:
            case = build(row)
            if case.image_id in known:
                raise _RowError(f"photo {case.image_id} is listed twice")
        except _RowError as error:
            problem = f"{path.name} line {line}: {error}"
            if strict:
                raise DataError(problem) from None
            problems.append(problem)
            continue
        known.add(case.image_id)
        cases.append(case)
    return CaseTable(tuple(cases), tuple(problems))


def _rows(path: Path, need: tuple[str, ...] = ()) -> Iterator[tuple[int, Row]]:
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in need if name not in (reader.fieldnames or [])]
        if missing:
            raise DataError(f"{path.name} has no column {', '.join(missing)}")
        for row in reader:
            yield reader.line_num, {k: (v or "").strip() for k, v in row.items() if k is not None}


def _need(row: Row, column: str) -> str:
    if not row.get(column):
        raise _RowError(f"column {column} is empty")
    return row[column]


def _diagnosis(text: str | None) -> str | None:
    if not text:
        return None
    if text.lower() not in DIAGNOSIS_CODES:
        raise _RowError(f"unknown diagnosis {text!r}; known are {', '.join(DIAGNOSIS_CODES)}")
    return text.lower()


def _age(text: str | None) -> float | None:
    if not text or text.lower() in ("unknown", "nan"):
        return None
    try:
        age = float(text)
    except ValueError:
        age = -1.0
    if not 0 <= age <= 120:
        raise _RowError(f"age {text!r} is not a number of years from 0 to 120")
    return age


def _sex(text: str | None) -> str | None:
    return text.lower() if text and text.lower() in SEXES else None


def _split(text: str | None) -> str | None:
    return SPLIT_NAMES.get(text.lower(), text.lower()) if text else None


def _malignant(text: str | None, diagnosis: str | None) -> bool | None:
    if text:
        if text.lower() not in ("0", "1", "true", "false", "0.0", "1.0"):
            raise _RowError(f"malignant is {text!r}, expected 0 or 1")
        return text.lower() in ("1", "true", "1.0")
    return diagnosis in MALIGNANT_CODES if diagnosis else None


def _criteria(row: Row) -> dict[str, str]:
    """Labelled criteria as grouped states; fine Derm7pt labels are grouped, grouped ones are taken as they are."""
    states = {}
    for code in CRITERION_CODES:
        text = row.get(code, "").lower()
        if not text:
            continue
        state = DERM7PT_STATES[code].get(text, text)
        if state not in CRITERION_BY_CODE[code].labels:
            raise _RowError(f"unknown state {text!r} of {code}")
        states[code] = state
    return states
