"""Sign-in to a study: personal codes, and the sessions that a right one opens.

Of codes and tokens marks are kept that only the study's key can make, bound to their reader: who can write to the
database alone can neither make a session, nor turn a reader's code or session into the coordinator's. Each sign-in is a
sealed event of the log, so that `verify` can hold the table of sessions against it. Nothing about the browser or the
network of a reader is ever written.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from skinclip.study.errors import CodeError, SessionExpiredError, TamperedError
from skinclip.study.store import rows, schema
from skinclip.study.store.attempts import AttemptLimits
from skinclip.study.store.codes import SALT_BYTES, Code, hash_code, is_short, new_code, parse_code, tag_of
from skinclip.study.store.consistency import CodeRow, SessionRow
from skinclip.study.store.database import Database
from skinclip.study.store.event_log import EventLog, iso
from skinclip.study.store.records import (
    CODE,
    CODE_RENEWED,
    CODES_SEALED,
    ENROLLED,
    LANGUAGE,
    SIGNED_IN,
    SIGNED_OUT,
    SITE,
    SITE_COORDINATOR,
    Session,
    SessionSnapshot,
)
from skinclip.study.store.study_key import StudyKey

SESSION_LIFE = timedelta(hours=12)
_BEFORE_TOKEN = "."  # between a session's language and its random part, which has none
CLOCK_ERROR = timedelta(hours=1)  # by which the server's clock may be set back within a session
_HASHED_AT_ONCE = 2  # slow hashes, of 16 MiB each

# Of one moment: the sign-in, its study, and whether an event began it and none has ended it.
_FIND_SESSION = (
    sa.select(
        schema.sessions,
        schema.studies.c.closed_at,
        *rows.CLOSING_COLUMNS,
        sa.select(sa.func.max(schema.events.c.kind))
        .where(
            schema.events.c.study == schema.sessions.c.study,
            schema.events.c.request_id.in_([sa.bindparam("signed_in"), sa.bindparam("signed_out")]),
        )
        .scalar_subquery()
        .label("last"),
    )
    .select_from(rows.WITH_CLOSING.join(schema.sessions, schema.sessions.c.study == schema.studies.c.study))
    .where(schema.sessions.c.token_mac == sa.bindparam("token_mac"))
)


class SignIns:
    """Codes and sessions of all studies in a database."""

    def __init__(self, database: Database, log: EventLog, key: StudyKey, clock: Callable[[], datetime]) -> None:
        self._database, self._log, self._key, self._clock = database, log, key, clock
        self.limits = AttemptLimits(clock)
        self._hashing = threading.BoundedSemaphore(_HASHED_AT_ONCE)

    def renew_code(self, study: str, reader: str) -> str:
        """A new personal code in place of a lost one; the old one and its sign-ins end."""
        return self._replace_code(study, reader)

    def coordinator_code(self, study: str) -> str:
        """A new code for the study's coordinator; the one before and its sign-ins end."""
        return self._replace_code(study, None)

    def site_coordinator_code(self, study: str, site: str, is_same: Callable[[str, str], bool]) -> str:
        """A code for the coordinator of a site; the one before of that site, by `is_same`, and its sign-ins end."""
        code, kept = self.new_code()
        request_id = f"{SITE_COORDINATOR}-{secrets.token_hex(8)}"

        def work(connection: Connection) -> str:
            rows.known_study(connection, study, lock=True)
            known = rows.events_of_kind(connection, study, SITE_COORDINATOR, self._key)
            owner = next((e.reader for e in known if is_same((e.payload or {}).get(SITE, ""), site)), None)
            kind = SITE_COORDINATOR if owner is None else CODE_RENEWED
            owner = owner or f"K{len(known) + 1:03d}"
            end_access(connection, study, owner)
            payload = {SITE: site, CODE: self.keep_code(connection, study, owner, kept)}
            self._log.append_within(connection, [self._log.draft(study, owner, kind, kind, payload, request_id)])
            return str(code)

        return self._database.write(work)

    def sign_in(self, typed: str, address: str = "", language: str = "") -> Session:
        """Starts a session with a personal or coordinator code, in a language of the page.

        Wrong codes are limited by `address` and by code; a right one is always taken (see `attempts`). Raises
        WrongCodeError, TooManyAttempts with the seconds to wait, or TamperedError where the code is right and the
        database says something else of it than the log.
        """
        try:
            code = parse_code(typed)
        except CodeError:
            raise self.limits.failed(address, "") from None
        row = self._code_row(code.handle)
        if row is None or not self._is_right(row, code, address):
            raise self.limits.failed(address, code.handle)
        return self._database.write(lambda connection: self._start_session(connection, row, language))

    def _is_right(self, row: Row[Any], code: Code, address: str) -> bool:
        """True for the code of the row. Two keyed bytes refuse nearly every wrong one before the slow hash."""
        if row.tag is not None and not hmac.compare_digest(row.tag, tag_of(self._key.raw, code)):
            return False
        if is_short(code) and (row.tag is not None or self.limits.exceeded(address)):
            return False  # codes of before had 40 bits and no tag: guesses at them end at the limit
        with self._hashing:
            return hmac.compare_digest(hash_code(self._key.raw, code, row.salt), row.hash)

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
            if session.reader is None or session.is_coordinator:
                return SessionSnapshot(session, closed, ())
            wanted = {"study": session.study, "reader": session.reader, "since": since(session.reader)}
            found = connection.execute(rows.FIND_SINCE, {**wanted, "kinds": sorted(kinds)})
            return SessionSnapshot(session, closed, tuple(rows.genuine_event(row, self._key) for row in found))

        return self._database.read(work)

    def _session(self, connection: Connection, token: str) -> tuple[Session, bool]:
        """The session of a token, and whether its study is closed."""
        mac = self._mac(token)
        wanted = {"token_mac": mac, "signed_in": _begins(mac), "signed_out": _ends(mac)}
        row = connection.execute(_FIND_SESSION, wanted).one_or_none()
        now = self._clock()
        if row is None or row.last == SIGNED_OUT:
            raise SessionExpiredError
        if not iso(now) < row.expires_at <= iso(now + SESSION_LIFE + CLOCK_ERROR):  # over, or begun by a clock ahead
            raise SessionExpiredError
        if row.last != SIGNED_IN or not self._key.fits(row.seal, "sign-in", *SessionRow.of(row).fields):
            raise SessionExpiredError  # put in without the key, or turned into another's
        return Session(token, row.study, row.reader, row.expires_at, _language(token)), rows.closed_at(
            row, self._key
        ) is not None

    def sign_out(self, token: str) -> None:
        """Ends a session, by an event; one that has ended already stays so."""
        mac = self._mac(token)

        def work(connection: Connection) -> None:
            row = connection.execute(sa.select(schema.sessions).where(schema.sessions.c.token_mac == mac)).one_or_none()
            if row is None:
                return
            if self._key.fits(row.seal, "sign-in", *SessionRow.of(row).fields):
                draft = self._log.draft(row.study, row.reader, SIGNED_OUT, SIGNED_OUT, {}, _ends(mac))
                self._log.append_within(connection, [draft])
            connection.execute(schema.sessions.delete().where(schema.sessions.c.token_mac == mac))

        self._database.write(work)

    def _replace_code(self, study: str, reader: str | None) -> str:
        code, kept = self.new_code()
        request_id = f"{CODE_RENEWED}-{secrets.token_hex(8)}"

        def work(connection: Connection) -> str:
            rows.known_study(connection, study, lock=True)
            end_access(connection, study, reader)
            payload = {CODE: self.keep_code(connection, study, reader, kept)}
            draft = self._log.draft(study, reader, CODE_RENEWED, CODE_RENEWED, payload, request_id)
            self._log.append_within(connection, [draft])
            return str(code)

        return self._database.write(work)

    def new_code(self) -> tuple[Code, dict[str, Any]]:
        """A code whose handle is free, and what is kept of it."""
        while True:
            code, salt = new_code(), secrets.token_bytes(SALT_BYTES)
            if self._code_row(code.handle) is None:
                hashed, tag = hash_code(self._key.raw, code, salt), tag_of(self._key.raw, code)
                return code, {"handle": code.handle, "salt": salt, "hash": hashed, "tag": tag}

    def keep_code(self, connection: Connection, study: str, reader: str | None, kept: Mapping[str, Any]) -> str:
        """Keeps what `new_code` gave, bound to its owner; returns the seal, for the event that gives the code out."""
        connection.execute(schema.codes.insert().values(study=study, reader=reader, **kept))
        return self._seal(
            connection, connection.execute(sa.select(schema.codes).where(schema.codes.c.handle == kept["handle"])).one()
        )

    def seal_earlier_codes(self, study: str) -> None:
        """Seals the codes of a study that was begun when codes had no seal, and lists them in the log.

        For once, at the first opening by this version: the caller knows from outside the database that it is.
        """

        def work(connection: Connection) -> None:
            rows.known_study(connection, study, lock=True)
            query = sa.select(schema.codes).where(schema.codes.c.study == study, schema.codes.c.seal.is_(None))
            seals = [self._seal(connection, row) for row in connection.execute(query).all()]
            if seals:
                request_id = f"{CODES_SEALED}-{secrets.token_hex(8)}"
                draft = self._log.draft(study, None, CODES_SEALED, CODES_SEALED, {"codes": seals}, request_id)
                self._log.append_within(connection, [draft])

        self._database.write(work)

    def _seal(self, connection: Connection, row: Row[Any]) -> str:
        seal = self._key.mark("code", *CodeRow.of(row).fields)
        connection.execute(schema.codes.update().where(schema.codes.c.handle == row.handle).values(seal=seal))
        return seal

    def _code_row(self, handle: str) -> Row[Any] | None:
        query = sa.select(schema.codes).where(schema.codes.c.handle == handle)
        return self._database.read(lambda connection: connection.execute(query).one_or_none())

    def _start_session(self, connection: Connection, code: Row[Any], language: str) -> Session:
        rows.known_study(connection, code.study, lock=True)
        self._check_given_out(connection, code)
        now = self._clock()
        token = secrets.token_urlsafe(32)
        token = f"{language}{_BEFORE_TOKEN}{token}" if language else token
        session = Session(token, code.study, code.reader, iso(now + SESSION_LIFE), language)
        mac = self._mac(session.token)
        connection.execute(schema.sessions.delete().where(schema.sessions.c.expires_at <= iso(now)))
        values = {"token_mac": mac, "study": code.study, "reader": code.reader, "expires_at": session.expires_at}
        seal = self._key.mark("sign-in", mac, code.study, code.reader, session.expires_at)
        payload = {"expires_at": session.expires_at} | ({LANGUAGE: language} if language else {})
        draft = self._log.draft(code.study, code.reader, SIGNED_IN, SIGNED_IN, payload, _begins(mac))
        self._log.append_within(connection, [draft])
        connection.execute(schema.sessions.insert().values(**values, seal=seal))
        return session

    def _check_given_out(self, connection: Connection, code: Row[Any]) -> None:
        """Raises TamperedError unless the code is sealed for its owner, and the last that the log gave out to it."""
        row = CodeRow.of(code)
        given = rows.newest(connection, code.study, code.reader, [ENROLLED, SITE_COORDINATOR, CODE_RENEWED], self._key)
        if given is None or not self._key.fits(row.seal, "code", *row.fields):
            raise TamperedError("this code's owner in the database")
        expected = (given.payload or {}).get(CODE)
        if expected is None:  # given out before codes were sealed
            listed = rows.newest(connection, code.study, None, [CODES_SEALED], self._key)
            expected = row.seal if listed and row.seal in ((listed.payload or {}).get("codes") or ()) else None
        if row.seal != expected:
            raise TamperedError("this code, which was replaced by another,")

    def _mac(self, token: str) -> str:
        """The name under which a session is kept: made with the key, so that nobody else can make one for a token."""
        return self._key.mark("token", token)


def _language(token: str) -> str:
    """The language that a session was begun in: a part of its token, which is genuine as a whole or not at all."""
    return token.partition(_BEFORE_TOKEN)[0] if _BEFORE_TOKEN in token else ""


def end_access(connection: Connection, study: str, reader: str | None) -> None:
    """Removes the code and the sign-ins of a reader or, with None, of the coordinator."""
    for table in (schema.codes, schema.sessions):
        connection.execute(table.delete().where(table.c.study == study, table.c.reader.is_not_distinct_from(reader)))


def _begins(mac: str) -> str:
    """Request id of the event that begins a session: one of its kind, whoever sends it."""
    return f"{SIGNED_IN}:{mac}"


def _ends(mac: str) -> str:
    return f"{SIGNED_OUT}:{mac}"
