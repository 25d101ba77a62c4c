"""`study backup` and `study restore`: a study into one file while it is conducted, and back, on record."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from skinclip.study.errors import StudyRequestError
from skinclip.study.session.bundle import ANCHORS, DATABASE, RECORD, read_record
from skinclip.study.session.keys import read_study_key, store_key
from skinclip.study.session.session_service import Study
from skinclip.study.store import backup as archives
from skinclip.study.store.codes import read_key
from skinclip.study.store.records import RESTORED
from skinclip.study.store.store import Store, where_from_environment
from skinclip.study.store.study_key import StudyKey


@dataclass(frozen=True)
class RestoreResult:
    """Result of a restore: the folder, the events that the backup held, those lost, and where the old database is."""

    folder: Path
    events: int
    lost: int
    replaced: Path | None


def backup(study: Study, out: Path) -> int:
    """Writes the study into the archive `out`, without its key; returns the number of events in it.

    The copy of the database is opened and verified before the file gets its name.
    Raises StudyRequestError where `out` is there, or the answers lie in PostgreSQL.
    """
    folder, where = study.bundle.folder, where_from_environment(study.bundle.folder / DATABASE)
    if not isinstance(where, Path):
        raise StudyRequestError(archives.POSTGRESQL)
    problems = study.store.verify(study.name)
    if problems:
        raise StudyRequestError(f"the log is not as it was written: {problems[0]}. Nothing was backed up")
    head = study.store.head(study.name)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    about = {"study": study.name, "events": head.sequence, "digest": head.digest, "made": made}
    archives.pack(folder, where, out, about, study.store.key)
    return head.sequence


def restore(archive: Path, out: Path, key: Path | None = None, reason: str = "") -> RestoreResult:
    """Puts a backup into `out`: a new folder, or the study itself, whose database it then replaces.

    The database that was there is kept beside it. End the page before. `key` is needed where the study's key is not at
    its usual place. Raises StudyRequestError, KeyFileError, StoreError.
    """
    if not isinstance(where_from_environment(out / DATABASE), Path):
        raise StudyRequestError(archives.POSTGRESQL)
    there = out.exists() and any(out.iterdir())
    if there and not (out / RECORD).is_file():
        raise StudyRequestError(f"{out} is there and is no study; give another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    if key is not None:
        store_key(key)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as place:
        draft = Path(place) / "study"
        manifest = archives.unpack(archive, draft, _key(archive, key, out))
        with Store.open(draft / DATABASE, read_study_key(draft, read_record(draft)[0])) as store:
            problems = store.verify(manifest["study"])
        if problems:
            raise StudyRequestError(f"the backup's log is not as it was written: {problems[0]}. Nothing was restored")
        replaced = _replace_database(draft, out, manifest) if there else None
        if not there:
            if out.exists():
                out.rmdir()
            draft.rename(out)
    return _recorded(out, manifest, reason, replaced)


def _key(archive: Path, key: Path | None, out: Path) -> StudyKey:
    """The key that the backup was made with: given, or at the place where the study's record says."""
    if key is not None:
        return StudyKey(read_key(key))
    if (out / RECORD).is_file():
        return StudyKey(read_study_key(out, read_record(out)[0]))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / RECORD).write_bytes(archives.read_file(archive, RECORD))
        return StudyKey(read_study_key(folder, read_record(folder)[0]))


def _replace_database(draft: Path, out: Path, manifest: Mapping[str, Any]) -> Path | None:
    """The backup's database in place of the study's, which is kept; the study's own anchors stay."""
    if read_record(draft)[1] != read_record(out)[1]:
        raise StudyRequestError(f"the backup is of the study {manifest['study']}, and {out} holds another")
    kept = None
    stamp = f"replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    for end in ("", "-wal", "-shm"):
        old = out / f"{DATABASE}{end}"
        if old.exists():
            new = out / f"{DATABASE}.{stamp}{end}"
            old.rename(new)
            kept = new if not end else kept
    (draft / DATABASE).rename(out / DATABASE)
    if not (out / ANCHORS).exists() and (draft / ANCHORS).exists():
        (draft / ANCHORS).rename(out / ANCHORS)
    return kept


def _recorded(out: Path, manifest: Mapping[str, Any], reason: str, replaced: Path | None) -> RestoreResult:
    """Puts the restore on record, in the log and among the anchors."""
    events = int(manifest["events"])
    with Study.open(out, checked=False) as study:
        last = study.anchors.last()
        reached = last.sequence if last else events
        held = study.store.head(study.name).sequence
        payload = {"backup_made": manifest["made"], "events": held, "known": reached, "reason": reason.strip()}
        study.store.log.note_restored(study.name, payload)
        study.anchors.append(study.store.head(study.name), RESTORED)
    return RestoreResult(out, held, max(0, reached - held), replaced)
