"""Photo files found by name, each folder listed once; spelling, case and Unicode normalisation are forgiven.

Linked folders are followed, each real folder once.
"""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".heic", ".heif", ".avif", ".jp2"}
)

_TABLE_SUFFIXES = (".csv", ".tab", ".tsv", ".txt", "")


def one_form(name: str) -> str:
    """The name in one Unicode form: macOS writes an accent as a letter of its own, Windows and Linux do not."""
    return unicodedata.normalize("NFC", name)


def name_key(name: str) -> str:
    """The form in which names are compared: one Unicode form, without case, without spaces at the ends."""
    return one_form(name).casefold().strip()


def without_suffix(name: str) -> str:
    """A photo's name without the ending of a photo file; another ending stays, as ids may hold dots."""
    return Path(name).stem if Path(name).suffix.lower() in PHOTO_SUFFIXES else name


class FileFinder:
    """Files named by a label file, each folder listed once (not one disk access per row)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[Path, dict[str, list[os.DirEntry[str]]]] = {}

    def find(self, name: str) -> Path | None:
        """The file of that name relative to `root`, or None. The exact spelling wins over another."""
        *folders, last = PurePosixPath(name.replace("\\", "/")).parts or ("",)
        folder = self.root
        for part in folders:
            if part in ("/", ".."):
                folder = Path(part) if part == "/" else folder.parent
                continue
            entry = self._entry(folder, part)
            if entry is None:
                return None
            folder = folder / entry.name
        entry = self._entry(folder, last)
        return folder / entry.name if entry is not None and entry.is_file() else None

    def _entry(self, folder: Path, part: str) -> os.DirEntry[str] | None:
        if folder not in self._listings:
            self._listings[folder] = _listing(folder)
        spellings = self._listings[folder].get(name_key(part), [])
        exact = [entry for entry in spellings if entry.name == part]
        same = [entry for entry in spellings if one_form(entry.name) == one_form(part)]
        chosen = exact or same or spellings
        return chosen[0] if len(chosen) == 1 else None  # several other spellings: do not guess


def _listing(folder: Path) -> dict[str, list[os.DirEntry[str]]]:
    """The folder's entries by `name_key`; none where it is no folder or cannot be read."""
    entries: dict[str, list[os.DirEntry[str]]] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as scan:
        for entry in scan:
            entries.setdefault(name_key(entry.name), []).append(entry)
    return entries


def photos_by_stem(folders: Iterable[Path], ending: str = "") -> dict[str, Path]:
    """Photo files below the folders by `name_key` without suffix (and without `ending`); the first wins."""
    photos: dict[str, Path] = {}
    for file in _files_below(folders):
        stem, suffix = os.path.splitext(name_key(file.name))
        if suffix in PHOTO_SUFFIXES and stem.endswith(ending):
            photos.setdefault(stem.removesuffix(ending).strip(), file)
    return photos


def _files_below(folders: Iterable[Path]) -> Iterator[Path]:
    """All files, links followed; a folder that links lead to again is passed over."""
    met: set[str] = set()
    for top in folders:
        for folder, inner, names in os.walk(top, followlinks=True):
            real = os.path.realpath(folder)
            if real in met:
                inner.clear()
                continue
            met.add(real)
            inner.sort()
            yield from (Path(folder, name) for name in sorted(names))


def image_ids(names: Iterable[str]) -> dict[str, str]:
    """An id for every file name as written: its stem, with its folders in front where two files share a stem."""
    paths = {name: PurePosixPath(name.replace("\\", "/")) for name in names}
    stems = Counter(stem for stem, _ in {(name_key(p.stem), name_key(str(p))) for p in paths.values()})
    return {
        name: path.stem if stems[name_key(path.stem)] == 1 else "_".join((*path.parent.parts, path.stem))
        for name, path in paths.items()
    }


def subfolders(folder: Path, start: str) -> list[Path]:
    """The folders (or links to folders) in `folder` whose name begins with `start`, in any case."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name.lower().startswith(start.lower()))


def table_named(folders: Iterable[Path], stem: str) -> Path | None:
    """The first file `stem` with one of the endings of tables, in any case, in the folders in their order."""
    for folder in folders:
        finder = FileFinder(folder)
        for suffix in _TABLE_SUFFIXES:
            if (path := finder.find(stem + suffix)) is not None:
                return path
    return None
