"""The event log in the database: events are appended in transactions, read back, audited and exported.

Each submit is one transaction that locks the study's row, takes the next sequence and seals the event to the one before
(`audit_log.py`); when `append` has returned, the answer is on disk. Submits are idempotent, so whoever is unsure may
send again. Threads that wait at the same moment share a transaction, since the disk is waited for once in each.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import SQLAlchemyError

from skinclip.study.errors import (
    AlreadyAnsweredError,
    RequestIdReusedError,
    StoreError,
    StudyClosedError,
    UnknownReaderError,
    UnknownStudyError,
    WithdrawnError,
)
from skinclip.study.store import schema
from skinclip.study.store.audit_log import WITHDRAWN, Audit, Event, Head, Problem, audit, canonical, follow
from skinclip.study.store.codes import SALT_BYTES
from skinclip.study.store.consistency import Columns, ReaderRow, contradictions
from skinclip.study.store.database import Database, is_transient
from skinclip.study.store.records import AFTER_CLOSING, ANSWERING, CLOSED, CODE_RENEWED, CREATED, ENROLLED

MEASURED = "measured"  # payload entry (times, window size) that may differ between two sends of the same answer
_OWN_KINDS = frozenset({CREATED, ENROLLED, CODE_RENEWED, CLOSED, WITHDRAWN})
_LONGEST_NAME = 200

Entry = tuple[str, str, Mapping[str, Any], str]  # kind, step, payload and request id of an event to be stored

# Statements of every submit, built once: building them anew would cost as much as running them.
EVENT_COLUMNS = sa.select(schema.events, schema.payloads.c.salt, schema.payloads.c.body).select_from(
    schema.events.outerjoin(schema.payloads, schema.payloads.c.event == schema.events.c.id)
)
_OF_STUDY = schema.events.c.study == sa.bindparam("study")
_FIND_STUDY = sa.select(schema.studies).where(schema.studies.c.study == sa.bindparam("study"))
_LOCK_STUDY = _FIND_STUDY.with_for_update()
_FIND_READER = sa.select(schema.readers).where(
    schema.readers.c.study == sa.bindparam("study"), schema.readers.c.reader == sa.bindparam("reader")
)
FIND_SINCE = EVENT_COLUMNS.where(
    _OF_STUDY,
    schema.events.c.reader == sa.bindparam("reader"),
    schema.events.c.sequence > sa.bindparam("since"),
    schema.events.c.kind.in_(sa.bindparam("kinds", expanding=True)),
).order_by(schema.events.c.sequence)
# Each side names the study, so that each is looked up in its own index.
_FIND_REPEATED = EVENT_COLUMNS.where(
    sa.or_(
        sa.and_(_OF_STUDY, schema.events.c.request_id.in_(sa.bindparam("requests", expanding=True))),
        sa.and_(
            _OF_STUDY,
            schema.events.c.reader == sa.bindparam("reader"),
            schema.events.c.answers.in_(sa.bindparam("steps", expanding=True)),
        ),
    )
)
_INSERT_EVENT = schema.events.insert()
_INSERT_PAYLOAD = schema.payloads.insert().from_select(
    ["event", "salt", "body"],
    sa.select(
        schema.events.c.id, sa.bindparam("salt", type_=sa.LargeBinary), sa.bindparam("body", type_=sa.Text)
    ).where(_OF_STUDY, schema.events.c.sequence == sa.bindparam("place")),
)
_MOVE_HEAD = (
    schema.studies.update()
    .where(schema.studies.c.study == sa.bindparam("of_study"))
    .values(sequence=sa.bindparam("place"), digest=sa.bindparam("seal"))
)


class EventLog:
    """The events of all studies in a database, sealed with `key` and dated by `clock`."""

    def __init__(self, database: Database, key: bytes, clock: Callable[[], datetime]) -> None:
        self._database, self._key, self._clock = database, key, clock
        self._waiting: deque[_Job] = deque()

    def create(self, study: str, payload: Mapping[str, Any]) -> Event:
        """Begins a study's log with an event `created`. A study that is there already keeps its own."""
        draft = self.draft(study, None, CREATED, CREATED, payload, CREATED)

        def work(connection: Connection) -> Event:
            if (stored := by_request(connection, study, CREATED)) is not None:
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
        job = _Job(drafts)
        self._waiting.append(job)
        with self._database.turn:
            if not job.done:
                self._store_waiting()
        return job.result()

    def events(self, study: str, reader: str | None = None, kinds: Collection[str] | None = None) -> list[Event]:
        """The events of a study in order, of one reader or of some kinds where given; payload None where erased."""
        query = EVENT_COLUMNS.where(schema.events.c.study == study).order_by(schema.events.c.sequence)
        if reader is not None:
            query = query.where(schema.events.c.reader == reader)
        if kinds is not None:
            query = query.where(schema.events.c.kind.in_(kinds))

        def work(connection: Connection) -> list[Event]:
            known_study(connection, study)
            return [event_of(row) for row in connection.execute(query)]

        return self._database.read(work)

    def head(self, study: str) -> Head:
        """The last event's sequence and digest, as recorded when it was stored."""
        row = self._database.read(lambda connection: known_study(connection, study))
        return Head(row.sequence, row.digest)

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
            events = [event_of(entry) for entry in connection.execute(query)]
            return Head(row.sequence, row.digest), events, _columns_beside(connection, row)

        head, events, columns = self._database.read(work)
        result = audit(study, events, self._key, head=head, receipts=receipts)
        reported = {problem.sequence for problem in result.problems} - {None}
        further = [problem for problem in contradictions(events, columns) if problem.sequence not in reported]
        return replace(result, problems=(*result.problems, *further))

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

    def is_closed(self, study: str) -> bool:
        return self._database.read(lambda connection: known_study(connection, study)).closed_at is not None

    # -- one event ---------------------------------------------------------------------------------------------------

    def draft(
        self, study: str, reader: str | None, kind: str, step: str, payload: Mapping[str, Any], request_id: str
    ) -> Event:
        """An event that is not placed yet, its fields checked. Raises ValueError."""
        for name, text in {"study": study, "kind": kind, "step": step, "request id": request_id}.items():
            if not text.isprintable() or not 0 < len(text) <= _LONGEST_NAME:
                raise ValueError(f"the {name} must have 1 to {_LONGEST_NAME} printable characters, not {text[:80]!r}")
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
            tails: dict[str, _Tail] = {}
            for job in jobs:
                job.store(lambda drafts: self._follow(connection, drafts, tails))
            _insert(connection, tails)

        try:
            self._database.write_in_turn(work)
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
        tails: dict[str, _Tail] = {}
        events = self._follow(connection, drafts, tails)
        _insert(connection, tails)
        return events

    def _follow(self, connection: Connection, drafts: Sequence[Event], tails: dict[str, _Tail]) -> list[Event]:
        """As `_append`, but what is new only joins the study's tail, for `_insert`: statements are few and go together,
        since this is what readers wait for. Where a draft is refused, none of them has joined.
        """
        study, reader = drafts[0].study, drafts[0].reader
        if study not in tails:
            row = known_study(connection, study, lock=True)
            tails[study] = _Tail(Head(row.sequence, row.digest), row.closed_at is not None)
        tail = tails[study]
        _may_still_send(connection, study, reader)
        known, head = [*_candidates(connection, drafts), *tail.fresh], tail.head
        fresh: list[Event] = []
        events: list[Event] = []
        for draft in drafts:
            event = _repeated([*known, *fresh], draft)
            if event is None:
                if tail.closed and draft.kind in ANSWERING - AFTER_CLOSING:
                    raise StudyClosedError("the study is closed; this answer came too late and was not stored")
                event = follow(head, replace(draft, at=self._now()), self._key)
                head = Head(event.sequence, event.digest)
                fresh.append(event)
            events.append(event)
        tail.head, tail.fresh = head, [*tail.fresh, *fresh]
        return events

    def _now(self) -> str:
        return iso(self._clock())


