"""Anchors of a study's log outside its database: how far the log had come, one line after each transaction.

A database that is deleted and made anew, rolled back, or copied without its write-ahead log is whole in itself; it only
ends too early. The anchors know better. Each line carries a mark made with the key, so that the file cannot be edited
to fit, and a line copied elsewhere (a receipt, a time stamp, a file that the coordinator keeps) proves the same when
the study's folder is gone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from skinclip.study.store.audit_log import Event, Head, Problem
from skinclip.study.store.event_log import iso
from skinclip.study.store.records import RESTORED
from skinclip.study.store.study_key import StudyKey

BEGUN = "begun"
_FIELDS = ("study", "sequence", "digest", "at", "note")


@dataclass(frozen=True)
class Anchor:
    """The head of a study's log at a moment; `note` says why it was written, where not after a transaction."""

    study: str
    sequence: int
    digest: str
    at: str
    note: str = ""

    @property
    def fields(self) -> tuple[str | int, ...]:
        """All that its mark covers."""
        return tuple(getattr(self, name) for name in _FIELDS)


class AnchorFile:
    """The anchors of one study in a file, which only grows.

    Attributes:
        fault: Why the last anchor could not be written; empty while all is well. An answer is not refused for that.
    """

    def __init__(self, path: Path, study: str, key: StudyKey, clock: Callable[[], datetime]) -> None:
        self.path, self.study, self._key, self._clock = path, study, key, clock
        self.fault = ""

    def note(self, heads: Mapping[str, Head]) -> None:
        """Writes the study's head where a transaction has moved it."""
        if self.study in heads:
            self.append(heads[self.study])

    def append(self, head: Head, note: str = "") -> None:
        """Writes one anchor, whole or not at all."""
        anchor = Anchor(self.study, head.sequence, head.digest, iso(self._clock()), note)
        line = {name: getattr(anchor, name) for name in _FIELDS} | {"mark": self._key.mark("anchor", *anchor.fields)}
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, (json.dumps(line, separators=(",", ":")) + "\n").encode())
            finally:
                os.close(file)
            self.fault = ""
        except OSError as error:
            self.fault = (
                f"{self.path}: how far the log has come cannot be noted outside the database ({error.strerror})"
            )

    def read(self) -> tuple[list[Anchor], list[Problem]]:
        """The anchors in order, and the lines that the key did not mark. A last line cut short is no problem."""
        anchors, problems = [], []
        for number, line, last in _lines(self.path):
            anchor = _parsed(line, self._key)
            if anchor is not None and anchor.study == self.study:
                anchors.append(anchor)
            elif not last:
                text = f"line {number} of {self.path.name} was changed, or put in without the key"
                problems.append(Problem("anchor", None, text))
        return anchors, problems

    def last(self) -> Anchor | None:
        """The anchor that the log must reach at least: the furthest since the beginning or the last restored backup."""
        anchors = _since_restored(self.read()[0])
        return max(anchors, key=lambda anchor: anchor.sequence, default=None)

    def check(self, events: Sequence[Event]) -> tuple[list[Problem], list[Problem]]:
        """Problems and warnings of a log held against its anchors: an end that is missing, an event that is another."""
        anchors, problems = self.read()
        digests, end = {event.sequence: event.digest for event in events}, events[-1].sequence if events else 0
        current = _since_restored(anchors)
        furthest = max(current, key=lambda anchor: anchor.sequence, default=None)
        if furthest is not None and furthest.sequence > end:
            problems.append(Problem("cut_tail", end, missing(furthest, end)))
        changed = [a for a in current if a.sequence <= end and digests.get(a.sequence) != a.digest]
        for anchor in changed[:1]:
            text = f"event {anchor.sequence} is not the one that was anchored outside the database on {anchor.at}"
            problems.append(Problem("rewritten", anchor.sequence, f"{text}: the log was written anew from there on"))
        return problems, list(_lost(anchors))


def missing(anchor: Anchor, end: int) -> str:
    """The fault of a log that ends at event `end`, before `anchor`, in words."""
    found = f"ends with event {end}" if end else "does not hold this study at all"
    return (
        f"on {anchor.at} the log had {anchor.sequence} events, the database {found}: it was deleted or rolled back, "
        "or its file was copied without store.sqlite-wal, which holds what was stored last"
    )


def _lost(anchors: Sequence[Anchor]) -> Iterator[Problem]:
    """What restored backups did not hold."""
    reached = 0
    for anchor in anchors:
        if anchor.note == RESTORED and anchor.sequence - 1 < reached:
            text = f"events {anchor.sequence} to {reached} were lost when a backup was restored on {anchor.at}"
            yield Problem(RESTORED, anchor.sequence, text)
            reached = anchor.sequence
        reached = max(reached, anchor.sequence)


def _since_restored(anchors: Sequence[Anchor]) -> list[Anchor]:
    """The anchors that the log must fit: those of before a restored backup only as far as that backup goes."""
    kept: list[Anchor] = []
    for anchor in anchors:
        if anchor.note == RESTORED:
            kept = [one for one in kept if one.sequence < anchor.sequence]
        kept.append(anchor)
    return kept


def _lines(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Number and text of each line, and whether it is a last one without an end."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, line, number == len(lines)


def _parsed(line: str, key: StudyKey) -> Anchor | None:
    try:
        values: dict[str, Any] = json.loads(line)
        anchor = Anchor(**{name: values[name] for name in _FIELDS})
        return anchor if key.fits(values["mark"], "anchor", *anchor.fields) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
