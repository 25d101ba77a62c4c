"""Logs of faults without the words of those who asked: files, lines and kinds of error, not their messages.

The messages of errors repeat what was entered: an age, a body site, a remark, a path. What went wrong where is enough
to mend it.
"""

from __future__ import annotations

import logging
import sys
import traceback
from types import ModuleType

log = logging.getLogger("skinclip.ui")


def describe(fault: BaseException) -> str:
    """The kinds of an error and of its causes, and the places in the code that it passed through."""
    lines = []
    seen: list[BaseException] = []
    current: BaseException | None = fault
    while current is not None and current not in seen:
        seen.append(current)
        lines.append(type(current).__name__)
        for frame in traceback.extract_tb(current.__traceback__):
            lines.append(f"  {frame.filename}:{frame.lineno} in {frame.name}")
        current = current.__cause__ or current.__context__
    return "\n".join(lines)


class QuietTraceback:
    """Stands in for the `traceback` module where a library prints what it catches."""

    def __getattr__(self, name: str) -> object:
        return getattr(traceback, name)

    def print_exc(self, *_: object, **__: object) -> None:
        """Logs the error being handled without its message."""
        fault = sys.exc_info()[1]
        if fault is not None:
            log.error("a call failed: %s", describe(fault))


def silence_messages(*modules: ModuleType) -> None:
    """Makes these modules of a library log errors without their messages."""
    for module in modules:
        module.traceback = QuietTraceback()  # type: ignore[attr-defined]
