"""Readers of a study in the database: enrolled, listed and withdrawn."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from skinclip.study.catalogue.catalogue import error_text
from skinclip.study.errors import StudyClosedError, TamperedError
from skinclip.study.store import schema
from skinclip.study.store.audit_log import WITHDRAWN, Event
from skinclip.study.store.database import Database
from skinclip.study.store.event_log import EventLog
from skinclip.study.store.records import CODE, ENROLLED, Enrolment, Reader
from skinclip.study.store.rows import by_request, closed_at, events_of_kind, known_reader, known_study
from skinclip.study.store.sign_in import SignIns, end_access
from skinclip.study.store.study_key import StudyKey

Allocate = Callable[[int, str, Sequence[Mapping[str, Any]]], Mapping[str, Any]]


class ReaderRegistry:
    """The readers of all studies in a database."""

    def __init__(self, database: Database, log: EventLog, sign_ins: SignIns, key: StudyKey) -> None:
        self._database, self._log, self._sign_ins, self._key = database, log, sign_ins, key

    def enrol(self, study: str, allocation: Allocate, site: str) -> Enrolment:
        """Enrols the next reader and returns the id with the personal code, which is not kept.

        `allocation` is called inside the transaction, so that no two readers enrolled at once share a number or a seat:
        with the reader's number (1, 2, ...), the site, and what the events `enrolled` hold of those who have not
        withdrawn. What it returns is stored in the event of this reader.
        """
        request_id = f"{ENROLLED}-{secrets.token_hex(8)}"
        code, kept = self._sign_ins.new_code()

        def work(connection: Connection) -> Enrolment:
            row = known_study(connection, study, lock=True)
            if (stored := by_request(connection, study, request_id, self._key)) is not None:
                return Enrolment(str(stored.reader), str(code))  # the answer to the commit was lost on its way
            if closed_at(row, self._key) is not None:
                raise StudyClosedError(error_text("closed_to_readers", study=study))
            query = sa.select(sa.func.max(schema.readers.c.number)).where(schema.readers.c.study == study)
            number = (connection.scalar(query) or 0) + 1
            reader = f"R{number:03d}"
            connection.execute(schema.readers.insert().values(study=study, reader=reader, number=number))
            seal = self._sign_ins.keep_code(connection, study, reader, kept)
            others = [payload for event in self._enrolled(connection, study) if (payload := event.payload) is not None]
            payload = {"number": number, "site": site, "allocation": allocation(number, site, others), CODE: seal}
            self._log.append_within(
                connection, [self._log.draft(study, reader, ENROLLED, ENROLLED, payload, request_id)]
            )
            return Enrolment(reader, str(code))

        return self._database.write(work)

    def readers(self, study: str) -> list[Reader]:
        """All readers of a study by number, those who withdrew too. Raises TamperedError."""
        enrolled = {event.reader: event for event in self._log.genuine_events(study, None, [ENROLLED])}
        query = sa.select(schema.readers).where(schema.readers.c.study == study).order_by(schema.readers.c.number)
        rows = self._database.read(lambda connection: connection.execute(query).all())
        return [_reader(row, enrolled[row.reader]) for row in rows if row.reader in enrolled]

    def reader(self, study: str, reader: str) -> Reader:
        """One reader. Raises UnknownReaderError, or TamperedError where the allocation is not as it was stored."""
        row = self._database.read(lambda connection: known_reader(connection, study, reader))
        enrolled = self._log.genuine_events(study, reader, [ENROLLED])
        if not enrolled:
            raise TamperedError(f"{reader} in the table of readers")
        return _reader(row, enrolled[0])

    def withdraw(self, study: str, reader: str) -> Event:
        """Erases a reader's payloads, salts, site and code, end the sign-ins, and record that the reader withdrew.

        The log stays valid. May be called again, and should be where it raised StoreError: the answers are then out of
        the tables, but their bytes may still lie in the database's files. Copies (backups, exports) are not reached.
        """
        draft = self._log.draft(study, reader, WITHDRAWN, WITHDRAWN, {}, f"{WITHDRAWN}-{reader}")

        def work(connection: Connection) -> Event:
            known_study(connection, study, lock=True)
            if known_reader(connection, study, reader).withdrawn_at is not None:
                stored = by_request(connection, study, draft.request_id, self._key)
                assert stored is not None
                return stored
            event = self._log.append_within(connection, [draft])[0]
            _erase(connection, event)
            return event

        event = self._database.write(work)
        self._database.scrub()
        return event

    def _enrolled(self, connection: Connection, study: str) -> list[Event]:
        """The events by which readers were enrolled, in order; those of readers who withdrew are without payload."""
        return events_of_kind(connection, study, ENROLLED, self._key)


def _reader(row: Row[Any], enrolled: Event) -> Reader:
    payload = enrolled.payload or {}
    site, allocation = payload.get("site"), payload.get("allocation")
    return Reader(row.study, row.reader, row.number, site, allocation, enrolled.at, row.withdrawn_at)


def _erase(connection: Connection, withdrawn: Event) -> None:
    """Erases the payloads that a reader sent before the event `withdrawn`."""
    study, reader = withdrawn.study, withdrawn.reader
    earlier = (
        schema.events.c.study == study,
        schema.events.c.reader == reader,
        schema.events.c.sequence < withdrawn.sequence,
    )
    connection.execute(
        schema.payloads.delete().where(schema.payloads.c.event.in_(sa.select(schema.events.c.id).where(*earlier)))
    )
    this_reader = schema.readers.update().where(schema.readers.c.study == study, schema.readers.c.reader == reader)
    connection.execute(this_reader.values(withdrawn_at=withdrawn.at))
    end_access(connection, study, reader)
