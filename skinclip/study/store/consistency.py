"""Consistency of a database's columns with its event log: no column may contradict the events. Pure.

Some columns repeat events because the store must read them fast: whether a study is closed, who takes part, which step
an event answers. Nothing seals them. Whoever clears `closed_at` with SQL reopens a study, and the log stays valid;
here it shows, and so does what was stored while it was open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from skinclip.study.errors import LogError
from skinclip.study.store.audit_log import WITHDRAWN, Event, Problem
from skinclip.study.store.records import AFTER_CLOSING, ANSWERING, CLOSED, ENROLLED


@dataclass(frozen=True)
class ReaderRow:
    """A reader as the table of readers has it."""

    reader: str
    number: int
    withdrawn_at: str | None


@dataclass(frozen=True)
class Columns:
    """Columns of one study outside the sealed events.

    Attributes:
        closed_at: when the study was closed, None while it is open.
        readers: the table of readers.
        answers: sequence of an event -> the step that it is marked to answer, None for none.
        codes, sessions: readers who have a code, or are signed in; None stands for the coordinator.
    """

    closed_at: str | None
    readers: tuple[ReaderRow, ...]
    answers: Mapping[int, str | None]
    codes: tuple[str | None, ...]
    sessions: tuple[str | None, ...]


def contradictions(events: Sequence[Event], columns: Columns) -> list[Problem]:
    """Every place where the columns, or the order of the events themselves, contradict the log."""
    return [
        *_closing(events, columns.closed_at),
        *_readers(events, columns.readers),
        *_access(events, columns),
        *_answers(events, columns.answers),
        *_order(events),
    ]


def _closing(events: Sequence[Event], closed_at: str | None) -> Iterator[Problem]:
    closed = next((event for event in events if event.kind == CLOSED), None)
    if closed is not None and closed_at is None:
        text = f"the study was closed on {closed.at}, and the database says that it is open: it was reopened"
        yield Problem("reopened", closed.sequence, f"{text} without an event")
    elif closed is None and closed_at is not None:
        yield Problem("closed", None, f"the database says that the study was closed on {closed_at}; no event says so")
    elif closed is not None and closed_at != closed.at:
        text = f"the study was closed on {closed.at}, and the database says on {closed_at}"
        yield Problem("closed", closed.sequence, text)


def _readers(events: Sequence[Event], rows: Iterable[ReaderRow]) -> Iterator[Problem]:
    enrolled = {event.reader: event for event in events if event.kind == ENROLLED}
    withdrawn = {event.reader: event for event in events if event.kind == WITHDRAWN}
    there = {row.reader: row for row in rows}
    for reader, event in enrolled.items():
        if reader not in there:
            text = f"{reader} was enrolled by event {event.sequence} and is gone from the table of readers"
            yield Problem("reader", event.sequence, text)
    for reader, row in there.items():
        if reader not in enrolled:
            yield Problem("reader", None, f"{reader} is in the table of readers, and no event enrolled this reader")
            continue
        number = _number(enrolled[reader])
        if number is not None and number != row.number:
            text = f"{reader} was enrolled as number {number}, and the table of readers says {row.number}"
            yield Problem("reader", enrolled[reader].sequence, text)
        left = withdrawn.get(reader)
        if (left.at if left else None) != row.withdrawn_at:
            in_table = f"withdrew on {row.withdrawn_at}" if row.withdrawn_at else "has not withdrawn"
            logged = f"event {left.sequence} says on {left.at}" if left else "no event says so"
            text = f"the table of readers says that {reader} {in_table}; {logged}"
            yield Problem("reader", left.sequence if left else None, text)


def _number(enrolled: Event) -> int | None:
    """The number in the payload; None where it is erased or damaged, which the check of payloads tells."""
    try:
        return (enrolled.payload or {}).get("number")
    except LogError:
        return None


def _access(events: Sequence[Event], columns: Columns) -> Iterator[Problem]:
    enrolled = {event.reader for event in events if event.kind == ENROLLED}
    withdrawn = {event.reader for event in events if event.kind == WITHDRAWN}
    for what, readers in (("a code", columns.codes), ("a sign-in", columns.sessions)):
        for reader in dict.fromkeys(one for one in readers if one is not None):
            if reader in withdrawn:
                yield Problem("access", None, f"{reader} has withdrawn and still has {what}")
            elif reader not in enrolled:
                yield Problem("access", None, f"{reader} has {what}, and no event enrolled this reader")


def _answers(events: Sequence[Event], marked: Mapping[int, str | None]) -> Iterator[Problem]:
    """Marks that do not fit their event (without its mark a step could be answered again), and second answers."""
    first: dict[tuple[str | None, str], int] = {}
    for event in events:
        step = event.step if event.kind in ANSWERING else None
        if event.sequence in marked and marked[event.sequence] != step:
            text = f"event {event.sequence} ({event.reader}, {event.step}) is not marked as the answer that it is"
            if step is None:
                text = f"event {event.sequence} ({event.kind}) is marked as an answer and is none"
            yield Problem("answers", event.sequence, text)
        if step is not None and first.setdefault((event.reader, step), event.sequence) != event.sequence:
            before = first[event.reader, step]
            text = f"event {event.sequence} answers {step} of {event.reader} again, after event {before}"
            yield Problem("answers", event.sequence, text)


def _order(events: Sequence[Event]) -> Iterator[Problem]:
    """Answers and enrolments that the study, or the reader, could not have given any more, or not yet."""
    closed: int | None = None
    enrolled: set[str | None] = {None}
    withdrawn: set[str | None] = set()
    for event in events:
        name = f"event {event.sequence} ({event.reader}, {event.kind}, {event.step})"
        if closed is not None and event.kind in (ANSWERING - AFTER_CLOSING) | {ENROLLED}:
            text = f"{name} was stored after the study was closed by event {closed}: it had been reopened"
            yield Problem("after_closing", event.sequence, text)
        if event.reader in withdrawn:
            yield Problem("after_withdrawal", event.sequence, f"{name} was stored after its reader had withdrawn")
        if event.kind == ENROLLED:
            enrolled.add(event.reader)
        elif event.reader not in enrolled:
            yield Problem("reader", event.sequence, f"{name} is of a reader whom no event had enrolled")
        if event.kind == CLOSED and closed is None:
            closed = event.sequence
        elif event.kind == WITHDRAWN:
            withdrawn.add(event.reader)
