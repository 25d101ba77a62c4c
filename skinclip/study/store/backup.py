"""Backups of a study: its folder and a whole copy of its SQLite database in one archive, and back again.

The database is copied by SQLite's own backup (https://sqlite.org/backup.html), so that what lies in the write-ahead log
is in it, while readers answer. The key is not: it lies apart from the study, and from its backups. Restoring is put on
record, in the log and in the anchors, with what the backup did not hold.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any

from skinclip.study.errors import StudyRequestError
from skinclip.study.store.study_key import StudyKey

MANIFEST = "backup.json"
FORM = "skinclip-study-backup-1"
POSTGRESQL = (
    "the answers of this study lie in PostgreSQL, whose own programs copy them whole: "
    '`pg_dump --format=custom --file=study.dump "$SKINCLIP_DATABASE_URL"`, and back with `pg_restore --clean '
    '--if-exists --dbname="$SKINCLIP_DATABASE_URL" study.dump`; copy the study\'s folder beside it'
)


def copy_database(path: Path, to: Path) -> None:
    """Copies a SQLite database whole, whoever writes to it meanwhile. Raises StudyRequestError."""
    try:
        with (
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as source,
            closing(sqlite3.connect(to)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise StudyRequestError(f"{path} cannot be copied ({error}); nothing was written") from error


def pack(folder: Path, database: Path, out: Path, about: dict[str, Any], key: StudyKey) -> None:
    """Writes the study's folder and a copy of its database into the archive `out`, with a marked list of checksums."""
    if out.exists():
        raise StudyRequestError(f"{out} is there already; give another file for the backup")
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        with tempfile.TemporaryDirectory(dir=out.parent) as place, zipfile.ZipFile(draft, "w") as archive:
            copy = Path(place) / database.name
            copy_database(database, copy)
            files = dict(_files(folder, database)) | {database.name: copy}
            sums = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
            for name, path in files.items():
                archive.write(path, name)
            manifest = json.dumps({"form": FORM, **about, "files": sums}, sort_keys=True)
            archive.writestr(MANIFEST, json.dumps({"manifest": manifest, "mark": key.mark("backup", manifest)}))
        draft.chmod(0o600)
        draft.rename(out)
    finally:
        draft.unlink(missing_ok=True)


def _files(folder: Path, database: Path) -> Iterator[tuple[str, Path]]:
    """Every file of the study but its database, which is copied in another way, and its key."""
    apart = {"key", *(database.name + end for end in ("", "-wal", "-shm", "-journal"))}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in apart and not path.name.startswith(f"{database.name}.replaced"):
            yield path.relative_to(folder).as_posix(), path


def read_manifest(archive: Path) -> tuple[dict[str, Any], str, str]:
    """The manifest of a backup, its text, and its mark. Raises StudyRequestError where the file is no backup."""
    try:
        with zipfile.ZipFile(archive) as opened:
            outer = json.loads(opened.read(MANIFEST))
        manifest: dict[str, Any] = json.loads(outer["manifest"])
        if manifest["form"] == FORM:
            return manifest, outer["manifest"], outer["mark"]
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise StudyRequestError(f"{archive} is no backup of a study, or was cut short ({error})") from error
    raise StudyRequestError(f"{archive} was written by a newer version of this program; update the program")


def read_file(archive: Path, name: str) -> bytes:
    """One file of a backup, unchecked. Raises StudyRequestError."""
    read_manifest(archive)
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.read(name)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise StudyRequestError(f"{archive}: {name} is missing or damaged; use another backup") from error


def unpack(archive: Path, to: Path, key: StudyKey) -> dict[str, Any]:
    """Unpacks a backup into an empty folder and checks every file; returns its manifest.

    Raises StudyRequestError where it was made with another key, or a file of it was changed.
    """
    manifest, text, mark = read_manifest(archive)
    if not key.fits(mark, "backup", text):
        raise StudyRequestError(f"{archive} was changed, or belongs to another key")
    with zipfile.ZipFile(archive) as opened:
        for name, expected in manifest["files"].items():
            place = PurePosixPath(name)
            if place.is_absolute() or ".." in place.parts:
                raise StudyRequestError(f"{archive}: {name} lies outside the study's folder")
            try:
                data = opened.read(name)
            except (KeyError, zipfile.BadZipFile, OSError) as error:
                raise StudyRequestError(f"{archive}: {name} is missing or damaged; use another backup") from error
            if hashlib.sha256(data).hexdigest() != expected:
                raise StudyRequestError(f"{archive}: {name} was changed after the backup was made; use another backup")
            target = to / place
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch(mode=0o600)
            target.write_bytes(data)
    return manifest
