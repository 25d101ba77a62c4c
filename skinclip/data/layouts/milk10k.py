"""MILK10k (ISIC 2025) as published: two photos per lesion, `MILK10k_Training_Input/IL_.../`, and its tables."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from skinclip.core import vocabulary
from skinclip.data import cells
from skinclip.data.cases import Case, CaseTable, DataError
from skinclip.data.files import table_named
from skinclip.data.layouts.base import Layout, official_parts, official_table, photo_id, photo_of, require_photos
from skinclip.data.tables import BadRow, KnownPhotos, LabelFile, LabelRow, collect, joined, read_labels

COLUMNS = {
    "AKIEC": "akiec",
    "BCC": "bcc",
    "BKL": "bkl",
    "DF": "df",
    "MEL": "mel",
    "NV": "nv",
    "VASC": "vasc",
    "SCCKA": "scc",
    "INF": "INF",
    "BEN_OTH": "BEN_OTH",
    "MAL_OTH": "MAL_OTH",
}
_OTHER = {"INF": False, "BEN_OTH": False, "MAL_OTH": True}  # -> malignant
_PHOTOS = r"MILK10k_{part}_Input"


def read(folder: Path, strict: bool = False) -> CaseTable:
    """One case per lesion: its dermoscopic photo, the clinical close-up beside it as `clinical_image`.

    A lesion with one photo alone is a case of that photo. `split.csv`, where there, says the split by lesion; else it
    is the part's. The scores of MONET, made by a model, are not read.
    """
    known, splits = KnownPhotos(), _splits(folder)
    parts = official_parts(folder, _PHOTOS)
    return joined(_read_part(folder, part, *where, strict, (known, splits)) for part, where in parts.items())


def _read_part(
    folder: Path, part: str, split: str, folders: list[Path], strict: bool, shared: tuple[KnownPhotos, dict[str, str]]
) -> CaseTable:
    known, splits = shared
    stem = f"MILK10k_{part}"
    metadata = read_labels(
        official_table(folder, f"{stem}_Metadata", folders[0].name), ("lesion_id", "image_type", "isic_id")
    )
    photos = require_photos(folders, folder, f"{folders[0].name}/")
    truth = table_named([folder, folder / f"{stem}_GroundTruth"], f"{stem}_GroundTruth")
    rows, problems = _by_lesion(metadata)
    labels = _labels(truth, metadata)

    def to_case(row: LabelRow) -> Case:
        lesion = row.require("lesion_id")
        if lesion not in rows:
            raise BadRow(f"no photo of lesion {lesion} in {metadata.path.name}")
        marked = cells.one_hot(row, COLUMNS) if truth else None
        return _case(folder, lesion, rows[lesion], photos, (marked, splits.get(lesion, split)))

    if strict and problems:
        raise DataError(problems[0])
    return joined([CaseTable((), tuple(problems)), collect(labels, to_case, strict, known)])


def _labels(truth: Path | None, metadata: LabelFile) -> LabelFile:
    """The ground truth's rows; where there is none, the first row of each lesion in the metadata."""
    if truth is not None:
        return read_labels(truth, ("lesion_id", *(column.lower() for column in COLUMNS)))
    first: dict[str, LabelRow] = {}
    for row in metadata.rows:
        if not row.problem:
            first.setdefault(row.cells["lesion_id"], row)
    return LabelFile(metadata.path, metadata.columns, tuple(first.values()))


def _by_lesion(metadata: LabelFile) -> tuple[dict[str, dict[str, LabelRow]], list[str]]:
    """Lesion -> kind of photo -> its row, and a line for every row that has no place there."""
    lesions: dict[str, dict[str, LabelRow]] = defaultdict(dict)
    problems = []
    for row in metadata.rows:
        try:
            if row.problem:
                raise BadRow(row.problem)
            kind = "dermoscopy" if row.require("image_type").lower().startswith("dermoscop") else "clinical"
            if kind in lesions[row.require("lesion_id")]:
                raise BadRow(f"a second {kind} photo of lesion {row.get('lesion_id')}")
            lesions[row.require("lesion_id")][kind] = row
        except BadRow as error:
            problems.append(f"{metadata.path.name} line {row.line}: {error}")
    return dict(lesions), problems


def _case(
    folder: Path, lesion: str, rows: dict[str, LabelRow], photos: dict[str, Path], label: tuple[str | None, str]
) -> Case:
    marked, split = label
    kind = "dermoscopy" if "dermoscopy" in rows else "clinical"
    row = rows[kind]
    second = rows.get("clinical") if kind == "dermoscopy" else None
    diagnosis = "other" if marked in _OTHER else marked
    return Case(
        image=photo_of(photos, row, "isic_id"),
        image_id=photo_id(row, "isic_id"),
        source=folder.name,
        lesion_id=lesion,
        diagnosis=diagnosis,
        context=cells.parse_context(row, "age_approx", "sex", "site"),
        split=split,
        malignant=_OTHER[marked] if marked in _OTHER else vocabulary.is_malignant(diagnosis),
        clinical_image=photo_of(photos, second, "isic_id") if second else None,
        kind=kind,
        skin_tone=cells.parse_level(row.get("skin_tone_class"), "skin_tone_class", 0, 5),
    )


def _splits(folder: Path) -> dict[str, str]:
    """Lesion -> split, from `split.csv` where it is there."""
    path = folder / "split.csv"
    if not path.is_file():
        return {}
    rows = read_labels(path, ("lesion_id", "split")).rows
    return {row.cells["lesion_id"]: split for row in rows if (split := cells.parse_split(row.get("split")))}


LAYOUT = Layout(
    "milk10k",
    "MILK10k_Training_Input/ with MILK10k_Training_GroundTruth.csv and _Metadata.csv (MILK10k)",
    lambda folder: bool(official_parts(folder, _PHOTOS)),
    read,
)
