"""The ISIC archive as downloaded: photos, `metadata.csv` with `isic_id` and `diagnosis_1` to `diagnosis_5`."""

from __future__ import annotations

from pathlib import Path

from skinclip.core import vocabulary
from skinclip.data import cells
from skinclip.data.cases import Case, CaseTable, DataError
from skinclip.data.files import photos_by_stem, table_named
from skinclip.data.layouts.base import Layout, photo_id, photo_of
from skinclip.data.layouts.diagnosis_names import code_of
from skinclip.data.tables import LabelRow, collect, columns_of, read_labels

_LEVELS = tuple(f"diagnosis_{level}" for level in range(1, 6))
_TYPES = {"dermoscopic": "dermoscopy", "clinical": "clinical", "tbp": "clinical", "overview": "clinical"}
_ROMAN = {"i": 1, "ii": 2, "iii": 3, "iv": 4, "v": 5, "vi": 6}


def read(folder: Path, strict: bool = False) -> CaseTable:
    """The archive's photos; a `split` column of one's own is read where there is one.

    Malignancy is what `diagnosis_1` (or the older `benign_malignant`) says; "indeterminate" is left to the diagnosis.
    """
    path = table_named([folder], "metadata")
    if path is None:
        raise DataError(f"{folder}: no metadata.csv")
    labels = read_labels(path, ("isic_id",))
    photos = photos_by_stem([folder])
    if not photos:
        raise DataError(f"{folder}: no photos beside {path.name}")

    def to_case(row: LabelRow) -> Case:
        image_id = photo_id(row, "isic_id")
        diagnosis = code_of([*(row.get(level) for level in _LEVELS), row.get("diagnosis")])
        site = "anatom_site_general" if row.get("anatom_site_general") else "anatom_site_1"
        return Case(
            image=photo_of(photos, row, "isic_id"),
            image_id=image_id,
            source=folder.name,
            lesion_id=row.get("lesion_id") or row.get("patient_id") or image_id,
            diagnosis=diagnosis,
            context=cells.parse_context(row, "age_approx", "sex", site),
            split=cells.parse_split(row.get("split")),
            malignant=_malignant(row, diagnosis),
            patient_id=row.get("patient_id"),
            kind=_kind(row),
            fitzpatrick=_skin_type(row),
        )

    return collect(labels, to_case, strict)


def _malignant(row: LabelRow, diagnosis: str | None) -> bool | None:
    word = (row.word("diagnosis_1") or row.word("benign_malignant") or "").partition("/")[0]
    return {"malignant": True, "benign": False}.get(word, vocabulary.is_malignant(diagnosis))


def _kind(row: LabelRow) -> str | None:
    word = (row.word("image_type") or "").replace(":", " ").split()
    return _TYPES.get(word[0]) if word else None


def _skin_type(row: LabelRow) -> int | None:
    word = row.word("fitzpatrick_skin_type")
    if word in _ROMAN:
        return _ROMAN[word]
    return cells.parse_level(word, "fitzpatrick_skin_type", 1, 6)


def _matches(folder: Path) -> bool:
    path = table_named([folder], "metadata")
    columns = set(columns_of(path)) if path else set()
    return "isic_id" in columns and bool(columns & {"diagnosis_1", "diagnosis", "benign_malignant"})


LAYOUT = Layout("isic_archive", "metadata.csv with isic_id and diagnosis_1 (ISIC archive)", _matches, read)
