"""ISIC 2018 Task 3 (diagnosis): as the challenge publishes it, and its test set as Dataverse does.

The challenge has folders `ISIC2018_Task3_Test_Input/` and one-hot tables; Dataverse has `ISIC2018_Task3_Test_Images/`
and a table in HAM10000's format.
"""

from __future__ import annotations

from pathlib import Path

from skinclip.core import vocabulary
from skinclip.data import cells
from skinclip.data.cases import Case, CaseTable, DataError
from skinclip.data.layouts.base import Layout, official_parts, official_table, photo_id, photo_of, require_photos
from skinclip.data.layouts.ham_format import read_photos
from skinclip.data.tables import KnownPhotos, LabelFile, LabelRow, collect, joined, read_labels

_PHOTOS = r"ISIC2018_Task3_{part}_(Input|Images)"


def read(folder: Path, strict: bool = False) -> CaseTable:
    """Whichever of Training, Validation and Test are there, split by folder name."""
    if not official_parts(folder, _PHOTOS):
        raise DataError(f"{folder}: no ISIC2018_Task3_Training_Input/, _Validation_Input/ or _Test_Input/")
    return read_parts(folder, strict, KnownPhotos())


def read_parts(folder: Path, strict: bool, known: KnownPhotos) -> CaseTable:
    """The cases of all parts; none where the folder has no part."""
    parts = official_parts(folder, _PHOTOS)
    return joined(_read_part(folder, part, *where, strict, known) for part, where in parts.items())


def _read_part(folder: Path, part: str, split: str, folders: list[Path], strict: bool, known: KnownPhotos) -> CaseTable:
    labels = read_labels(official_table(folder, f"ISIC2018_Task3_{part}_GroundTruth", folders[0].name), ())
    photos = require_photos(folders, folder, f"{folders[0].name}/")
    if "dx" in labels.columns:
        return read_photos(_with_columns(labels, "image_id", "dx"), folder, photos, {}, split, strict, known)
    _with_columns(labels, "image", *(column.lower() for column in vocabulary.ISIC2018_COLUMNS))
    lesions = _lesions(folder, part)

    def to_case(row: LabelRow) -> Case:
        image_id = photo_id(row, "image")
        diagnosis = cells.one_hot(row, vocabulary.ISIC2018_COLUMNS)
        return Case(
            image=photo_of(photos, row, "image"),
            image_id=image_id,
            source=folder.name,
            lesion_id=lesions.get(image_id, image_id),
            diagnosis=diagnosis,
            split=split,
            malignant=vocabulary.is_malignant(diagnosis),
            kind="dermoscopy",
        )

    return collect(labels, to_case, strict, known)


def _with_columns(labels: LabelFile, *columns: str) -> LabelFile:
    missing = [column for column in columns if column not in labels.columns]
    if missing:
        present = ", ".join(labels.columns) or "nothing"
        raise DataError(f"{labels.path}: no column {', '.join(missing)}; found {present}")
    return labels


def _lesions(folder: Path, part: str) -> dict[str, str]:
    """image -> lesion id. Published for Training only, as a file beside the folders or in the ground truth's."""
    name = f"ISIC2018_Task3_{part}_LesionGroupings.csv"
    for path in (folder / name, folder / f"ISIC2018_Task3_{part}_GroundTruth" / name):
        if path.is_file():
            rows = read_labels(path, ("image", "lesion_id")).rows
            return {row.cells["image"]: lesion for row in rows if not row.problem and (lesion := row.get("lesion_id"))}
    return {}


LAYOUT = Layout(
    "isic2018",
    "ISIC2018_Task3_Test_Input/ with ISIC2018_Task3_Test_GroundTruth/ (ISIC 2018 Task 3, Training and Validation "
    "likewise)",
    lambda folder: bool(official_parts(folder, _PHOTOS)),
    read,
)
