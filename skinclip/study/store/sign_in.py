"""Sign-in to a study: personal codes, limits on wrong ones, and the sessions that a right one opens.

Only hashes of codes and tokens are kept. Nothing about the browser or the network of a reader is ever written.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from math import ceil
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from skinclip.study.errors import CodeError, SessionExpiredError, TooManyAttempts, WrongCodeError
from skinclip.study.store import schema
from skinclip.study.store.codes import SALT_BYTES, Code, hash_code, new_code, parse_code
from skinclip.study.store.database import Database
from skinclip.study.store.event_log import FIND_SINCE, EventLog, event_of, iso, known_study
from skinclip.study.store.records import CODE_RENEWED, Session, SessionSnapshot

SESSION_LIFE = timedelta(hours=12)
ATTEMPT_WINDOW = timedelta(minutes=5)
ATTEMPTS_PER_HANDLE = 5  # failed sign-ins within ATTEMPT_WINDOW
TOTAL_WINDOW = timedelta(minutes=1)
ATTEMPTS_IN_TOTAL = 120  # unfinished or failed sign-ins within TOTAL_WINDOW: 50 readers may come at once

_FIND_SESSION = (
    sa.select(schema.sessions, schema.studies.c.closed_at)
    .join(schema.studies, schema.studies.c.study == schema.sessions.c.study)
    .where(schema.sessions.c.token_sha == sa.bindparam("token_sha"))
)


class SignIns:
    """Codes and sessions of all studies in a database."""

    def __init__(self, database: Database, log: EventLog, key: bytes, clock: Callable[[], datetime]) -> None:
        self._database, self._log, self._key, self._clock = database, log, key, clock

    def renew_code(self, study: str, reader: str) -> str:
        """A new personal code in place of a lost one; the old one and its sign-ins end."""
        return self._replace_code(study, reader)

    def coordinator_code(self, study: str) -> str:
        """A new code for the study's coordinator; the one before and its sign-ins end."""
        return self._replace_code(study, None)

    def sign_in(self, typed: str) -> Session:
        """Starts a session with a personal or coordinator code.

        Each attempt is counted before the code is compared, so that parallel guesses are limited too, and taken back
        if it was right. Raises WrongCodeError, or TooManyAttempts with the seconds to wait.
        """
        try:
            code = parse_code(typed)
        except CodeError:
            self._database.write(lambda connection: self._count_attempt(connection, ""))
            raise WrongCodeError from None
        attempt = self._database.write(lambda connection: self._count_attempt(connection, code.handle))
        row = self._code_row(code.handle)
        # An unknown handle costs the same time as a wrong secret.
        hashed = hash_code(self._key, code, row.salt if row else bytes(SALT_BYTES))
        if not hmac.compare_digest(hashed, row.hash if row else bytes(len(hashed))) or row is None:
            raise WrongCodeError
        return self._database.write(lambda connection: self._start_session(connection, row, attempt))

    def session_reader(self, token: str) -> Session:
        """The session of a token. Raises SessionExpiredError where it has ended or never was."""
        return self._database.read(lambda connection: self._session(connection, token)[0])

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
            rows = connection.execute(FIND_SINCE, {**wanted, "kinds": sorted(kinds)})
            return SessionSnapshot(session, closed, tuple(map(event_of, rows)))

        return self._database.read(work)

    def _session(self, connection: Connection, token: str) -> tuple[Session, bool]:
        """The session of a token, and whether its study is closed."""
        row = connection.execute(_FIND_SESSION, {"token_sha": _token_sha(token)}).one_or_none()
        if row is None or row.expires_at <= iso(self._clock()):
            raise SessionExpiredError
        return Session(token, row.study, row.reader, row.expires_at), row.closed_at is not None

    def sign_out(self, token: str) -> None:
        self._database.write(
            lambda c: c.execute(schema.sessions.delete().where(schema.sessions.c.token_sha == _token_sha(token)))
        )

    def _replace_code(self, study: str, reader: str | None) -> str:
        code, kept = self.new_code()
        request_id = f"{CODE_RENEWED}-{secrets.token_hex(8)}"
        draft = self._log.draft(study, reader, CODE_RENEWED, CODE_RENEWED, {}, request_id)

        def work(connection: Connection) -> str:
            known_study(connection, study, lock=True)
            self._log.append_within(connection, [draft])
            end_access(connection, study, reader)
            connection.execute(schema.codes.insert().values(study=study, reader=reader, **kept))
            return str(code)

        return self._database.write(work)

    def new_code(self) -> tuple[Code, dict[str, Any]]:
        """A code whose handle is free, and what is kept of it."""
        while True:
            code, salt = new_code(), secrets.token_bytes(SALT_BYTES)
            if self._code_row(code.handle) is None:
                return code, {"handle": code.handle, "salt": salt, "hash": hash_code(self._key, code, salt)}

    def _code_row(self, handle: str) -> Row[Any] | None:
        query = sa.select(schema.codes).where(schema.codes.c.handle == handle)
        return self._database.read(lambda connection: connection.execute(query).one_or_none())

    def _count_attempt(self, connection: Connection, handle: str) -> int:
        """Counts one attempt and returns its id. Raises TooManyAttempts; attempts that are refused do not count."""
        connection.execute(sa.select(schema.settings).with_for_update()).all()  # attempts are counted one by one
        now = self._clock()
        connection.execute(schema.attempts.delete().where(schema.attempts.c.at_server <= iso(now - ATTEMPT_WINDOW)))
        total = sa.select(schema.attempts.c.at_server).order_by(schema.attempts.c.at_server)
        recent = list(connection.scalars(total.where(schema.attempts.c.at_server > iso(now - TOTAL_WINDOW))))
        of_handle = list(connection.scalars(total.where(schema.attempts.c.handle == handle))) if handle else []
        waits = [
            _wait(of_handle, ATTEMPTS_PER_HANDLE, ATTEMPT_WINDOW, now),
            _wait(recent, ATTEMPTS_IN_TOTAL, TOTAL_WINDOW, now),
        ]
        if max(waits) > 0:
            raise TooManyAttempts(max(waits))
        return _inserted(connection.execute(schema.attempts.insert().values(handle=handle, at_server=iso(now))))

    def _start_session(self, connection: Connection, row: Row[Any], attempt: int) -> Session:
        now = self._clock()
        session = Session(secrets.token_urlsafe(32), row.study, row.reader, iso(now + SESSION_LIFE))
        connection.execute(schema.attempts.delete().where(schema.attempts.c.id == attempt))
        connection.execute(schema.sessions.delete().where(schema.sessions.c.expires_at <= iso(now)))
        values = {"study": session.study, "reader": session.reader, "expires_at": session.expires_at}
        connection.execute(schema.sessions.insert().values(token_sha=_token_sha(session.token), **values))
        return session


def end_access(connection: Connection, study: str, reader: str | None) -> None:
    """Removes the code and the sign-ins of a reader or, with None, of the coordinator."""
    for table in (schema.codes, schema.sessions):
        connection.execute(table.delete().where(table.c.study == study, table.c.reader.is_not_distinct_from(reader)))


def _inserted(result: sa.CursorResult[Any]) -> int:
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])


def _wait(attempts: list[str], allowed: int, window: timedelta, now: datetime) -> int:
    """Seconds until one more of `attempts`, oldest first, would be allowed; 0 where it is now."""
    if len(attempts) < allowed:
        return 0
    blocking = datetime.fromisoformat(attempts[-allowed])
    return max(1, ceil((blocking + window - now).total_seconds()))


def _token_sha(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
