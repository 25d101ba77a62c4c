"""The store of a study's answers: the only module that knows SQL.

One SQLite file (WAL, synchronous=FULL) or PostgreSQL, by URL. Each submit is one transaction that locks the study's
row, takes the next sequence and seals the event to the one before (`audit_log.py`); when `append` has returned, the
answer is on disk. Submits are idempotent, so whoever is unsure may send again. Payloads lie apart from events and are
erased when a reader withdraws. Nothing about the browser or the network of a reader is ever written.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import random
import secrets
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any, Self, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import URL, Connection, Engine, Row, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from skinclip.study.errors import (
    AlreadyAnsweredError,
    CodeError,
    RequestIdReusedError,
    SessionExpiredError,
    StoreError,
    StudyClosedError,
    TooManyAttempts,
    UnknownReaderError,
    UnknownStudyError,
    WithdrawnError,
    WrongCodeError,
    WrongKeyError,
)
from skinclip.study.store.audit_log import WITHDRAWN, Audit, Event, Head, Problem, audit, canonical, follow
from skinclip.study.store.codes import SALT_BYTES, Code, hash_code, new_code, parse_code
from skinclip.study.store.consistency import Columns, ReaderRow, contradictions
from skinclip.study.store.records import (
    AFTER_CLOSING,
    ANSWERING,
    CLOSED,
    CODE_RENEWED,
    CREATED,
    ENROLLED,
    Enrolment,
    Reader,
    Session,
    SessionSnapshot,
)

URL_VARIABLE = "SKINCLIP_DATABASE_URL"
MIGRATIONS = Path(__file__).parent / "migrations"

MEASURED = "measured"  # payload entry (times, window size) that may differ between two sends of the same answer
_OWN_KINDS = frozenset({CREATED, ENROLLED, CODE_RENEWED, CLOSED, WITHDRAWN})

SESSION_LIFE = timedelta(hours=12)
ATTEMPT_WINDOW = timedelta(minutes=5)
ATTEMPTS_PER_HANDLE = 5  # failed sign-ins within ATTEMPT_WINDOW
TOTAL_WINDOW = timedelta(minutes=1)
ATTEMPTS_IN_TOTAL = 120  # unfinished or failed sign-ins within TOTAL_WINDOW: 50 readers may come at once

_BUSY_SECONDS = 10.0  # how long a transaction waits for a lock
_TRIES = 6
_LONGEST_NAME = 200
_MIGRATION_LOCK = 7_260_321  # PostgreSQL advisory lock: one process migrates, the others wait
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_PG_LOCKED = {"40001", "40P01", "55P03", "57P01", "57P03"}  # serialization, deadlock, lock, restart of the server
_FULL = "the disk that holds the study is full. Free some space"
_READ_ONLY = "the database cannot be written to. Have its files or rights put right"
_SQLITE_FAULTS = {sqlite3.SQLITE_FULL: _FULL, sqlite3.SQLITE_READONLY: _READ_ONLY, sqlite3.SQLITE_CANTOPEN: _READ_ONLY}
_PG_FAULTS = {"53100": _FULL, "25006": _READ_ONLY, "42501": _READ_ONLY}

T = TypeVar("T")
Allocate = Callable[[int, str, Sequence[Mapping[str, Any]]], Mapping[str, Any]]
Entry = tuple[str, str, Mapping[str, Any], str]  # kind, step, payload and request id of an event to be stored


metadata = sa.MetaData()
_settings = sa.Table(
    "settings",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
_studies = sa.Table(
    "studies",
    metadata,
    sa.Column("study", sa.Text, primary_key=True),
    sa.Column("sequence", sa.Integer, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("closed_at", sa.Text),
)
_events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study", sa.Text, sa.ForeignKey("studies.study"), nullable=False),
    sa.Column("sequence", sa.Integer, nullable=False),
    sa.Column("reader", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("answers", sa.Text),  # the step again where the event answers it; nulls are never equal
    sa.Column("at_server", sa.Text, nullable=False),
    sa.Column("payload_sha", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.UniqueConstraint("study", "sequence", name="one_event_a_place"),
    sa.UniqueConstraint("study", "request_id", name="one_event_a_request"),
    sa.UniqueConstraint("study", "reader", "answers", name="one_answer_a_step"),
)
_payloads = sa.Table(
    "payloads",
    metadata,
    sa.Column("event", sa.Integer, sa.ForeignKey("events.id"), primary_key=True),
    sa.Column("salt", sa.LargeBinary, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
_readers = sa.Table(
    "readers",
    metadata,
    sa.Column("study", sa.Text, sa.ForeignKey("studies.study"), primary_key=True),
    sa.Column("reader", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("withdrawn_at", sa.Text),
    sa.UniqueConstraint("study", "number", name="one_reader_a_number"),
)
_codes = sa.Table(
    "codes",
    metadata,
    sa.Column("handle", sa.Text, primary_key=True),
    sa.Column("study", sa.Text, sa.ForeignKey("studies.study"), nullable=False),
    sa.Column("reader", sa.Text),
    sa.Column("salt", sa.LargeBinary, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
)
_attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("handle", sa.Text, nullable=False),
    sa.Column("at_server", sa.Text, nullable=False, index=True),
)
_sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("token_sha", sa.Text, primary_key=True),
    sa.Column("study", sa.Text, sa.ForeignKey("studies.study"), nullable=False),
    sa.Column("reader", sa.Text),
    sa.Column("expires_at", sa.Text, nullable=False),
)

# Statements of every submit, built once: building them anew would cost as much as running them.
_event_columns = sa.select(_events, _payloads.c.salt, _payloads.c.body).select_from(
    _events.outerjoin(_payloads, _payloads.c.event == _events.c.id)
)
_OF_STUDY = _events.c.study == sa.bindparam("study")
_FIND_STUDY = sa.select(_studies).where(_studies.c.study == sa.bindparam("study"))
_LOCK_STUDY = _FIND_STUDY.with_for_update()
_FIND_READER = sa.select(_readers).where(
    _readers.c.study == sa.bindparam("study"), _readers.c.reader == sa.bindparam("reader")
)
_FIND_SESSION = (
    sa.select(_sessions, _studies.c.closed_at)
    .join(_studies, _studies.c.study == _sessions.c.study)
    .where(_sessions.c.token_sha == sa.bindparam("token_sha"))
)
_FIND_SINCE = _event_columns.where(
    _OF_STUDY,
    _events.c.reader == sa.bindparam("reader"),
    _events.c.sequence > sa.bindparam("since"),
    _events.c.kind.in_(sa.bindparam("kinds", expanding=True)),
).order_by(_events.c.sequence)
# Each side names the study, so that each is looked up in its own index.
_FIND_REPEATED = _event_columns.where(
    sa.or_(
        sa.and_(_OF_STUDY, _events.c.request_id.in_(sa.bindparam("requests", expanding=True))),
        sa.and_(
            _OF_STUDY,
            _events.c.reader == sa.bindparam("reader"),
            _events.c.answers.in_(sa.bindparam("steps", expanding=True)),
        ),
    )
)
_INSERT_EVENT = _events.insert()
_INSERT_PAYLOAD = _payloads.insert().from_select(
    ["event", "salt", "body"],
    sa.select(_events.c.id, sa.bindparam("salt", type_=sa.LargeBinary), sa.bindparam("body", type_=sa.Text)).where(
        _OF_STUDY, _events.c.sequence == sa.bindparam("place")
    ),
)
_MOVE_HEAD = (
    _studies.update()
    .where(_studies.c.study == sa.bindparam("of_study"))
    .values(sequence=sa.bindparam("place"), digest=sa.bindparam("seal"))
)


def utc_now() -> datetime:
    return datetime.now(UTC)


def where_from_environment(default: Path) -> str | Path:
    """The database's URL from SKINCLIP_DATABASE_URL, or the SQLite file `default`."""
    return os.environ.get(URL_VARIABLE) or default


