"""The event log in the database: events are appended in transactions, read back, audited and exported.

Each submit is one transaction that locks the study's row, takes the next sequence and seals the event to the one before
(`audit_log.py`); when `append` has returned, the answer is on disk. Submits are idempotent, so whoever is unsure may
send again. Threads that wait at the same moment share a transaction, since the disk is waited for once in each.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from skinclip.study.catalogue.catalogue import error_text
from skinclip.study.errors import (
    AlreadyAnsweredError,
    RequestIdReusedError,
    StoreError,
    StudyClosedError,
    StudyRequestError,
    TamperedError,
    UnknownReaderError,
)
from skinclip.study.store import rows, schema
from skinclip.study.store.audit_log import WITHDRAWN, Audit, Event, Head, Problem, audit, canonical, follow, is_genuine
from skinclip.study.store.codes import SALT_BYTES
from skinclip.study.store.consistency import Columns, contradictions, suspicious_times
from skinclip.study.store.database import LOCKED, PATIENCE, Database, is_transient
from skinclip.study.store.records import (
    AFTER_CLOSING,
    ANSWERING,
    CLOSED,
    CODE_RENEWED,
    CODES_SEALED,
    CREATED,
    ENROLLED,
    RESTORED,
    SIGNED_IN,
    SIGNED_OUT,
    SITE_COORDINATOR,
)
from skinclip.study.store.rows import EVENT_COLUMNS, Tail, answered, by_request, event_of, known_study
from skinclip.study.store.study_key import StudyKey

MEASURED = "measured"  # payload entry (times, window size) that may differ between two sends of the same answer
_OWN_KINDS = frozenset(
    {
        CREATED,
        ENROLLED,
        CODE_RENEWED,
        CODES_SEALED,
        CLOSED,
        WITHDRAWN,
        SIGNED_IN,
        SIGNED_OUT,
        RESTORED,
        SITE_COORDINATOR,
    }
)
_LONGEST_NAME = 200

Entry = tuple[str, str, Mapping[str, Any], str]  # kind, step, payload and request id of an event to be stored


class EventLog:
    """The events of all studies in a database, sealed with `key` and dated by `clock`."""

    def __init__(self, database: Database, key: StudyKey, clock: Callable[[], datetime]) -> None:
        self._database, self._key, self._clock = database, key, clock
        self._waiting: deque[_Job] = deque()
        self._reached: dict[str, int] = {}  # study -> the sequence that this process has seen: no log grows shorter

    def create(self, study: str, payload: Mapping[str, Any]) -> Event:
        """Begins a study's log with an event `created`. A study that is there already keeps its own."""
        draft = self.draft(study, None, CREATED, CREATED, payload, CREATED)

        def work(connection: Connection) -> Event:
            if (stored := by_request(connection, study, CREATED, self._key)) is not None:
                return stored
            head = Head()
            connection.execute(schema.studies.insert().values(study=study, sequence=head.sequence, digest=head.digest))
            return self.append_within(connection, [draft])[0]

        return self._database.write(work)

    def append(
        self, study: str, reader: str | None, kind: str, step: str, payload: Mapping[str, Any], request_id: str
    ) -> Event:
        """Stores one event and returns it; once this has returned, the event survives a crash.

        A request id that was used before, or an answer to a step that has one, returns the stored event where both say
        the same (`MEASURED` apart). `reader` is None for an event of the study itself.

        Raises AlreadyAnsweredError where the step has a different answer, StudyClosedError, WithdrawnError,
        UnknownReaderError, UnknownStudyError, RequestIdReusedError or PayloadError where the event cannot be taken, and
        StoreError where the database fails. Nothing is stored then.
        """
        return self.append_all(study, reader, [(kind, step, payload, request_id)])[0]

    def append_all(self, study: str, reader: str | None, entries: Iterable[Entry]) -> list[Event]:
        """Stores several events of one reader, all or none: see `append`."""
        drafts = [self.draft(study, reader, *entry) for entry in entries]
        own = [draft.kind for draft in drafts if draft.kind in _OWN_KINDS]
        if own:
            raise ValueError(f"events of the kind {own[0]!r} are made by the store alone; call the method for it")
        job = _Job(drafts, time.monotonic() + PATIENCE)
        self._waiting.append(job)
        if not self._database.turn.acquire(timeout=PATIENCE):
            self._give_up(job)
            return job.result()
        try:
            if not job.done.is_set():
                self._store_waiting()
        finally:
            self._database.turn.release()
        return job.result()

    def _give_up(self, job: _Job) -> None:
        """Takes back what nobody has begun to store; what is being stored is waited for."""
        try:
            self._waiting.remove(job)
        except ValueError:
            if not job.done.wait(PATIENCE):
                job.end(StoreError("the database does not answer. Send again: what was stored is not stored twice."))
        else:
            job.end(StoreError(LOCKED))

    def events(self, study: str, reader: str | None = None, kinds: Collection[str] | None = None) -> list[Event]:
        """The events of a study in order, of one reader or of some kinds where given; payload None where erased."""
        query = EVENT_COLUMNS.where(schema.events.c.study == study).order_by(schema.events.c.sequence)
        if reader is not None:
            query = query.where(schema.events.c.reader == reader)
        if kinds is not None:
            query = query.where(schema.events.c.kind.in_(kinds))

        def work(connection: Connection) -> list[Event]:
            known_study(connection, study)
            return [event_of(row, self._key) for row in connection.execute(query)]

        return self._database.read(work)

    def genuine_events(self, study: str, reader: str | None, kinds: Collection[str]) -> list[Event]:
        """As `events`, for what decisions rest on. Raises TamperedError where one is not as it was stored."""
        events = self.events(study, reader, kinds)
        for event in events:
            if not is_genuine(event, self._key.raw):
                raise TamperedError(f"event {event.sequence} of the log")
        return events

    def head(self, study: str) -> Head:
        """The last event's sequence and digest, as recorded when it was stored."""
        row = self._database.read(lambda connection: known_study(connection, study))
        return Head(row.sequence, row.digest)

    def unlike(self, study: str, head: Head) -> int | None:
        """The number of events that a log has which does not hold the event of `head`; None where it does."""
        query = sa.select(schema.events.c.digest).where(
            schema.events.c.study == study, schema.events.c.sequence == head.sequence
        )
        if self._database.read(lambda connection: connection.scalar(query)) == head.digest:
            return None
        return min(self.head(study).sequence, head.sequence - 1)

    def studies(self) -> list[str]:
        """The names of all studies in the database."""
        query = sa.select(schema.studies.c.study).order_by(schema.studies.c.study)
        return self._database.read(lambda connection: list(connection.scalars(query)))

    def audit(self, study: str, receipts: Iterable[str] = ()) -> Audit:
        """Checks the whole log of a study against the key, its recorded head, readers' receipts, and what the database
        says beside the log.

        Raises ReceiptError where a receipt was copied wrongly.
        """
        query = EVENT_COLUMNS.where(schema.events.c.study == study).order_by(schema.events.c.sequence)

        def work(connection: Connection) -> tuple[Head, list[Event], Columns]:
            row = known_study(connection, study)
            events = [event_of(entry, self._key) for entry in connection.execute(query)]
            return Head(row.sequence, row.digest), events, rows.columns_beside(connection, row)

        head, events, columns = self._database.read(work)
        result = audit(study, events, self._key.raw, head=head, receipts=receipts)
        if any(problem.kind == "wrong_key" for problem in result.problems):
            return result
        reported = {problem.sequence for problem in result.problems} - {None}
        found = contradictions(study, events, columns, self._key)
        further = [problem for problem in found if problem.sequence not in reported]
        return replace(result, problems=(*result.problems, *further), warnings=tuple(suspicious_times(events)))

    def verify(self, study: str, receipts: Iterable[str] = ()) -> list[Problem]:
        """The problems that `audit` finds; none where the log is whole."""
        return list(self.audit(study, receipts).problems)

    def export_log(self, study: str, path: Path) -> Head:
        """Writes all events with digests and salts as JSON lines, which `audit_log.read_log` and the key can verify.

        The file holds answers that a later withdrawal cannot erase: treat it as the database itself.
        """
        events = self.events(study)
        with open(path, "w", encoding="ascii", newline="\n") as file:
            file.writelines(event.to_line() + "\n" for event in events)
        return Head(events[-1].sequence, events[-1].digest)

    def close_study(self, study: str) -> Event:
        """Closes a study to further answers, by an event; a second call returns the first one's."""
        draft = self.draft(study, None, CLOSED, CLOSED, {}, CLOSED)

        def work(connection: Connection) -> Event:
            event = self.append_within(connection, [draft])[0]
            connection.execute(
                schema.studies.update().where(schema.studies.c.study == study).values(closed_at=event.at)
            )
            return event

        return self._database.write(work)

    def note_restored(self, study: str, payload: Mapping[str, Any]) -> Event:
        """Puts on record that the database was replaced by a backup."""
        draft = self.draft(study, None, RESTORED, RESTORED, payload, f"{RESTORED}-{secrets.token_hex(8)}")
        return self._database.write(lambda connection: self.append_within(connection, [draft])[0])

    def is_closed(self, study: str) -> bool:
        """True where a sealed event says so. Raises TamperedError where the database says otherwise beside it."""
        row = self._database.read(lambda connection: known_study(connection, study))
        return rows.closed_at(row, self._key) is not None

    # -- one event ---------------------------------------------------------------------------------------------------

    def draft(
        self, study: str, reader: str | None, kind: str, step: str, payload: Mapping[str, Any], request_id: str
    ) -> Event:
        """An event that is not placed yet, its fields checked. Raises StudyRequestError."""
        for name, text in {"study": study, "kind": kind, "step": step, "request id": request_id}.items():
            if not text.isprintable() or not 0 < len(text) <= _LONGEST_NAME:
                raise StudyRequestError(
                    f"the {name} must have 1 to {_LONGEST_NAME} printable characters, not {text[:80]!r}"
                )
        if kind in ANSWERING and reader is None:
            raise UnknownReaderError(f"an event of the kind {kind} needs a reader")
        body = canonical(dict(payload))
        return Event(study, 0, reader, kind, step, request_id, "", "", "", "", body, secrets.token_bytes(SALT_BYTES))

    def _store_waiting(self) -> None:
        """Stores what all threads wait for in one transaction: the disk is waited for once, however many they are."""
        jobs = [self._waiting.popleft() for _ in range(len(self._waiting))]
        failed = self._store_all(jobs)
        if failed is not None and not is_transient(failed) and len(jobs) > 1:  # one of them is to blame
            for job in jobs:
                self._store_all([job])

    def _store_all(self, jobs: Sequence[_Job]) -> SQLAlchemyError | None:
        """Stores `jobs` in one transaction; returns the error of the database where that failed."""

        def work(connection: Connection) -> None:
            tails: dict[str, Tail] = {}
            for job in jobs:
                job.store(lambda drafts: self._follow(connection, drafts, tails))
            rows.insert(connection, tails, self._key)

        try:
            self._database.write_in_turn(work, min(job.deadline for job in jobs))
        except StoreError as error:
            for job in jobs:
                job.end(StoreError(str(error)))
            return error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else None
        except BaseException as error:
            for job in jobs:
                job.end(error)
            raise
        for job in jobs:
            job.end()
        return None

    def append_within(self, connection: Connection, drafts: Sequence[Event]) -> list[Event]:
        """Stores `drafts`, all of one reader, as the next events of their study; returns of each the stored event."""
        tails: dict[str, Tail] = {}
        events = self._follow(connection, drafts, tails)
        rows.insert(connection, tails, self._key)
        return events

    def _follow(self, connection: Connection, drafts: Sequence[Event], tails: dict[str, Tail]) -> list[Event]:
        """As `_append`, but what is new only joins the study's tail, for `_insert`: statements are few and go together,
        since this is what readers wait for. Where a draft is refused, none of them has joined.
        """
        study, reader = drafts[0].study, drafts[0].reader
        if study not in tails:
            row = known_study(connection, study, lock=True)
            self._check_length(study, row.sequence)
            tails[study] = Tail(Head(row.sequence, row.digest), rows.closed_at(row, self._key) is not None)
        tail = tails[study]
        rows.may_still_send(connection, study, reader)
        known, head = [*rows.candidates(connection, drafts, self._key), *tail.fresh], tail.head
        fresh: list[Event] = []
        events: list[Event] = []
        for draft in drafts:
            event = _repeated([*known, *fresh], draft)
            if event is None:
                if tail.closed and draft.kind in ANSWERING - AFTER_CLOSING:
                    raise StudyClosedError(error_text("too_late"))
                event = follow(head, replace(draft, at=self._now()), self._key.raw)
                head = Head(event.sequence, event.digest)
                fresh.append(event)
            events.append(event)
        tail.head, tail.fresh = head, [*tail.fresh, *fresh]
        return events

    def _check_length(self, study: str, sequence: int) -> None:
        """Raises TamperedError where the log is shorter than this process has seen it."""
        if sequence < self._reached.get(study, 0):
            raise TamperedError(f"the end of the log, which held event {self._reached[study]} before,")

    def note_heads(self, heads: Mapping[str, Head]) -> None:
        """Remembers how far each log is on disk."""
        for study, head in heads.items():
            self._reached[study] = max(head.sequence, self._reached.get(study, 0))

    def _now(self) -> str:
        return iso(self._clock())


