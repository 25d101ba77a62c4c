"""The store of a study's answers, the only package that knows SQL: log, sign-in and readers over one database.

One SQLite file or PostgreSQL, by URL. Payloads lie apart from events and are erased when a reader withdraws.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from skinclip.study.errors import WrongKeyError
from skinclip.study.store import schema
from skinclip.study.store.audit_log import Audit, Event, Head, Problem
from skinclip.study.store.database import URL_VARIABLE, Database, where_from_environment
from skinclip.study.store.event_log import MEASURED, Entry, EventLog
from skinclip.study.store.readers import Allocate, ReaderRegistry
from skinclip.study.store.records import Enrolment, Reader, Session, SessionSnapshot
from skinclip.study.store.sign_in import SignIns
from skinclip.study.store.study_key import StudyKey

__all__ = ["MEASURED", "URL_VARIABLE", "Allocate", "Entry", "Store", "utc_now", "where_from_environment"]


def utc_now() -> datetime:
    """The system's time."""
    return datetime.now(UTC)


class Store:
    """An open database of studies. Safe for threads; several processes may open the same database.

    Attributes:
        log: Events: appended, read, audited, exported.
        key: The key that seals events and payloads.
        sign_ins: Codes and sessions.
        registry: Readers: enrolled, listed, withdrawn.
    """

    def __init__(
        self,
        database: Database,
        key: bytes,
        clock: Callable[[], datetime] = utc_now,
        on_heads: Callable[[Mapping[str, Head]], None] | None = None,
    ) -> None:
        self.database = database
        self._on_heads = on_heads
        self.key = StudyKey(key)
        self.log = EventLog(database, self.key, clock)
        self.sign_ins = SignIns(database, self.log, self.key, clock)
        self.registry = ReaderRegistry(database, self.log, self.sign_ins, self.key)
        database.on_commit = self._committed

    @classmethod
    def open(
        cls,
        where: str | Path,
        key: bytes,
        *,
        clock: Callable[[], datetime] = utc_now,
        on_heads: Callable[[Mapping[str, Head]], None] | None = None,
    ) -> Self:
        """Opens or makes the database at a path (SQLite) or URL, and brings its schema up to date.

        `on_heads` gets the new head of each study that a transaction wrote to, once that is on disk.

        Raises StoreError where that fails, WrongKeyError where the database belongs to another key.
        """
        database = Database.open(where)
        try:
            database.write(lambda connection: _check_key(connection, key))
        except BaseException:
            database.close()
            raise
        return cls(database, key, clock, on_heads)

    def _committed(self, heads: dict[str, Head]) -> None:
        self.log.note_heads(heads)
        if self._on_heads is not None:
            self._on_heads(heads)

    def close(self) -> None:
        """Closes the database."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- the log: see EventLog ----------------------------------------------------------------------------------------

    def create(self, study: str, payload: Mapping[str, Any]) -> Event:
        """See `EventLog.create`."""
        return self.log.create(study, payload)

    def append(
        self, study: str, reader: str | None, kind: str, step: str, payload: Mapping[str, Any], request_id: str
    ) -> Event:
        """See `EventLog.append`."""
        return self.log.append(study, reader, kind, step, payload, request_id)

    def append_all(self, study: str, reader: str | None, entries: Iterable[Entry]) -> list[Event]:
        """See `EventLog.append_all`."""
        return self.log.append_all(study, reader, entries)

    def events(self, study: str, reader: str | None = None, kinds: Collection[str] | None = None) -> list[Event]:
        """See `EventLog.events`."""
        return self.log.events(study, reader, kinds)

    def head(self, study: str) -> Head:
        """See `EventLog.head`."""
        return self.log.head(study)

    def studies(self) -> list[str]:
        """See `EventLog.studies`."""
        return self.log.studies()

    def audit(self, study: str, receipts: Iterable[str] = ()) -> Audit:
        """See `EventLog.audit`."""
        return self.log.audit(study, receipts)

    def verify(self, study: str, receipts: Iterable[str] = ()) -> list[Problem]:
        """See `EventLog.verify`."""
        return self.log.verify(study, receipts)

    def export_log(self, study: str, path: Path) -> Head:
        """See `EventLog.export_log`."""
        return self.log.export_log(study, path)

    def close_study(self, study: str) -> Event:
        """See `EventLog.close_study`."""
        return self.log.close_study(study)

    def is_closed(self, study: str) -> bool:
        """See `EventLog.is_closed`."""
        return self.log.is_closed(study)

    # -- readers: see ReaderRegistry ----------------------------------------------------------------------------------

    def enrol(self, study: str, allocation: Allocate, site: str) -> Enrolment:
        """See `ReaderRegistry.enrol`."""
        return self.registry.enrol(study, allocation, site)

    def readers(self, study: str) -> list[Reader]:
        """See `ReaderRegistry.readers`."""
        return self.registry.readers(study)

    def reader(self, study: str, reader: str) -> Reader:
        """See `ReaderRegistry.reader`."""
        return self.registry.reader(study, reader)

    def withdraw(self, study: str, reader: str) -> Event:
        """See `ReaderRegistry.withdraw`."""
        return self.registry.withdraw(study, reader)

    # -- sign-in: see SignIns -----------------------------------------------------------------------------------------

    def renew_code(self, study: str, reader: str) -> str:
        """See `SignIns.renew_code`."""
        return self.sign_ins.renew_code(study, reader)

    def coordinator_code(self, study: str) -> str:
        """See `SignIns.coordinator_code`."""
        return self.sign_ins.coordinator_code(study)

    def site_coordinator_code(self, study: str, site: str, is_same: Callable[[str, str], bool]) -> str:
        """See `SignIns.site_coordinator_code`."""
        return self.sign_ins.site_coordinator_code(study, site, is_same)

    def sign_in(self, typed: str, address: str = "", language: str = "") -> Session:
        """See `SignIns.sign_in`."""
        return self.sign_ins.sign_in(typed, address, language)

    def sign_out(self, token: str) -> None:
        """See `SignIns.sign_out`."""
        self.sign_ins.sign_out(token)

    def session_reader(self, token: str) -> Session:
        """See `SignIns.session_reader`."""
        return self.sign_ins.session_reader(token)

    def session_snapshot(self, token: str, kinds: Collection[str], since: Callable[[str], int]) -> SessionSnapshot:
        """See `SignIns.session_snapshot`."""
        return self.sign_ins.session_snapshot(token, kinds, since)


def _check_key(connection: Connection, key: bytes) -> None:
    """Holds the key against the fingerprint of the one that the database was made with."""
    fingerprint = hmac.digest(key, b"fingerprint", "sha256").hex()
    query = sa.select(schema.settings.c.value).where(schema.settings.c.name == "key").with_for_update()
    stored = connection.scalar(query)
    if stored is None:
        connection.execute(schema.settings.insert().values(name="key", value=fingerprint))
    elif not hmac.compare_digest(stored, fingerprint):
        raise WrongKeyError("the database was made with another key; give the key file that belongs to it")