class Store:
    """An open database of studies. Safe for threads; several processes may open the same database."""

    def __init__(self, engine: Engine, key: bytes, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._writing = engine.execution_options(writing=True)
        # What is read in one transaction is of one moment: of itself on SQLite, by request on PostgreSQL.
        self._reading = engine if _is_sqlite(engine) else engine.execution_options(isolation_level="REPEATABLE READ")
        self._key = key
        self._clock = clock
        # One thread writes at a time. Threads that wait here are let in at once, those that poll SQLite's file are not;
        # and who holds a study's row on PostgreSQL need not fight for the interpreter with those who wait for it.
        self._turn = threading.Lock()
        self._waiting: deque[_Job] = deque()

    @classmethod
    def open(cls, where: str | Path, key: bytes, *, clock: Callable[[], datetime] = utc_now) -> Self:
        """Open or make the database at a path (SQLite) or URL, and bring its schema up to date.

        Raises StoreError where that fails, WrongKeyError where the database belongs to another key.
        """
        engine = _engine(where)
        store = cls(engine, key, clock)
        try:
            store._write(_migrate)
            store._write(store._check_key)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the log ------------------------------------------------------------------------------------------------------

    def create(self, study: str, payload: Mapping[str, Any]) -> Event:
        """Begin a study's log with an event `created`. A study that is there already keeps its own."""
        draft = self._draft(study, None, CREATED, CREATED, payload, CREATED)

        def work(connection: Connection) -> Event:
            if (stored := _by_request(connection, study, CREATED)) is not None:
                return stored
            head = Head()
            connection.execute(_studies.insert().values(study=study, sequence=head.sequence, digest=head.digest))
            return self._append(connection, [draft])[0]

        return self._write(work)

    def append(
        self, study: str, reader: str | None, kind: str, step: str, payload: Mapping[str, Any], request_id: str
    ) -> Event:
        """Store one event and return it; once this has returned, the event survives a crash.

        A request id that was used before, or an answer to a step that has one, returns the stored event where both say
        the same (`MEASURED` apart). `reader` is None for an event of the study itself.

        Raises AlreadyAnsweredError where the step has a different answer, StudyClosedError, WithdrawnError,
        UnknownReaderError, UnknownStudyError, RequestIdReusedError or PayloadError where the event cannot be taken, and
        StoreError where the database fails. Nothing is stored then.
        """
        return self.append_all(study, reader, [(kind, step, payload, request_id)])[0]

    def append_all(self, study: str, reader: str | None, entries: Iterable[Entry]) -> list[Event]:
        """Store several events of one reader, all or none: see `append`."""
        drafts = [self._draft(study, reader, *entry) for entry in entries]
        own = [draft.kind for draft in drafts if draft.kind in _OWN_KINDS]
        if own:
            raise ValueError(f"events of the kind {own[0]!r} are made by the store alone; call the method for it")
        job = _Job(drafts)
        self._waiting.append(job)
        with self._turn:
            if not job.done:
                self._store_waiting()
        return job.result()

    def events(self, study: str, reader: str | None = None, kinds: Collection[str] | None = None) -> list[Event]:
        """The events of a study in order, of one reader or of some kinds where given; payload None where erased."""
        query = _event_columns.where(_events.c.study == study).order_by(_events.c.sequence)
        if reader is not None:
            query = query.where(_events.c.reader == reader)
        if kinds is not None:
            query = query.where(_events.c.kind.in_(kinds))

        def work(connection: Connection) -> list[Event]:
            _known_study(connection, study)
            return [_event(row) for row in connection.execute(query)]

        return self._read(work)

    def head(self, study: str) -> Head:
        """The last event's sequence and digest, as recorded when it was stored."""
        row = self._read(lambda connection: _known_study(connection, study))
        return Head(row.sequence, row.digest)

    def studies(self) -> list[str]:
        """The names of all studies in the database."""
        query = sa.select(_studies.c.study).order_by(_studies.c.study)
        return self._read(lambda connection: list(connection.scalars(query)))

    def audit(self, study: str, receipts: Iterable[str] = ()) -> Audit:
        """Check the whole log of a study against the key, its recorded head, readers' receipts, and what the database
        says beside the log.

        Raises ReceiptError where a receipt was copied wrongly.
        """
        query = _event_columns.where(_events.c.study == study).order_by(_events.c.sequence)

        def work(connection: Connection) -> tuple[Head, list[Event], Columns]:
            row = _known_study(connection, study)
            events = [_event(found) for found in connection.execute(query)]
            return Head(row.sequence, row.digest), events, _columns_beside(connection, row)

        head, events, columns = self._read(work)
        found = audit(study, events, self._key, head=head, receipts=receipts)
        told = {problem.sequence for problem in found.problems} - {None}
        further = [problem for problem in contradictions(events, columns) if problem.sequence not in told]
        return replace(found, problems=(*found.problems, *further))

    def verify(self, study: str, receipts: Iterable[str] = ()) -> list[Problem]:
        """The problems that `audit` finds; none where the log is whole."""
        return list(self.audit(study, receipts).problems)

    def export_log(self, study: str, path: Path) -> Head:
        """Write all events with digests and salts as JSON lines, which `audit_log.read_log` and the key can verify.

        The file holds answers that a later withdrawal cannot erase: treat it as the database itself.
        """
        events = self.events(study)
        with open(path, "w", encoding="ascii", newline="\n") as file:
            file.writelines(event.to_line() + "\n" for event in events)
        return Head(events[-1].sequence, events[-1].digest)

    def close_study(self, study: str) -> Event:
        """Close a study to further answers, by an event; a second call returns the first one's."""
        draft = self._draft(study, None, CLOSED, CLOSED, {}, CLOSED)

        def work(connection: Connection) -> Event:
            event = self._append(connection, [draft])[0]
            connection.execute(_studies.update().where(_studies.c.study == study).values(closed_at=event.at))
            return event

        return self._write(work)

    def is_closed(self, study: str) -> bool:
        return self._read(lambda connection: _known_study(connection, study)).closed_at is not None

    # -- readers ------------------------------------------------------------------------------------------------------

    def enrol(self, study: str, allocation: Allocate, site: str) -> Enrolment:
        """Enrol the next reader and return the id with the personal code, which is not kept.

        `allocation` is called inside the transaction, so that no two readers enrolled at once share a number or a seat:
        with the reader's number (1, 2, ...), the site, and what the events `enrolled` hold of those who have not
        withdrawn. What it returns is stored in the event of this reader.
        """
        request_id = f"{ENROLLED}-{secrets.token_hex(8)}"
        code, kept = self._new_code()

        def work(connection: Connection) -> Enrolment:
            row = _known_study(connection, study, lock=True)
            if (stored := _by_request(connection, study, request_id)) is not None:
                return Enrolment(str(stored.reader), str(code))  # the answer to the commit was lost on its way
            if row.closed_at is not None:
                raise StudyClosedError(f"the study {study} is closed; nobody can be enrolled any more")
            query = sa.select(sa.func.max(_readers.c.number)).where(_readers.c.study == study)
            number = (connection.scalar(query) or 0) + 1
            reader = f"R{number:03d}"
            connection.execute(_readers.insert().values(study=study, reader=reader, number=number))
            connection.execute(_codes.insert().values(study=study, reader=reader, **kept))
            others = [payload for event in _enrolled(connection, study) if (payload := event.payload) is not None]
            payload = {"number": number, "site": site, "allocation": allocation(number, site, others)}
            self._append(connection, [self._draft(study, reader, ENROLLED, ENROLLED, payload, request_id)])
            return Enrolment(reader, str(code))

        return self._write(work)

    def readers(self, study: str) -> list[Reader]:
        """All readers of a study by number, those who withdrew too."""
        enrolled = {event.reader: event for event in self.events(study, kinds=[ENROLLED])}
        query = sa.select(_readers).where(_readers.c.study == study).order_by(_readers.c.number)
        rows = self._read(lambda connection: connection.execute(query).all())
        return [_reader(row, enrolled[row.reader]) for row in rows if row.reader in enrolled]

    def reader(self, study: str, reader: str) -> Reader:
        """One reader. Raises UnknownReaderError."""
        row = self._read(lambda connection: _known_reader(connection, study, reader))
        return _reader(row, self.events(study, reader, [ENROLLED])[0])

    def withdraw(self, study: str, reader: str) -> Event:
        """Erase a reader's payloads, salts, site and code, end the sign-ins, and record that the reader withdrew.

        The log stays valid. May be called again, and should be where it raised StoreError: the answers are then out of
        the tables, but their bytes may still lie in the database's files. Copies (backups, exports) are not reached.
        """
        draft = self._draft(study, reader, WITHDRAWN, WITHDRAWN, {}, f"{WITHDRAWN}-{reader}")

        def work(connection: Connection) -> Event:
            _known_study(connection, study, lock=True)
            if _known_reader(connection, study, reader).withdrawn_at is not None:
                stored = _by_request(connection, study, draft.request_id)
                assert stored is not None
                return stored
            event = self._append(connection, [draft])[0]
            _erase(connection, event)
            return event

        event = self._write(work)
        self._scrub()
        return event

    # -- sign-in ------------------------------------------------------------------------------------------------------

    def renew_code(self, study: str, reader: str) -> str:
        """A new personal code in place of a lost one; the old one and its sign-ins end."""
        return self._replace_code(study, reader)

    def coordinator_code(self, study: str) -> str:
        """A new code for the study's coordinator; the one before and its sign-ins end."""
        return self._replace_code(study, None)

    def sign_in(self, typed: str) -> Session:
        """Start a session with a personal or coordinator code.

        Each attempt is counted before the code is looked at, so that parallel guesses are limited too, and taken back
        if it was right. Raises WrongCodeError, or TooManyAttempts with the seconds to wait.
        """
        try:
            code = parse_code(typed)
        except CodeError:
            self._write(lambda connection: self._count_attempt(connection, ""))
            raise WrongCodeError from None
        attempt = self._write(lambda connection: self._count_attempt(connection, code.handle))
        row = self._code_row(code.handle)
        # An unknown handle costs the same time as a wrong secret.
        hashed = hash_code(self._key, code, row.salt if row else bytes(SALT_BYTES))
        if not hmac.compare_digest(hashed, row.hash if row else bytes(len(hashed))) or row is None:
            raise WrongCodeError
        return self._write(lambda connection: self._start_session(connection, row, attempt))

    def session_reader(self, token: str) -> Session:
        """The session of a token. Raises SessionExpiredError where it has ended or never was."""
        return self._read(lambda connection: self._session(connection, token)[0])

    def session_snapshot(self, token: str, kinds: Collection[str], since: Callable[[str], int]) -> SessionSnapshot:
        """The session of a token, whether its study is closed, and its reader's events of some kinds.

        `since` is called with the reader's id and gives the sequence after which events are wanted: what was stored
        is never changed, so that a caller need not read twice what it has. The coordinator has none.

        Raises SessionExpiredError where the session has ended or never was.
        """

        def work(connection: Connection) -> SessionSnapshot:
            session, closed = self._session(connection, token)
            if session.reader is None:
                return SessionSnapshot(session, closed, ())
            wanted = {"study": session.study, "reader": session.reader, "since": since(session.reader)}
            rows = connection.execute(_FIND_SINCE, {**wanted, "kinds": sorted(kinds)})
            return SessionSnapshot(session, closed, tuple(map(_event, rows)))

        return self._read(work)

    def _session(self, connection: Connection, token: str) -> tuple[Session, bool]:
        """The session of a token, and whether its study is closed."""
        row = connection.execute(_FIND_SESSION, {"token_sha": _token_sha(token)}).one_or_none()
        if row is None or row.expires_at <= self._now():
            raise SessionExpiredError
        return Session(token, row.study, row.reader, row.expires_at), row.closed_at is not None

    def sign_out(self, token: str) -> None:
        self._write(lambda c: c.execute(_sessions.delete().where(_sessions.c.token_sha == _token_sha(token))))

    def _replace_code(self, study: str, reader: str | None) -> str:
        code, kept = self._new_code()
        request_id = f"{CODE_RENEWED}-{secrets.token_hex(8)}"
        draft = self._draft(study, reader, CODE_RENEWED, CODE_RENEWED, {}, request_id)

        def work(connection: Connection) -> str:
            _known_study(connection, study, lock=True)
            self._append(connection, [draft])
            _end_access(connection, study, reader)
            connection.execute(_codes.insert().values(study=study, reader=reader, **kept))
            return str(code)

        return self._write(work)

    def _new_code(self) -> tuple[Code, dict[str, Any]]:
        """A code whose handle is free, and what is kept of it."""
        while True:
            code, salt = new_code(), secrets.token_bytes(SALT_BYTES)
            if self._code_row(code.handle) is None:
                return code, {"handle": code.handle, "salt": salt, "hash": hash_code(self._key, code, salt)}

    def _code_row(self, handle: str) -> Row[Any] | None:
        query = sa.select(_codes).where(_codes.c.handle == handle)
        return self._read(lambda connection: connection.execute(query).one_or_none())

    def _count_attempt(self, connection: Connection, handle: str) -> int:
        """Count one attempt and return its id. Raises TooManyAttempts; attempts that are refused do not count."""
        connection.execute(sa.select(_settings).with_for_update()).all()  # attempts are counted one by one
        now = self._clock()
        connection.execute(_attempts.delete().where(_attempts.c.at_server <= _iso(now - ATTEMPT_WINDOW)))
        total = sa.select(_attempts.c.at_server).order_by(_attempts.c.at_server)
        recent = list(connection.scalars(total.where(_attempts.c.at_server > _iso(now - TOTAL_WINDOW))))
        of_handle = list(connection.scalars(total.where(_attempts.c.handle == handle))) if handle else []
        waits = [
            _wait(of_handle, ATTEMPTS_PER_HANDLE, ATTEMPT_WINDOW, now),
            _wait(recent, ATTEMPTS_IN_TOTAL, TOTAL_WINDOW, now),
        ]
        if max(waits) > 0:
            raise TooManyAttempts(max(waits))
        return _inserted(connection.execute(_attempts.insert().values(handle=handle, at_server=_iso(now))))

    def _start_session(self, connection: Connection, row: Row[Any], attempt: int) -> Session:
        now = self._clock()
        session = Session(secrets.token_urlsafe(32), row.study, row.reader, _iso(now + SESSION_LIFE))
        connection.execute(_attempts.delete().where(_attempts.c.id == attempt))
        connection.execute(_sessions.delete().where(_sessions.c.expires_at <= _iso(now)))
        values = {"study": session.study, "reader": session.reader, "expires_at": session.expires_at}
        connection.execute(_sessions.insert().values(token_sha=_token_sha(session.token), **values))
        return session

    # -- one event ----------------------------------------------------------------------------------------------------

    def _draft(
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
        """Store what all threads wait for in one transaction: the disk is waited for once, however many they are."""
        jobs = [self._waiting.popleft() for _ in range(len(self._waiting))]
        failed = self._store_all(jobs)
        if failed is not None and not _passes(failed) and len(jobs) > 1:  # one of them is to blame
            for job in jobs:
                self._store_all([job])

    def _store_all(self, jobs: Sequence[_Job]) -> SQLAlchemyError | None:
        """Store `jobs` in one transaction; the error of the database where that failed, which each of them then has."""

        def work(connection: Connection) -> None:
            tails: dict[str, _Tail] = {}
            for job in jobs:
                job.store(lambda drafts: self._follow(connection, drafts, tails))
            _insert(connection, tails)

        try:
            self._run(self._writing, work)
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

    def _append(self, connection: Connection, drafts: Sequence[Event]) -> list[Event]:
        """Store `drafts`, all of one reader, as the next events of their study; returns of each the stored event."""
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
            row = _known_study(connection, study, lock=True)
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
        return _iso(self._clock())

    # -- transactions -------------------------------------------------------------------------------------------------

    def _read(self, work: Callable[[Connection], T]) -> T:
        return self._run(self._reading, work)

    def _write(self, work: Callable[[Connection], T]) -> T:
        return self._run(self._writing, work, self._turn)

    def _run(
        self, engine: Engine, work: Callable[[Connection], T], turn: AbstractContextManager[Any] | None = None
    ) -> T:
        """What `work` returns, run in one transaction; tried again, a few times, where others are in the way.

        Raises StoreError where the database fails; what `work` raises itself passes through, rolled back.
        """
        for attempt in range(1, _TRIES + 1):
            try:
                with turn or nullcontext(), engine.begin() as connection:
                    return work(connection)
            except SQLAlchemyError as error:
                if attempt == _TRIES or not _passes(error):
                    raise StoreError(_words(error)) from error
            time.sleep(random.uniform(0.5, 1.0) * 0.01 * 2**attempt)
        raise AssertionError("the last try returned or raised")

    def _check_key(self, connection: Connection) -> None:
        """Hold the key against the fingerprint of the one that the database was made with."""
        fingerprint = hmac.digest(self._key, b"fingerprint", "sha256").hex()
        query = sa.select(_settings.c.value).where(_settings.c.name == "key").with_for_update()
        stored = connection.scalar(query)
        if stored is None:
            connection.execute(_settings.insert().values(name="key", value=fingerprint))
        elif not hmac.compare_digest(stored, fingerprint):
            raise WrongKeyError("the database was made with another key; give the key file that belongs to it")

    def _scrub(self) -> None:
        """Have erased bytes leave the files: SQLite's log is emptied, PostgreSQL's table is written anew."""
        if not _is_sqlite(self._engine):
            self._run(self._engine.execution_options(isolation_level="AUTOCOMMIT"), _rewrite_payloads)
            return
        with self._turn:
            connection = self._engine.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                ((busy, _, _),) = cursor.fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"the answers are erased, their bytes may remain: {error}; withdraw again") from error
            finally:
                connection.close()
        if busy:
            raise StoreError("the answers are erased, but the log file was in use and may hold bytes; withdraw again")


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
        """Append within a transaction. What the log refuses fails this job alone: nothing was written of it yet."""
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


def _event(row: Row[Any]) -> Event:
    fields = (row.study, row.sequence, row.reader, row.kind, row.step, row.request_id, row.at_server)
    return Event(*fields, row.payload_sha, row.previous, row.digest, row.body, row.salt)


def _columns(event: Event) -> dict[str, Any]:
    """An event's fields but for its payload."""
    names = ("study", "sequence", "reader", "kind", "step", "request_id", "at", "payload_sha", "previous", "digest")
    return {name: getattr(event, name) for name in names}


def _reader(row: Row[Any], enrolled: Event) -> Reader:
    payload = enrolled.payload or {}
    site, allocation = payload.get("site"), payload.get("allocation")
    return Reader(row.study, row.reader, row.number, site, allocation, enrolled.at, row.withdrawn_at)


def _columns_beside(connection: Connection, study: Row[Any]) -> Columns:
    """What the database says of a study beside the sealed events."""
    of = {table: table.c.study == study.study for table in (_events, _readers, _codes, _sessions)}
    readers = connection.execute(sa.select(_readers).where(of[_readers]).order_by(_readers.c.number))
    answers = connection.execute(sa.select(_events.c.sequence, _events.c.answers).where(of[_events]))
    return Columns(
        closed_at=study.closed_at,
        readers=tuple(ReaderRow(row.reader, row.number, row.withdrawn_at) for row in readers),
        answers={row.sequence: row.answers for row in answers},
        codes=tuple(connection.scalars(sa.select(_codes.c.reader).where(of[_codes]))),
        sessions=tuple(connection.scalars(sa.select(_sessions.c.reader).where(of[_sessions]))),
    )


def _study_row(connection: Connection, study: str, *, lock: bool = False) -> Row[Any] | None:
    """The study's row. `lock` holds it to the end of the transaction: who has it takes the next sequence."""
    return connection.execute(_LOCK_STUDY if lock else _FIND_STUDY, {"study": study}).one_or_none()


def _known_study(connection: Connection, study: str, *, lock: bool = False) -> Row[Any]:
    row = _study_row(connection, study, lock=lock)
    if row is None:
        raise UnknownStudyError(f"there is no study {study!r} in this database; build it first")
    return row


def _known_reader(connection: Connection, study: str, reader: str) -> Row[Any]:
    row = connection.execute(_FIND_READER, {"study": study, "reader": reader}).one_or_none()
    if row is None:
        raise UnknownReaderError(f"the study {study} has no reader {reader!r}; enrol the reader first")
    return row


def _may_still_send(connection: Connection, study: str, reader: str | None) -> None:
    """Raise unless the reader, if there is one, is enrolled and has not withdrawn."""
    if reader is not None and _known_reader(connection, study, reader).withdrawn_at is not None:
        raise WithdrawnError("you have withdrawn from this study; nothing is stored any more")


def _by_request(connection: Connection, study: str, request_id: str) -> Event | None:
    query = _event_columns.where(_events.c.study == study, _events.c.request_id == request_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _event(row)


def _candidates(connection: Connection, drafts: Sequence[Event]) -> list[Event]:
    """The stored events that share a request id, or an answered step, with one of `drafts`."""
    steps = [step for draft in drafts if (step := _answered(draft)) is not None]
    wanted = {"study": drafts[0].study, "reader": drafts[0].reader, "steps": steps}
    rows = connection.execute(_FIND_REPEATED, {**wanted, "requests": [draft.request_id for draft in drafts]})
    return [_event(row) for row in rows]


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
    """Write the new events of each study with their payloads, and move its head to the last."""
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


def _end_access(connection: Connection, study: str, reader: str | None) -> None:
    """Remove the code and the sign-ins of a reader or, with None, of the coordinator."""
    for table in (_codes, _sessions):
        connection.execute(table.delete().where(table.c.study == study, table.c.reader.is_not_distinct_from(reader)))


def _erase(connection: Connection, withdrawn: Event) -> None:
    """Erase what a reader has told before the event `withdrawn`."""
    study, reader = withdrawn.study, withdrawn.reader
    told = (_events.c.study == study, _events.c.reader == reader, _events.c.sequence < withdrawn.sequence)
    connection.execute(_payloads.delete().where(_payloads.c.event.in_(sa.select(_events.c.id).where(*told))))
    this_reader = _readers.update().where(_readers.c.study == study, _readers.c.reader == reader)
    connection.execute(this_reader.values(withdrawn_at=withdrawn.at))
    _end_access(connection, study, reader)


def _rewrite_payloads(connection: Connection) -> None:
    for table in (_payloads, _codes):
        connection.execute(sa.text(f"VACUUM FULL {table.name}"))


def _enrolled(connection: Connection, study: str) -> list[Event]:
    """The events by which readers were enrolled, in order; those of readers who withdrew are without payload."""
    query = _event_columns.where(_events.c.study == study, _events.c.kind == ENROLLED).order_by(_events.c.sequence)
    return [_event(row) for row in connection.execute(query)]


def _inserted(result: sa.CursorResult[Any]) -> int:
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])


