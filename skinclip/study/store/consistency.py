"""Consistency of a database's columns with its event log: no column may contradict the events. Pure.

Some columns repeat events because the store must read them fast: whether a study is closed, who takes part, which step
an event answers, who is signed in. Whoever clears `closed_at` with SQL leaves a valid log; here it shows, and so does
what was stored while the study was open, and every code and sign-in that no event of the log gave out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from skinclip.study.errors import LogError
from skinclip.study.store.audit_log import WITHDRAWN, Event, Problem
from skinclip.study.store.records import (
    AFTER_CLOSING,
    ANSWERING,
    CLOSED,
    CODE,
    CODE_RENEWED,
    CODES_SEALED,
    ENROLLED,
    SIGNED_IN,
    SIGNED_OUT,
    SITE_COORDINATOR,
)
from skinclip.study.store.study_key import StudyKey

_CLOCK_SLACK = 0.5  # seconds that the server's clock may be set back without a word


@dataclass(frozen=True)
class ReaderRow:
    """A reader as the table of readers has it."""

    reader: str
    number: int
    withdrawn_at: str | None


@dataclass(frozen=True)
class CodeRow:
    """A code as the table of codes has it: whose it is, and the seal that binds it to its owner."""

    reader: str | None
    seal: str | None
    fields: tuple[str | None, ...]

    @classmethod
    def of(cls, row: Any) -> Self:
        """From a row of the table; `fields` is what the seal covers."""
        tag = None if row.tag is None else row.tag.hex()
        return cls(row.reader, row.seal, (row.handle, row.study, row.reader, row.salt.hex(), row.hash.hex(), tag))


@dataclass(frozen=True)
class SessionRow:
    """A sign-in as the table of sessions has it; `mac` names it without telling its token."""

    mac: str
    reader: str | None
    seal: str
    fields: tuple[str | None, ...]

    @classmethod
    def of(cls, row: Any) -> Self:
        """From a row of the table; `fields` is what the seal covers."""
        return cls(row.token_mac, row.reader, row.seal, (row.token_mac, row.study, row.reader, row.expires_at))


@dataclass(frozen=True)
class Columns:
    """Columns of one study outside the sealed events.

    Attributes:
        closed_at: when the study was closed, None while it is open.
        readers: the table of readers.
        answers: sequence of an event -> the step that it is marked to answer, None for none.
        codes, sessions: the tables of codes and of sign-ins; None as reader stands for the coordinator.
    """

    closed_at: str | None
    readers: tuple[ReaderRow, ...]
    answers: Mapping[int, str | None]
    codes: tuple[CodeRow, ...]
    sessions: tuple[SessionRow, ...]


def contradictions(study: str, events: Sequence[Event], columns: Columns, key: StudyKey) -> list[Problem]:
    """Every place where the columns, or the order of the events themselves, contradict the log."""
    return [
        *_closing(events, columns.closed_at),
        *_readers(events, columns.readers),
        *_access(events, columns),
        *_codes(events, columns, key),
        *_sign_ins(events, columns, key),
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
    number = _payload(enrolled).get("number")
    return number if isinstance(number, int) else None


def _access(events: Sequence[Event], columns: Columns) -> Iterator[Problem]:
    enrolled = {event.reader for event in events if event.kind in (ENROLLED, SITE_COORDINATOR)}
    withdrawn = {event.reader for event in events if event.kind == WITHDRAWN}
    for what, rows in (("a code", columns.codes), ("a sign-in", columns.sessions)):
        for reader in dict.fromkeys(row.reader for row in rows if row.reader is not None):
            if reader in withdrawn:
                yield Problem("access", None, f"{reader} has withdrawn and still has {what}")
            elif reader not in enrolled:
                yield Problem("access", None, f"{reader} has {what}, and no event enrolled this reader")


def _codes(events: Sequence[Event], columns: Columns, key: StudyKey) -> Iterator[Problem]:
    """Codes that the key did not seal, or that are not the last that the log gave to their owner."""
    given: dict[str | None, str | None] = {}
    earlier: set[str] = set()
    for event in events:
        if event.kind in (ENROLLED, SITE_COORDINATOR, CODE_RENEWED):
            given[event.reader] = _payload(event).get(CODE)
        elif event.kind == CODES_SEALED:
            earlier.update(_payload(event).get("codes", ()))
    for row in columns.codes:
        if row.reader is not None and row.reader not in given:
            continue  # a stranger's, which is told elsewhere
        if not key.fits(row.seal, "code", *row.fields):
            yield Problem("access", None, f"the code of {_owner(row.reader)} was changed, or put in without the key")
        elif row.seal != given.get(row.reader) and not (given.get(row.reader) is None and row.seal in earlier):
            yield Problem("access", None, f"the code of {_owner(row.reader)} is not the last that the log gave out")


def _sign_ins(events: Sequence[Event], columns: Columns, key: StudyKey) -> Iterator[Problem]:
    """Sign-ins that no event of the log began, or that one has ended."""
    began: dict[str, tuple[str | None, int]] = {}
    ended: dict[str | None, int] = {}
    signed_out: set[str] = set()
    for event in events:
        name = event.request_id.partition(":")[2]
        if event.kind == SIGNED_IN:
            began[name] = (event.reader, event.sequence)
        elif event.kind == SIGNED_OUT:
            signed_out.add(name)
        elif event.kind in (CODE_RENEWED, WITHDRAWN):
            ended[event.reader] = event.sequence
    for row in columns.sessions:
        whose = f"a sign-in of {_owner(row.reader)}"
        reader, sequence = began.get(row.mac, (None, 0))
        if not key.fits(row.seal, "sign-in", *row.fields) or not sequence or reader != row.reader:
            yield Problem("access", None, f"{whose} was put in without the key: no event of the log began it")
        elif row.mac in signed_out or sequence < ended.get(reader, 0):
            yield Problem("access", sequence, f"{whose} had ended and was put back")


def _owner(reader: str | None) -> str:
    return "the coordinator" if reader is None else reader


def _payload(event: Event) -> Mapping[str, Any]:
    """The payload; empty where it is erased or damaged, which the check of payloads tells."""
    try:
        return event.payload or {}
    except LogError:
        return {}


def suspicious_times(events: Sequence[Event]) -> Iterator[Problem]:
    """Events that are dated before the one they follow: the server's clock was set back, and times near it mislead."""
    latest: Event | None = None
    for event in events:
        try:
            back = 0.0 if latest is None else (_moment(latest) - _moment(event)).total_seconds()
        except ValueError:
            continue  # no time at all: the seal tells
        if back > _CLOCK_SLACK and latest is not None:
            text = (
                f"event {event.sequence} is dated {back:.1f} s before event {latest.sequence}: the server's clock was "
                "set back; times measured across it are left out of the tables"
            )
            yield Problem("clock", event.sequence, text)
        if latest is None or back < 0 or back > _CLOCK_SLACK:
            latest = event


def _moment(event: Event) -> datetime:
    return datetime.fromisoformat(event.at)


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
        if event.kind in (ENROLLED, SITE_COORDINATOR):
            enrolled.add(event.reader)
        elif event.reader not in enrolled:
            yield Problem("reader", event.sequence, f"{name} is of a reader whom no event had enrolled")
        if event.kind == CLOSED and closed is None:
            closed = event.sequence
        elif event.kind == WITHDRAWN:
            withdrawn.add(event.reader)
