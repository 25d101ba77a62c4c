"""Tables in HAM10000's format: `lesion_id`, `image_id`, `dx`, `age`, `sex`, `localization`."""

from __future__ import annotations

from pathlib import Path

from skinclip.core import vocabulary
from skinclip.data import cells
from skinclip.data.cases import Case, CaseTable
from skinclip.data.dermatologist_criteria import read_readings
from skinclip.data.files import name_key
from skinclip.data.layouts.base import photo_id, photo_of
from skinclip.data.tables import KnownPhotos, LabelFile, LabelRow, collect


def read_photos(
    labels: LabelFile,
    folder: Path,
    photos: dict[str, Path],
    masks: dict[str, Path],
    split: str | None,
    strict: bool,
    known: KnownPhotos,
) -> CaseTable:
    """The rows of a table in HAM10000's format; `split` is that of rows which give none."""
    readings = read_readings(folder)

    def to_case(row: LabelRow) -> Case:
        image_id = photo_id(row, "image_id")
        diagnosis = cells.parse_code(row.word("dx"))
        return Case(
            image=photo_of(photos, row, "image_id"),
            image_id=image_id,
            source=folder.name,
            lesion_id=row.get("lesion_id") or image_id,
            diagnosis=diagnosis,
            mask=masks.get(name_key(image_id)),
            context=cells.parse_context(row, "age", "sex", "localization"),
            split=cells.parse_split(row.get("split")) or split,
            malignant=vocabulary.is_malignant(diagnosis),
            kind="dermoscopy",
            readings=readings.get(image_id, ()),
        )

    return collect(labels, to_case, strict, known)
