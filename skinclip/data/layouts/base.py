"""Parts of every layout: its entry in the registry, and the lookups that published sets have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from skinclip.data.cases import CaseTable, DataError
from skinclip.data.files import name_key, photos_by_stem, subfolders, table_named, without_suffix
from skinclip.data.tables import BadRow, LabelRow

DOWNSAMPLED = "_downsampled"  # ends the names of some ISIC 2019 photos; the photo is that of the plain id
_PARTS = {"Training": "train", "Validation": "valid", "Test": "test"}


@dataclass(frozen=True)
class Layout:
    """One layout of labelled photos.

    Attributes:
        name: what `--layout` calls it.
        expected: the files it is known by, for the message about a folder that no layout fits.
        matches: tells from a folder's files whether it has this layout; it must not read whole tables.
        read: (folder, strict) -> its cases. Raises DataError where the folder is not as the layout asks.
    """

    name: str
    expected: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, bool], CaseTable]


def official_parts(folder: Path, pattern: str) -> dict[str, tuple[str, list[Path]]]:
    """The parts of a challenge in a folder: "Training", "Validation", "Test" -> (split, its photo folders).

    `pattern` is a regular expression of the photo folders' names in which `{part}` stands for the part's.
    """
    parts: dict[str, tuple[str, list[Path]]] = {}
    for part, split in _PARTS.items():
        wanted = re.compile(pattern.format(part=part), re.IGNORECASE)
        photos = [path for path in subfolders(folder, "") if wanted.fullmatch(path.name)]
        if photos:
            parts[part] = (split, photos)
    return parts


def official_table(folder: Path, stem: str, expected: str) -> Path:
    """A published table in the folder, in a folder of its own name, or one deeper, as unpacking leaves it.

    Raises DataError that names `expected` where there is none.
    """
    own = folder / stem
    places = [folder, own, *(subfolders(own, "") if own.is_dir() else [])]
    if (path := table_named(places, stem)) is not None:
        return path
    others = [
        path for place in places[1:] for path in sorted(place.glob("*.csv")) if "grouping" not in path.name.lower()
    ]
    if len(others) == 1:
        return others[0]
    raise DataError(f"{folder}: no {stem}/{stem}.csv beside {expected}/, nor {stem}.csv or .tab")


def photo_id(row: LabelRow, column: str) -> str:
    """The photo's id in a cell that may be a file name. Raises BadRow where the cell is empty."""
    return without_suffix(row.require(column)).removesuffix(DOWNSAMPLED)


def photo_of(photos: Mapping[str, Path], row: LabelRow, column: str) -> Path:
    """The photo that a cell names, with or without the ending of its file. Raises BadRow where it is missing."""
    name = without_suffix(row.require(column))
    for spelling in (name, name.removesuffix(DOWNSAMPLED), name + DOWNSAMPLED):
        if (path := photos.get(name_key(spelling))) is not None:
            return path
    raise BadRow(f"image {name} not found")


def require_photos(folders: Iterable[Path], folder: Path, expected: str) -> dict[str, Path]:
    """The photos below the folders by name. Raises DataError where there are none."""
    photos = photos_by_stem(folders)
    if not photos:
        raise DataError(f"{folder}: no photos in {expected}")
    return photos