@dataclass
class _Tail:
    """The end of a study's log within a transaction that holds its row, and the events that are to be written."""

    head: Head
    closed: bool
    fresh: list[Event] = field(default_factory=list)


class _Job:
    """Events that a thread wants stored together, and what became of them."""

    def __init__(self, drafts: Sequence[Event]) -> None:
        self.drafts = drafts
        self.done = False
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
        self._error, self.done = error or self._error, True

    def result(self) -> list[Event]:
        """The stored events. Raises what storing them raised."""
        if self._error is not None:
            raise self._error
        return self._events


# -- rows -------------------------------------------------------------------------------------------------------------


def event_of(row: Row[Any]) -> Event:
    fields = (row.study, row.sequence, row.reader, row.kind, row.step, row.request_id, row.at_server)
    return Event(*fields, row.payload_sha, row.previous, row.digest, row.body, row.salt)


def _columns(event: Event) -> dict[str, Any]:
    """An event's fields but for its payload."""
    names = ("study", "sequence", "reader", "kind", "step", "request_id", "at", "payload_sha", "previous", "digest")
    return {name: getattr(event, name) for name in names}


def _columns_beside(connection: Connection, study: Row[Any]) -> Columns:
    """What the database says of a study beside the sealed events."""
    of = {
        table: table.c.study == study.study for table in (schema.events, schema.readers, schema.codes, schema.sessions)
    }
    readers = connection.execute(sa.select(schema.readers).where(of[schema.readers]).order_by(schema.readers.c.number))
    answers = connection.execute(sa.select(schema.events.c.sequence, schema.events.c.answers).where(of[schema.events]))
    return Columns(
        closed_at=study.closed_at,
        readers=tuple(ReaderRow(row.reader, row.number, row.withdrawn_at) for row in readers),
        answers={row.sequence: row.answers for row in answers},
        codes=tuple(connection.scalars(sa.select(schema.codes.c.reader).where(of[schema.codes]))),
        sessions=tuple(connection.scalars(sa.select(schema.sessions.c.reader).where(of[schema.sessions]))),
    )


