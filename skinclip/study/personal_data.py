"""Personal data of a study: all that is kept of one reader, its erasure, and photos whose time is over.

`docs/data_protection.md` says what is kept where and for how long.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from skinclip import RESEARCH_USE_ONLY
from skinclip.study.errors import StudyRequestError
from skinclip.study.session.bundle import DELETED_PHOTOS, deleted_photos, photo_files
from skinclip.study.session.session_service import Study
from skinclip.study.store.records import ANSWERING, CLOSED


def reader_data(study: Study, reader: str) -> dict[str, Any]:
    """All that the study keeps of one reader, as plain values.

    Until the study is closed of the events' contents only the reader's own answers are given: others hold the order of
    arms, which would unblind the reader who asks.
    Raises StoreError for a reader that there is not.
    """
    record = study.store.reader(study.name, reader)
    closed = study.store.is_closed(study.name)
    events = study.store.events(study.name, reader)
    return {
        "research_use_only": RESEARCH_USE_ONLY,
        "study": study.name,
        "reader": record.id,
        "site": record.site,
        "enrolled_at": record.enrolled_at,
        "withdrawn_at": record.withdrawn_at,
        "allocation": dict(record.allocation) if closed and record.allocation else None,
        "allocation_note": None if closed else "The order of arms is given once the study is closed.",
        "events": [
            {
                "at": e.at,
                "kind": e.kind,
                "step": e.step,
                "payload": e.payload if closed or e.kind in ANSWERING else None,
            }
            for e in events
        ],
    }


def erase_reader(study: Study, reader: str) -> None:
    """Erases a reader's answers, site and code; that there was a reader, and when, stays in the log.

    Backups and exports are not reached. Raises StoreError for a reader that there is not.
    """
    study.store.withdraw(study.name, reader)


def delete_photos(study: Study, after_days: int, now: datetime | None = None) -> list[str]:
    """Deletes photos and pictures of a study that was closed at least `after_days` ago; returns the files deleted.

    Answers, truth, numbers and text stay: the study can still be verified, exported and analysed. Nothing is deleted
    before the day, so a job may call this every night. Raises StudyRequestError for a study that is not closed.
    """
    closed = [event for event in study.store.events(study.name, kinds=(CLOSED,)) if event.kind == CLOSED]
    if not closed:
        raise StudyRequestError(f"{study.name} is not closed; its photos are still shown to readers")
    now = now or datetime.now(UTC)
    if datetime.fromisoformat(closed[-1].at) + timedelta(days=after_days) > now:
        return []
    folder = study.bundle.folder
    files = [name for name in photo_files(study.bundle.record) if (folder / name).exists()]
    if files:
        _record(folder, sorted({*deleted_photos(folder), *files}), now)  # first: a half-done deletion still opens
        for name in files:
            (folder / name).unlink()
    return files


def _record(folder: Path, names: list[str], now: datetime) -> None:
    text = json.dumps({"deleted_at": now.isoformat(timespec="seconds"), "files": names}, indent=2)
    part = folder / f".{DELETED_PHOTOS}"
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(folder / DELETED_PHOTOS)
