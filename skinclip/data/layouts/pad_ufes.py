"""PAD-UFES-20 as published (Pacheco et al. 2020): smartphone photos and `metadata.csv` with `img_id`."""

from __future__ import annotations

from pathlib import Path

from skinclip.data import cells
from skinclip.data.cases import Case, CaseTable, DataError
from skinclip.data.files import photos_by_stem, table_named
from skinclip.data.layouts.base import Layout, photo_id, photo_of
from skinclip.data.tables import BadRow, LabelRow, collect, columns_of, read_labels

DIAGNOSES = {"ack": "akiec", "bcc": "bcc", "mel": "mel", "nev": "nv", "scc": "scc", "sek": "bkl"}
# As published: six skin diseases, three of them cancers; actinic keratosis is not one of them.
_CANCERS = frozenset({"bcc", "mel", "scc"})
_REQUIRED = ("img_id", "diagnostic")


def read(folder: Path, strict: bool = False) -> CaseTable:
    """The photos of all six diseases, grouped by Fitzpatrick type (`FST1` to `FST6`). The set has no splits."""
    path = table_named([folder], "metadata")
    if path is None:
        raise DataError(f"{folder}: no metadata.csv")
    labels = read_labels(path, _REQUIRED)
    photos = photos_by_stem([folder])
    if not photos:
        raise DataError(f"{folder}: no photos in imgs_part_1/, imgs_part_2/ and imgs_part_3/")

    def to_case(row: LabelRow) -> Case:
        name = row.word("diagnostic")
        if name is not None and name not in DIAGNOSES:
            expected = ", ".join(word.upper() for word in DIAGNOSES)
            raise BadRow(f"unknown diagnostic {name!r}; expected one of {expected}")
        image_id = photo_id(row, "img_id")
        skin_type = cells.parse_level(row.get("fitspatrick"), "fitspatrick", 1, 6)
        patient = row.get("patient_id")
        lesion = row.get("lesion_id")
        return Case(
            image=photo_of(photos, row, "img_id"),
            image_id=image_id,
            source=folder.name,
            lesion_id=lesion or patient or image_id,
            diagnosis=DIAGNOSES[name] if name else None,
            context=cells.parse_context(row, "age", "gender", "region"),
            split=cells.parse_split(row.get("split")),
            group=f"FST{skin_type}" if skin_type else None,
            malignant=None if name is None else name in _CANCERS,
            patient_id=patient,
            kind="clinical",
            fitzpatrick=skin_type,
        )

    return collect(labels, to_case, strict)


def _matches(folder: Path) -> bool:
    path = table_named([folder], "metadata")
    return path is not None and set(_REQUIRED) <= set(columns_of(path))


LAYOUT = Layout("pad_ufes", "metadata.csv with img_id and diagnostic (PAD-UFES-20)", _matches, read)