def _study_row(connection: Connection, study: str, *, lock: bool = False) -> Row[Any] | None:
    """The study's row. `lock` holds it to the end of the transaction: who has it takes the next sequence."""
    return connection.execute(_LOCK_STUDY if lock else _FIND_STUDY, {"study": study}).one_or_none()


def known_study(connection: Connection, study: str, *, lock: bool = False) -> Row[Any]:
    row = _study_row(connection, study, lock=lock)
    if row is None:
        raise UnknownStudyError(f"there is no study {study!r} in this database; build it first")
    return row


def known_reader(connection: Connection, study: str, reader: str) -> Row[Any]:
    row = connection.execute(_FIND_READER, {"study": study, "reader": reader}).one_or_none()
    if row is None:
        raise UnknownReaderError(f"the study {study} has no reader {reader!r}; enrol the reader first")
    return row


def _may_still_send(connection: Connection, study: str, reader: str | None) -> None:
    """Raises unless the reader, if there is one, is enrolled and has not withdrawn."""
    if reader is not None and known_reader(connection, study, reader).withdrawn_at is not None:
        raise WithdrawnError("you have withdrawn from this study; nothing is stored any more")


def by_request(connection: Connection, study: str, request_id: str) -> Event | None:
    query = EVENT_COLUMNS.where(schema.events.c.study == study, schema.events.c.request_id == request_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else event_of(row)


def _candidates(connection: Connection, drafts: Sequence[Event]) -> list[Event]:
    """The stored events that share a request id, or an answered step, with one of `drafts`."""
    steps = [step for draft in drafts if (step := _answered(draft)) is not None]
    wanted = {"study": drafts[0].study, "reader": drafts[0].reader, "steps": steps}
    rows = connection.execute(_FIND_REPEATED, {**wanted, "requests": [draft.request_id for draft in drafts]})
    return [event_of(row) for row in rows]


def _repeated(known: Sequence[Event], draft: Event) -> Event | None:
    """The event among `known` that `draft` sends again.

    Raises AlreadyAnsweredError where it says something else, RequestIdReusedError where it is of another step.
    """
    step = _answered(draft)
    same_request = [event for event in known if event.request_id == draft.request_id]
    same_step = [e for e in known if step is not None and (e.reader, _answered(e)) == (draft.reader, step)]
    if not same_request and not same_step:
        return None
    stored = (same_request or same_step)[0]
    other_step = (stored.reader, stored.step) != (draft.reader, draft.step)
    if same_request and (other_step or stored.kind != draft.kind):
        raise RequestIdReusedError("this request id was used for another step; reload the page and send again")
    if stored.kind != draft.kind or _answer(stored) != _answer(draft):
        raise AlreadyAnsweredError(stored.sequence)
    return stored


def _insert(connection: Connection, tails: Mapping[str, _Tail]) -> None:
    """Writes the new events of each study with their payloads, and move its head to the last."""
    for study, tail in tails.items():
        if not tail.fresh:
            continue
        rows = [{**_columns(event), "at_server": event.at, "answers": _answered(event)} for event in tail.fresh]
        connection.execute(_INSERT_EVENT, [{k: v for k, v in row.items() if k != "at"} for row in rows])
        bodies = [{"study": study, "place": e.sequence, "salt": e.salt, "body": e.body} for e in tail.fresh]
        connection.execute(_INSERT_PAYLOAD, bodies)
        moved = {"of_study": study, "place": tail.head.sequence, "seal": tail.head.digest}
        connection.execute(_MOVE_HEAD, moved)


def _answered(event: Event) -> str | None:
    """The step that the event answers, None where it answers none."""
    return event.step if event.kind in ANSWERING else None


def _answer(event: Event) -> str:
    """The payload without what is measured about it."""
    payload = event.payload or {}
    return canonical({name: value for name, value in payload.items() if name != MEASURED})


def iso(at: datetime) -> str:
    """UTC with milliseconds, of one length, so that texts sort as times do: `2026-11-24T09:30:00.125Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"