class _Job:
    """Events that a thread wants stored together, and what became of them."""

    def __init__(self, drafts: Sequence[Event], deadline: float) -> None:
        self.drafts = drafts
        self.deadline = deadline  # by the monotonic clock; until then it is stored or said why not
        self.done = threading.Event()
        self._events: list[Event] = []
        self._error: BaseException | None = None

    def store(self, append: Callable[[Sequence[Event]], list[Event]]) -> None:
        """Appends within a transaction. What the log refuses fails this job alone: nothing was written of it yet."""
        self._events, self._error = [], None
        try:
            self._events = append(self.drafts)
        except SQLAlchemyError:
            raise
        except Exception as error:
            self._error = error

    def end(self, error: BaseException | None = None) -> None:
        """The transaction was committed, or failed by `error`."""
        self._error = error or self._error
        self.done.set()

    def result(self) -> list[Event]:
        """The stored events. Raises what storing them raised."""
        if self._error is not None:
            raise self._error
        return self._events


# -- repeats ----------------------------------------------------------------------------------------------------------


def _repeated(known: Sequence[Event], draft: Event) -> Event | None:
    """The event among `known` that `draft` sends again.

    Raises AlreadyAnsweredError where it says something else, RequestIdReusedError where it is of another step.
    """
    step = answered(draft)
    same_request = [event for event in known if event.request_id == draft.request_id]
    same_step = [e for e in known if step is not None and (e.reader, answered(e)) == (draft.reader, step)]
    if not same_request and not same_step:
        return None
    stored = (same_request or same_step)[0]
    other_step = (stored.reader, stored.step) != (draft.reader, draft.step)
    if same_request and (other_step or stored.kind != draft.kind):
        raise RequestIdReusedError(error_text("request_reused"))
    if stored.kind != draft.kind or _answer(stored) != _answer(draft):
        raise AlreadyAnsweredError(stored.sequence)
    return stored


def _answer(event: Event) -> str:
    """The payload without what is measured about it."""
    payload = event.payload or {}
    return canonical({name: value for name, value in payload.items() if name != MEASURED})


def iso(at: datetime) -> str:
    """UTC with milliseconds, of one length, so that texts sort as times do: `2026-11-24T09:30:00.125Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"
