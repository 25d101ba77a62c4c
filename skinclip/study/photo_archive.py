"""Unpacks a ZIP of labelled photos that a coordinator uploads, within bounds and into one folder alone.

An archive is a stranger's file. Names that lead out of the folder, links, passwords, packings that need much memory,
and sizes beyond the bounds are refused or left out by name; what is declared is checked before a byte is unpacked, and
no more than that is. A table that names photos outside the folder is refused too: the server has others.
"""

from __future__ import annotations

import re
import secrets
import shutil
import stat
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from skinclip.core.safe_text import one_line
from skinclip.data.cases import CaseTable
from skinclip.data.files import PHOTO_SUFFIXES, name_key
from skinclip.imaging.photo import MAX_FILE_MB
from skinclip.study.errors import StudyRequestError

MAX_ARCHIVE_BYTES = 4_000_000_000
MAX_UNPACKED_BYTES = 8_000_000_000
MAX_FILES = 20_000
MAX_TABLE_BYTES = 20_000_000
FREE_BYTES = 1_000_000_000  # of the disk that stay free
TABLES = frozenset({".csv", ".tab", ".tsv"})
_DIRECTORY_BYTES = 16_000_000  # of the archive's own list of files, which is read into memory
_LONGEST_NAME = 200
_PACKED = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})  # others may ask for gigabytes to be unpacked
_OF_NO_INTEREST = re.compile(r"(^|/)(__MACOSX/|\.[^./])|(^|/)(thumbs\.db|desktop\.ini)$", re.IGNORECASE)
_UNUSUAL = re.compile(r'[\x00-\x1f\x7f<>:"|?*]')
_CHUNK = 1 << 20
_END, _END_64, _LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"


@dataclass(frozen=True)
class UnpackedPhotos:
    """The folder of an unpacked archive, the number of its files, and a line for each that was left out."""

    folder: Path
    files: int
    left_out: tuple[str, ...] = ()


def unpack_photos(archive: Path, folder: Path) -> UnpackedPhotos:
    """Unpacks photos and tables of `archive` into `folder`, in place of what was there.

    Where all lies in one folder of the archive, that folder is left out, so that the table is found at the top.

    Raises StudyRequestError for a file that is no ZIP or beyond the bounds; what was there stays then.
    """
    draft = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    try:
        _check_directory(archive)
        with zipfile.ZipFile(archive) as opened:
            wanted, left_out = _wanted(opened.infolist())
            _check_sizes(wanted.values(), folder)
            draft.mkdir(mode=0o700, parents=True)
            for name, entry in wanted.items():
                _extract(opened, entry, draft / name)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        if isinstance(error, StudyRequestError):
            raise
        raise StudyRequestError("this file is no ZIP archive, or a damaged one; make it anew and upload it") from error
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise StudyRequestError(f"the photos could not be written ({error.strerror}); free some space") from error
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    return UnpackedPhotos(folder, len(wanted), left_out)


def check_within(table: CaseTable, folder: Path) -> None:
    """Raises StudyRequestError where a table names a photo that is not below `folder`."""
    root = folder.resolve()
    outside = [case.image_id for case in table.cases if not case.image.resolve().is_relative_to(root)]
    if outside:
        raise StudyRequestError(
            f"the table names photos that are not in the archive: {one_line(', '.join(outside[:5]))}"
        )


def _check_directory(archive: Path) -> None:
    """Refuses an archive whose list of files alone would fill the memory, before it is read."""
    size = archive.stat().st_size
    if size > MAX_ARCHIVE_BYTES:
        raise _too_large()
    with open(archive, "rb") as file:
        file.seek(max(0, size - (1 << 16) - 200))
        tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or at + 20 > len(tail):
        raise zipfile.BadZipFile
    entries, listed = struct.unpack_from("<HI", tail, at + 10)
    large = at - 20 - 56  # the record of archives with large numbers, where its locator says there is one
    if large >= 0 and tail[at - 20 : at - 16] == _LOCATOR_64 and tail[large : large + 4] == _END_64:
        entries, listed = struct.unpack_from("<QQ", tail, large + 32)
    if entries > 2 * MAX_FILES or listed > _DIRECTORY_BYTES:
        raise _too_large()


def _too_large() -> StudyRequestError:
    return StudyRequestError(
        f"the archive is too large: up to {MAX_FILES:,} files, {MAX_ARCHIVE_BYTES // 10**9} GB packed and "
        f"{MAX_UNPACKED_BYTES // 10**9} GB unpacked are taken. Leave out what the study does not need, or name the "
        "folder on the computer on which this page was started"
    )


def _wanted(entries: Iterable[zipfile.ZipInfo]) -> tuple[dict[str, zipfile.ZipInfo], tuple[str, ...]]:
    """Path below the folder -> entry, and a line for each entry that is left out."""
    wanted: dict[str, zipfile.ZipInfo] = {}
    left_out, known = [], set[str]()
    for entry in entries:
        if entry.is_dir() or _OF_NO_INTEREST.search(entry.filename):
            continue
        why = _why_not(entry) or ("is there twice" if name_key(entry.filename) in known else "")
        if why:
            left_out.append(f"{one_line(entry.filename)[:_LONGEST_NAME]}: {why}")
        else:
            known.add(name_key(entry.filename))
            wanted[entry.filename] = entry
    if not wanted:
        reasons = f": {'; '.join(left_out[:5])}" if left_out else ""
        raise StudyRequestError(f"the archive holds neither photos nor a table that can be used{reasons}")
    tops = {PurePosixPath(name).parts[0] for name in wanted}
    inside = len(tops) == 1 and all("/" in name for name in wanted)
    return {name.partition("/")[2] if inside else name: entry for name, entry in wanted.items()}, tuple(left_out)


def _why_not(entry: zipfile.ZipInfo) -> str:
    """The reason why an entry is left out; empty for one that is taken."""
    path, mode = PurePosixPath(entry.filename), entry.external_attr >> 16
    if path.is_absolute() or ".." in path.parts or "\\" in entry.filename or _UNUSUAL.search(entry.filename):
        return "its name leads elsewhere, or has characters that not every computer takes"
    if len(entry.filename) > _LONGEST_NAME:
        return f"its name has more than {_LONGEST_NAME} characters"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "is a link and no file"
    suffix, photo = path.suffix.lower(), path.suffix.lower() in PHOTO_SUFFIXES
    if not photo and suffix not in TABLES and path.name != "HAM10000_metadata":
        return "is neither a photo nor a table (.csv)"
    if entry.flag_bits & 1:
        return "is protected by a password"
    if entry.compress_type not in _PACKED:
        return "is packed in a way that is not read here; make an ordinary ZIP"
    most = MAX_FILE_MB * 1_000_000 if photo else MAX_TABLE_BYTES
    return f"is larger than {most // 1_000_000} MB" if entry.file_size > most else ""


def _check_sizes(entries: Iterable[zipfile.ZipInfo], folder: Path) -> None:
    listed = list(entries)
    size = sum(entry.file_size for entry in listed)
    if len(listed) > MAX_FILES or size > MAX_UNPACKED_BYTES:
        raise _too_large()
    folder.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder.parent).free < size + FREE_BYTES:
        raise StudyRequestError(f"the disk has no room for {size / 10**9:.1f} GB of photos; free some space")


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    """Writes one entry, of exactly the size that it declares: `zipfile` reads no byte beyond it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    written = 0
    with archive.open(entry) as packed, open(path, "xb") as file:
        while part := packed.read(_CHUNK):
            written += len(part)
            file.write(part)
    if written != entry.file_size:
        raise zipfile.BadZipFile
