"""ISIC 2020 (SIIM-ISIC) as published: the training table of one row per photo, with patient, diagnosis and target."""

from __future__ import annotations

from pathlib import Path

from skinclip.core import vocabulary
from skinclip.data import cells
from skinclip.data.cases import Case, CaseTable, DataError
from skinclip.data.files import photos_by_stem, subfolders, table_named
from skinclip.data.layouts.base import Layout, photo_id, photo_of
from skinclip.data.layouts.diagnosis_names import code_of
from skinclip.data.tables import BadRow, LabelRow, collect, columns_of, read_labels

_TABLES = ("ISIC_2020_Training_GroundTruth_v2", "ISIC_2020_Training_GroundTruth", "train")
_REQUIRED = ("image_name", "diagnosis", "benign_malignant")


def read(folder: Path, strict: bool = False) -> CaseTable:
    """The training photos, all of split "train". Lesions are known in the table's second version, else patients are."""
    path = _table(folder)
    if path is None:
        raise DataError(f"{folder}: no ISIC_2020_Training_GroundTruth.csv or train.csv")
    labels = read_labels(path, _REQUIRED)
    photos = photos_by_stem([*subfolders(folder, "ISIC_2020_Training"), *subfolders(folder, "train"), folder])
    if not photos:
        raise DataError(f"{folder}: no photos in ISIC_2020_Training_Input/ or train/ (JPEG; DICOM is not read)")

    def to_case(row: LabelRow) -> Case:
        image_id, name = photo_id(row, "image_name"), row.word("diagnosis")
        diagnosis = code_of([name])
        return Case(
            image=photo_of(photos, row, "image_name"),
            image_id=image_id,
            source=folder.name,
            lesion_id=row.get("lesion_id") or row.get("patient_id") or image_id,
            diagnosis=diagnosis,
            context=cells.parse_context(row, "age_approx", "sex", "anatom_site_general_challenge"),
            split="train",
            malignant=_malignant(row, diagnosis),
            patient_id=row.get("patient_id"),
            kind="dermoscopy",
        )

    return collect(labels, to_case, strict)


def _malignant(row: LabelRow, diagnosis: str | None) -> bool | None:
    """The table's word, which its number must not contradict; else what the diagnosis says."""
    word = cells.parse_yes_no(row.word("benign_malignant"), "benign_malignant")
    number = cells.parse_yes_no(row.word("target"), "target")
    if word is not None and number is not None and word != number:
        raise BadRow(f"benign_malignant {row.get('benign_malignant')!r} and target {row.get('target')!r} disagree")
    stated = number if word is None else word
    return vocabulary.is_malignant(diagnosis) if stated is None else stated


def _table(folder: Path) -> Path | None:
    for stem in _TABLES:
        path = table_named([folder], stem)
        if path is not None and set(_REQUIRED) <= set(columns_of(path)):
            return path
    return None


LAYOUT = Layout(
    "isic2020",
    "ISIC_2020_Training_GroundTruth.csv or train.csv with its photos (ISIC 2020)",
    lambda folder: _table(folder) is not None,
    read,
)
