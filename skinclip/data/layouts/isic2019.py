"""ISIC 2019 as published: one-hot tables of nine classes (squamous cell carcinoma and unknown among them), metadata."""

from __future__ import annotations

from pathlib import Path

from skinclip.core import vocabulary
from skinclip.core.assessment import Context
from skinclip.data import cells
from skinclip.data.cases import Case, CaseTable
from skinclip.data.files import table_named
from skinclip.data.layouts.base import Layout, official_parts, official_table, photo_id, photo_of, require_photos
from skinclip.data.tables import BadRow, KnownPhotos, LabelRow, collect, joined, read_labels

COLUMNS = {
    "MEL": "mel",
    "NV": "nv",
    "BCC": "bcc",
    "AK": "akiec",
    "BKL": "bkl",
    "DF": "df",
    "VASC": "vasc",
    "SCC": "scc",
    "UNK": "other",
}
_PHOTOS = r"ISIC_2019_{part}_Input"


def read(folder: Path, strict: bool = False) -> CaseTable:
    """Training and Test, whichever are there, with age, sex, site and lesion from the metadata beside them."""
    known = KnownPhotos()
    parts = official_parts(folder, _PHOTOS)
    return joined(_read_part(folder, part, *where, strict, known) for part, where in parts.items())


def _read_part(folder: Path, part: str, split: str, folders: list[Path], strict: bool, known: KnownPhotos) -> CaseTable:
    path = official_table(folder, f"ISIC_2019_{part}_GroundTruth", folders[0].name)
    labels = read_labels(path, ("image", *(column.lower() for column in COLUMNS)))
    photos = require_photos(folders, folder, f"{folders[0].name}/")
    about = _metadata(folder, part)

    def to_case(row: LabelRow) -> Case:
        image_id = photo_id(row, "image")
        diagnosis, more = cells.one_hot(row, COLUMNS), about.get(image_id)
        return Case(
            image=photo_of(photos, row, "image"),
            image_id=image_id,
            source=folder.name,
            lesion_id=(more and more.get("lesion_id")) or image_id,
            diagnosis=diagnosis,
            context=cells.parse_context(more, "age_approx", "sex", "anatom_site_general") if more else Context(),
            split=split,
            malignant=vocabulary.is_malignant(diagnosis),
            kind="dermoscopy",
        )

    return collect(labels, to_case, strict, known)


def _metadata(folder: Path, part: str) -> dict[str, LabelRow]:
    """Image -> its row of the metadata table; none where there is no such table."""
    name = f"ISIC_2019_{part}_Metadata"
    path = table_named([folder, folder / name], name)
    if path is None:
        return {}
    rows = {}
    for row in read_labels(path, ("image",)).rows:
        try:
            rows[photo_id(row, "image")] = row
        except BadRow:
            continue  # without a photo's name there is nothing to join it to
    return rows


LAYOUT = Layout(
    "isic2019",
    "ISIC_2019_Training_Input/ with ISIC_2019_Training_GroundTruth.csv (ISIC 2019)",
    lambda folder: bool(official_parts(folder, _PHOTOS)),
    read,
)
