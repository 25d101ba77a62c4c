"""ISIC 2018 Task 2: masks of five dermoscopic attributes drawn by experts, as published and flat.

Published: `ISIC2018_Task1-2_Training_Input/` and `ISIC2018_Task2_Training_GroundTruth_v3/`, one mask per photo and
attribute, empty ones included; lesion masks are Task 1's. Flat: `images/`, `attribute_masks/` (those that are not
empty), `lesion_masks/` and `labels.csv` with one column an attribute.
"""

from __future__ import annotations

from pathlib import Path

from skinclip.core import vocabulary
from skinclip.data import cells
from skinclip.data.cases import Case, CaseTable, DataError
from skinclip.data.files import name_key, photos_by_stem, subfolders
from skinclip.data.layouts.base import Layout, official_parts, photo_id, photo_of, require_photos
from skinclip.data.tables import BadRow, LabelRow, collect, columns_of, read_labels

ATTRIBUTES = ("pigment_network", "negative_network", "streaks", "milia_like_cyst", "globules")
_PHOTOS = r"ISIC2018_Task1-2_{part}_Input"
_FLAT_MASKS = "attribute_masks"


def read(folder: Path, strict: bool = False) -> CaseTable:
    """The photos with their attribute masks; an attribute that was not drawn has None or an empty mask."""
    parts = official_parts(folder, _PHOTOS)
    if not parts:
        return _read_flat(folder, strict)
    cases, problems = [], []
    for part, (split, folders) in parts.items():
        masks = photos_by_stem(subfolders(folder, f"ISIC2018_Task2_{part}_GroundTruth"))
        if not masks:
            raise DataError(f"{folder}: no masks in ISIC2018_Task2_{part}_GroundTruth_v3/ beside {folders[0].name}/")
        lesions = photos_by_stem(subfolders(folder, f"ISIC2018_Task1_{part}_GroundTruth"), ending="_segmentation")
        photos = require_photos(folders, folder, f"{folders[0].name}/")
        for image in photos.values():
            drawn = {a: masks[key] for a in ATTRIBUTES if (key := _mask_key(image.stem, a)) in masks}
            if drawn:
                lesion = lesions.get(name_key(image.stem))
                cases.append(_case(folder, image, image.stem, drawn, lesion, split=split))
            else:
                problems.append(f"{folders[0].name}/{image.name}: no mask of an attribute")
    if strict and problems:
        raise DataError(problems[0])
    return CaseTable(tuple(cases), tuple(problems))


def _mask_key(image_id: str, attribute: str) -> str:
    return f"{name_key(image_id)}_attribute_{attribute}"


def _case(
    folder: Path,
    image: Path,
    image_id: str,
    drawn: dict[str, Path | None] | dict[str, Path],
    lesion: Path | None,
    **labels: str | None,
) -> Case:
    return Case(
        image=image,
        image_id=image_id,
        source=folder.name,
        lesion_id=image_id,
        mask=lesion,
        attribute_masks=dict(drawn),
        kind="dermoscopy",
        diagnosis=labels.get("diagnosis"),
        malignant=vocabulary.is_malignant(labels.get("diagnosis")),
        split=labels.get("split"),
    )


def _read_flat(folder: Path, strict: bool) -> CaseTable:
    labels = read_labels(folder / "labels.csv", ("image_id", *ATTRIBUTES))
    photos = require_photos([folder / "images"], folder, "images/")
    masks = photos_by_stem([folder / _FLAT_MASKS])
    lesions = photos_by_stem([folder / "lesion_masks"])

    def to_case(row: LabelRow) -> Case:
        image_id = photo_id(row, "image_id")
        drawn = {a: _flat_mask(row, image_id, a, masks) for a in ATTRIBUTES if row.get(a) is not None}
        lesion = lesions.get(name_key(image_id)) or lesions.get(f"{name_key(image_id)}_segmentation")
        column = "diagnosis" if "diagnosis" in row.cells else "diagnosis_isic2017"
        return _case(
            folder,
            photo_of(photos, row, "image_id"),
            image_id,
            drawn,
            lesion,
            diagnosis=cells.parse_code(row.word(column)),
            split=cells.parse_split(row.get("split")),
        )

    return collect(labels, to_case, strict)


def _flat_mask(row: LabelRow, image_id: str, attribute: str, masks: dict[str, Path]) -> Path | None:
    """The mask of an attribute that the table says was drawn, None where it says it was not."""
    mask = masks.get(_mask_key(image_id, attribute))
    if not cells.parse_yes_no(row.word(attribute), attribute):
        return None
    if mask is None:
        raise BadRow(f"{attribute} was drawn, but its mask is not in {_FLAT_MASKS}/")
    return mask


def _matches(folder: Path) -> bool:
    if official_parts(folder, _PHOTOS):
        return bool(subfolders(folder, "ISIC2018_Task2_"))
    return (folder / _FLAT_MASKS).is_dir() and set(ATTRIBUTES) <= set(columns_of(folder / "labels.csv"))


LAYOUT = Layout(
    "isic2018_task2",
    "ISIC2018_Task1-2_Training_Input/ with ISIC2018_Task2_Training_GroundTruth_v3/, or attribute_masks/ with "
    "labels.csv (ISIC 2018 Task 2)",
    _matches,
    read,
)