# -- times and limits -------------------------------------------------------------------------------------------------


def _iso(at: datetime) -> str:
    """UTC with milliseconds, of one length, so that texts sort as times do: `2026-11-24T09:30:00.125Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def _wait(attempts: list[str], allowed: int, window: timedelta, now: datetime) -> int:
    """Seconds until one more of `attempts`, oldest first, would be allowed; 0 where it is now."""
    if len(attempts) < allowed:
        return 0
    blocking = datetime.fromisoformat(attempts[-allowed])
    return max(1, ceil((blocking + window - now).total_seconds()))


def _token_sha(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


# -- the database -----------------------------------------------------------------------------------------------------


def _is_sqlite(engine: Engine) -> bool:
    return engine.dialect.name == "sqlite"


def _engine(where: str | Path) -> Engine:
    """An engine for SQLite or PostgreSQL. Raises StoreError where `where` names neither."""
    url = _url(where)
    if url.get_backend_name() == "sqlite":
        _create_private(url.database)
        engine = sa.create_engine(
            url, pool_size=10, max_overflow=40, connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False}
        )
        sa.event.listen(engine, "connect", _set_up_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    options = f"-c lock_timeout={int(_BUSY_SECONDS * 1000)} -c synchronous_commit=on"
    # A submit needs a connection for milliseconds: with more of them threads only fight for the interpreter.
    return sa.create_engine(url, pool_size=5, max_overflow=5, connect_args={"options": options})


def _url(where: str | Path) -> URL:
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(Path(where).absolute()))
    try:
        url = make_url(where.replace("postgres://", "postgresql://", 1))
    except ArgumentError as error:
        raise StoreError(f"{URL_VARIABLE} is no database URL; write postgresql://USER:PASSWORD@HOST/NAME") from error
    if url.get_backend_name() not in {"sqlite", "postgresql"}:
        raise StoreError(f"{url.get_backend_name()} is not supported; use a SQLite file or postgresql://")
    return url.set(drivername="postgresql+psycopg") if url.get_backend_name() == "postgresql" else url


def _create_private(path: str | None) -> None:
    """Make the file, if it is missing, such that only its owner can read it. SQLite's side files follow its mode."""
    try:
        os.close(os.open(path or "", os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreError(
            f"{path}: the database cannot be opened ({error.strerror}); choose a folder you can write to"
        ) from error


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says, not at the first INSERT
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at the start: one that is only asked for at the first write can be refused half-way."""
    writing = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _migrate(connection: Connection) -> None:
    """Bring the schema up to date, whole or not at all. Raises StoreError where it is newer than this program."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    if current == scripts.get_current_head():
        return
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise StoreError(f"the database has the schema {current}, which is newer than this program; update the program")
    command.upgrade(config, "head")


def _passes(error: SQLAlchemyError) -> bool:
    """Whether trying again may help: another transaction was in the way, or the connection broke."""
    if isinstance(error, PoolTimeout | IntegrityError):  # two made the same row at once; the next try finds it
        return True
    if not isinstance(error, DBAPIError):
        return False
    return error.connection_invalidated or _sqlite_code(error) in _LOCKED or _pg_state(error) in _PG_LOCKED


def _words(error: SQLAlchemyError) -> str:
    """What went wrong and what to do."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return "the connection to the database broke. Send again: what was stored is not stored twice."
    reason = (
        "the database is busy. Wait a moment"
        if _passes(error)
        else f"the database failed ({error}). Tell the coordinator"
    )
    if isinstance(error, DBAPIError):
        reason = _SQLITE_FAULTS.get(_sqlite_code(error), _PG_FAULTS.get(_pg_state(error), reason))
    return f"nothing was stored: {reason}, then send again. What was stored before is safe."


def _sqlite_code(error: DBAPIError) -> int:
    """SQLite's primary result code, 0 where the error is another database's."""
    return int(getattr(error.orig, "sqlite_errorcode", 0)) & 0xFF


def _pg_state(error: DBAPIError) -> str:
    """PostgreSQL's SQLSTATE, empty where the error is another database's."""
    return str(getattr(error.orig, "sqlstate", "") or "")
