"""A plain manifest of one's own: `manifest.csv` with a column `image` and whatever labels there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skinclip.core import vocabulary
from skinclip.data import cells, tables
from skinclip.data.cases import KINDS, Case, CaseTable, DataError
from skinclip.data.dermatologist_criteria import read_readings
from skinclip.data.files import FileFinder, image_ids
from skinclip.data.layouts.base import Layout
from skinclip.data.tables import BadRow, LabelFile, LabelRow, collect, read_labels, require_file

FILE = "manifest.csv"
_CALLED_IMAGE = (
    "image_path",
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "photo",
    "img",
    "image_name",
    "img_id",
    *("image_id", "isic_id", "photo_id", "picture", "name", "id"),
)
_CALLED_DIAGNOSIS = (
    *("dx", "label", "labels", "class", "target", "category", "diagnostic", "disease", "ground_truth", "truth"),
    *("diagnosis_1", "diagnosis_code", "lesion_type"),
    *(
        "diag",
        "diagnose",
        "diagnosis_name",
        "class_name",
        "pathology",
        "histology",
        "histopathology",
        "ground_truth_label",
    ),
)


def read(folder: Path, strict: bool = False) -> CaseTable:
    """`manifest.csv` with `image` (a path relative to it) and, all optional, `image_id`, `diagnosis`, `malignant`,
    `mask`, `clinical_image`, `kind`, `age`, `sex`, `localization`, `lesion_id`, `patient_id`, `split`, `group`,
    `skin_tone`, `fitzpatrick` and the seven criteria.

    Raises DataError where a column seems to be meant by another name: a set whose diagnoses are passed over would be
    measured without them.
    """
    labels = read_labels(folder / FILE, ())
    _check_columns(labels)
    finder, source = FileFinder(folder), folder.name
    ids = image_ids(name for row in labels.rows if (name := row.get("image")))
    readings = read_readings(folder)

    def to_case(row: LabelRow) -> Case:
        image = require_file(finder, row, "image")
        image_id = row.get("image_id") or ids[row.cells["image"]]
        diagnosis = cells.parse_code(row.word("diagnosis"))
        return Case(
            image=image,
            image_id=image_id,
            source=source,
            lesion_id=row.get("lesion_id") or row.get("patient_id") or image_id,
            diagnosis=diagnosis,
            mask=_file(finder, row, "mask"),
            context=cells.parse_context(row, "age", "sex", "localization"),
            split=cells.parse_split(row.get("split")),
            group=row.get("group"),
            malignant=cells.parse_malignant(row.word("malignant"), diagnosis),
            criteria=cells.parse_criteria(row),
            patient_id=row.get("patient_id"),
            clinical_image=_file(finder, row, "clinical_image"),
            kind=_kind(row),
            readings=readings.get(image_id, ()),
            skin_tone=cells.parse_level(row.get("skin_tone"), "skin_tone", 0, 5),
            fitzpatrick=cells.parse_level(row.get("fitzpatrick"), "fitzpatrick", 1, 6),
        )

    return collect(labels, to_case, strict)


def check_image_column(path: Path, columns: Sequence[str]) -> None:
    """Raises DataError where there is no column `image`, naming the one that seems to be meant."""
    if "image" not in columns:
        other = tables.misnamed(columns, "image", _CALLED_IMAGE)
        hint = f"; if {other!r} names the photos, rename it to 'image'" if other else ""
        raise DataError(f"{path}: no column image; found {', '.join(columns) or 'nothing'}{hint}")


def _check_columns(labels: LabelFile) -> None:
    """Raises DataError where `image` is missing or `diagnosis` seems to go by another name."""
    check_image_column(labels.path, labels.columns)
    other = tables.misnamed(labels.columns, "diagnosis", _CALLED_DIAGNOSIS) or _column_of_codes(labels)
    if other is not None:
        raise DataError(
            f"{labels.path}: no column 'diagnosis', but {other!r}: rename it to 'diagnosis' if it holds the diagnoses, "
            "else to another word"
        )


def _column_of_codes(labels: LabelFile) -> str | None:
    """A column of any name that holds diagnoses alone, where there is no `diagnosis`."""
    if "diagnosis" in labels.columns:
        return None
    for column in labels.columns:
        words = {word for row in labels.rows if (word := row.word(column)) is not None}
        if words - {"other"} and words <= set(vocabulary.DIAGNOSIS_CODES) and column != "group":
            return column
    return None


def _file(finder: FileFinder, row: LabelRow, column: str) -> Path | None:
    return require_file(finder, row, column) if row.get(column) else None


def _kind(row: LabelRow) -> str | None:
    kind = row.word("kind")
    if kind is not None and kind not in KINDS:
        raise BadRow(f"unknown kind of photo {kind!r}; expected {' or '.join(KINDS)}")
    return kind


LAYOUT = Layout("manifest", f"{FILE} (plain manifest)", lambda folder: (folder / FILE).is_file(), read)
