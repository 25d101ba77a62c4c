"""Structured logs without personal data: one JSON object a line, of fields that are listed here and no others.

What a visitor sends (photos, entries, names, addresses) has no field. An exception is written as its class and the
places in the program that it passed through, never by its message, which may quote what was sent.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from skinclip import __version__

LOGGER = logging.getLogger("skinclip.service")
# field -> its type; texts are words of the program (route templates, key names), not of a visitor
FIELDS: dict[str, type | tuple[type, ...]] = {
    "event": str,
    "request": str,  # a random id, in the answer's X-Request-ID as well
    "route": str,
    "method": str,
    "status": int,
    "seconds": float,
    "key": str,  # the name of the API key
    "bytes": int,
    "photos": int,
    "outcome": str,
    "replayed": bool,
    "reason": str,
    "waiting": int,
}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})


class JsonLines(logging.Formatter):
    """Formats a record as a JSON object of its listed fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "version": __version__,
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])
            line["at"] = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-8:]]
        return json.dumps(line, ensure_ascii=True, allow_nan=False)


def configure(stream: IO[str] | None = None) -> None:
    """Sends this program's events, and the server's own errors, as JSON lines to `stream` (stderr by default)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    for name in (LOGGER.name, "uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    LOGGER.setLevel(logging.INFO)


def log(event: str, error: BaseException | None = None, **fields: Any) -> None:
    """Writes an event. Raises ValueError for a field that is not listed, or of another type: a fault of the program."""
    for name, value in fields.items():
        if name not in FIELDS or not isinstance(value, FIELDS[name]):
            raise ValueError(f"{name} may not be logged as {type(value).__name__}")
    level = logging.INFO if error is None else logging.ERROR
    LOGGER.log(level, event, exc_info=error, extra={"fields": {"event": event, **fields}})


def known_method(method: str) -> str:
    """The method, "other" for one that a visitor invented."""
    return method if method in _METHODS else "other"
