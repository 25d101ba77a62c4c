"""Rows of the event log: the statements of every submit, and events to rows and back.

Statements are built once: building them anew would cost as much as running them. Payloads are sealed on their way into
the database and opened on their way out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from skinclip.study.catalogue.catalogue import error_text
from skinclip.study.errors import TamperedError, UnknownReaderError, UnknownStudyError, WithdrawnError
from skinclip.study.store import schema
from skinclip.study.store.audit_log import Event, Head, is_genuine
from skinclip.study.store.codes import SALT_BYTES
from skinclip.study.store.consistency import CodeRow, Columns, ReaderRow, SessionRow
from skinclip.study.store.database import NOTES
from skinclip.study.store.records import ANSWERING, CLOSED, is_site_coordinator
from skinclip.study.store.study_key import SEALED, StudyKey

EVENT_COLUMNS = sa.select(schema.events, schema.payloads.c.salt, schema.payloads.c.body).select_from(
    schema.events.outerjoin(schema.payloads, schema.payloads.c.event == schema.events.c.id)
)
_OF_STUDY = schema.events.c.study == sa.bindparam("study")
# A study is closed by its event, which the key seals; the column beside it is anyone's who can write to the database.
_closing = schema.events.alias("closing")
CLOSING_COLUMNS = tuple(column.label(f"closing_{column.name}") for column in _closing.c)
WITH_CLOSING = schema.studies.outerjoin(
    _closing, sa.and_(_closing.c.study == schema.studies.c.study, _closing.c.request_id == CLOSED)
)
_FIND_STUDY = (
    sa.select(schema.studies, *CLOSING_COLUMNS)
    .select_from(WITH_CLOSING)
    .where(schema.studies.c.study == sa.bindparam("study"))
)
_LOCK_STUDY = _FIND_STUDY.with_for_update(of=schema.studies)
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
FIND_REPEATED = EVENT_COLUMNS.where(
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


@dataclass
class Tail:
    """The end of a study's log within a transaction that holds its row, and the events that are to be written."""

    head: Head
    closed: bool
    fresh: list[Event] = field(default_factory=list)


# -- events -----------------------------------------------------------------------------------------------------------


def event_of(row: Row[Any], key: StudyKey) -> Event:
    """The event of a row, its payload opened. A payload that does not open is left as it lies, and fits no digest."""
    body, salt = row.body, row.salt
    if body is not None and body.startswith(SEALED):
        data = key.unseal(body, _place(row.study, row.request_id))
        body, salt = (body, b"") if data is None else (data[SALT_BYTES:].decode(), data[:SALT_BYTES])
    fields = (row.study, row.sequence, row.reader, row.kind, row.step, row.request_id, row.at_server)
    return Event(*fields, row.payload_sha, row.previous, row.digest, body, salt)


def genuine_event(row: Row[Any], key: StudyKey) -> Event:
    """As `event_of`. Raises TamperedError where the event was changed, or put in without the key."""
    event = event_of(row, key)
    if not is_genuine(event, key.raw):
        raise TamperedError(f"event {event.sequence} of the log")
    return event


def insert(connection: Connection, tails: Mapping[str, Tail], key: StudyKey) -> None:
    """Writes the new events of each study with their payloads, and moves its head to the last."""
    for study, tail in tails.items():
        if not tail.fresh:
            continue
        rows = [{**_columns(event), "at_server": event.at, "answers": answered(event)} for event in tail.fresh]
        connection.execute(_INSERT_EVENT, [{k: v for k, v in row.items() if k != "at"} for row in rows])
        bodies = [
            {"study": study, "place": e.sequence, "salt": b"", "body": _sealed_payload(e, key)} for e in tail.fresh
        ]
        connection.execute(_INSERT_PAYLOAD, bodies)
        moved = {"of_study": study, "place": tail.head.sequence, "seal": tail.head.digest}
        connection.execute(_MOVE_HEAD, moved)
        connection.info.setdefault(NOTES, {})[study] = tail.head


def _sealed_payload(event: Event, key: StudyKey) -> str:
    assert event.body is not None and event.salt is not None
    return key.seal(event.salt + event.body.encode(), _place(event.study, event.request_id))


def _place(study: str, request_id: str) -> str:
    """What a sealed payload is bound to: it opens nowhere else."""
    return f"{study}\n{request_id}"


def _columns(event: Event) -> dict[str, Any]:
    """An event's fields but for its payload."""
    names = ("study", "sequence", "reader", "kind", "step", "request_id", "at", "payload_sha", "previous", "digest")
    return {name: getattr(event, name) for name in names}


def answered(event: Event) -> str | None:
    """The step that the event answers, None where it answers none."""
    return event.step if event.kind in ANSWERING else None


def by_request(connection: Connection, study: str, request_id: str, key: StudyKey) -> Event | None:
    """The event of a request id; None where there is none."""
    query = EVENT_COLUMNS.where(schema.events.c.study == study, schema.events.c.request_id == request_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else event_of(row, key)


def candidates(connection: Connection, drafts: Sequence[Event], key: StudyKey) -> list[Event]:
    """The stored events that share a request id, or an answered step, with one of `drafts`."""
    steps = [step for draft in drafts if (step := answered(draft)) is not None]
    wanted = {"study": drafts[0].study, "reader": drafts[0].reader, "steps": steps}
    rows = connection.execute(FIND_REPEATED, {**wanted, "requests": [draft.request_id for draft in drafts]})
    return [event_of(row, key) for row in rows]


def newest(
    connection: Connection, study: str, reader: str | None, kinds: Collection[str], key: StudyKey
) -> Event | None:
    """The last event of some kinds of a reader or, with None, of the study. Raises TamperedError."""
    query = EVENT_COLUMNS.where(
        schema.events.c.study == study,
        schema.events.c.reader.is_not_distinct_from(reader),
        schema.events.c.kind.in_(sorted(kinds)),
    ).order_by(schema.events.c.sequence.desc())
    row = connection.execute(query.limit(1)).one_or_none()
    return None if row is None else genuine_event(row, key)


def events_of_kind(connection: Connection, study: str, kind: str, key: StudyKey) -> list[Event]:
    """All events of a kind, in order. Raises TamperedError."""
    query = EVENT_COLUMNS.where(schema.events.c.study == study, schema.events.c.kind == kind)
    return [genuine_event(row, key) for row in connection.execute(query.order_by(schema.events.c.sequence))]


# -- studies and readers ----------------------------------------------------------------------------------------------


def known_study(connection: Connection, study: str, *, lock: bool = False) -> Row[Any]:
    """The study's row. `lock` holds it to the end of the transaction: who has it takes the next sequence.

    Raises UnknownStudyError.
    """
    row = connection.execute(_LOCK_STUDY if lock else _FIND_STUDY, {"study": study}).one_or_none()
    if row is None:
        raise UnknownStudyError(f"there is no study {study!r} in this database; build it first")
    return row


def closed_at(row: Row[Any], key: StudyKey) -> str | None:
    """Time at which the study of a row with `CLOSING_COLUMNS` was closed, by its sealed event; None while it is open.

    Raises TamperedError where the column beside it says otherwise: a study is neither closed nor opened by SQL.
    """
    if row.closing_id is None and row.closed_at is None:
        return None
    fields = {column.name: getattr(row, f"closing_{column.name}") for column in _closing.c}
    if row.closing_id is None:
        raise TamperedError("the mark that the study is closed, for no event says so,")
    names = (
        "study",
        "sequence",
        "reader",
        "kind",
        "step",
        "request_id",
        "at_server",
        "payload_sha",
        "previous",
        "digest",
    )
    event = Event(*[fields[name] for name in names])
    if event.kind != CLOSED or not is_genuine(event, key.raw) or row.closed_at != event.at:
        raise TamperedError("the mark that the study is closed")
    return event.at


def known_reader(connection: Connection, study: str, reader: str) -> Row[Any]:
    """The reader's row. Raises UnknownReaderError."""
    row = connection.execute(_FIND_READER, {"study": study, "reader": reader}).one_or_none()
    if row is None:
        raise UnknownReaderError(f"the study {study} has no reader {reader!r}; enrol the reader first")
    return row


def may_still_send(connection: Connection, study: str, reader: str | None) -> None:
    """Raises unless the reader, if there is one, is enrolled and has not withdrawn."""
    if (
        reader is not None
        and not is_site_coordinator(reader)
        and known_reader(connection, study, reader).withdrawn_at is not None
    ):
        raise WithdrawnError(error_text("withdrawn"))


def columns_beside(connection: Connection, study: Row[Any]) -> Columns:
    """The columns of a study beside its sealed events."""
    of = {
        table: table.c.study == study.study for table in (schema.events, schema.readers, schema.codes, schema.sessions)
    }
    readers = connection.execute(sa.select(schema.readers).where(of[schema.readers]).order_by(schema.readers.c.number))
    answers = connection.execute(sa.select(schema.events.c.sequence, schema.events.c.answers).where(of[schema.events]))
    codes = connection.execute(sa.select(schema.codes).where(of[schema.codes]))
    sessions = connection.execute(sa.select(schema.sessions).where(of[schema.sessions]))
    return Columns(
        closed_at=study.closed_at,
        readers=tuple(ReaderRow(row.reader, row.number, row.withdrawn_at) for row in readers),
        answers={row.sequence: row.answers for row in answers},
        codes=tuple(CodeRow.of(row) for row in codes),
        sessions=tuple(SessionRow.of(row) for row in sessions),
    )
