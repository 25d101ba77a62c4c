from __future__ import annotations

import hmac
import secrets
import shlex
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from eval_study.trust_study import load as study_load
from skinclip.study.errors import (
    AlreadyAnsweredError,
    KeyFileError,
    RequestIdReusedError,
    SessionExpiredError,
    StoreError,
    StudyClosedError,
    TamperedError,
    TooManyAttempts,
    UnknownReaderError,
    UnknownStudyError,
    WithdrawnError,
    WrongCodeError,
    WrongKeyError,
)
from skinclip.study.store import database as database_module
from skinclip.study.store import readers, rows, schema, sign_in
from skinclip.study.store.attempts import PER_ADDRESS, PER_CODE
from skinclip.study.store.audit_log import audit, read_log, receipt_of
from skinclip.study.store.codes import Code, hash_code, new_code, parse_code, read_key
from skinclip.study.store.records import Reader
from skinclip.study.store.schema import metadata
from skinclip.study.store.store import Store
from skinclip.study.store.study_key import StudyKey

KEY = b"k" * 32
STUDY = "trust"
SECRET_WORDS = "a remark that only one reader made"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, 9, 30, 0, 125_000, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **by: float) -> None:
        self.now += timedelta(**by)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(database: str, clock: Clock) -> Iterator[Store]:
    with Store.open(database, KEY, clock=clock) as opened:
        opened.create(STUDY, {"title": "Trust"})
        yield opened


def enrol(store: Store, site: str = "Graz") -> str:
    return store.enrol(STUDY, lambda number, site, others: {"number": number}, site).reader


def answers(store: Store, reader: str, n: int) -> None:
    for number in range(1, n + 1):
        store.append(STUDY, reader, "before", f"before/C{number:03d}", {"diagnosis": "nv"}, secrets.token_hex(8))


def run_sql(store: Store, *statements: str) -> None:
    """What somebody with the database and without the key can do."""
    with store.database.writing.begin() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


# -- append


def test_events_read_back_in_order(store: Store, clock: Clock) -> None:
    reader, other = enrol(store), enrol(store, "Wien")
    event = store.append(STUDY, reader, "before", "before/C001", {"diagnosis": "mel", "confidence": 70.5}, "q1")
    clock.forward(seconds=1)
    store.append(STUDY, None, "note", "plan", {"version": 2}, "q2")
    store.append(STUDY, other, "before", "before/C001", {"diagnosis": "nv"}, "q3")
    assert (reader, other, event.sequence, event.at) == ("R001", "R002", 4, "2026-11-24T09:30:00.125Z")
    read = store.events(STUDY)
    assert [e.kind for e in read] == ["created", "enrolled", "enrolled", "before", "note", "before"]
    assert [e.sequence for e in read] == [1, 2, 3, 4, 5, 6]
    assert read[3] == event and read[3].payload == {"diagnosis": "mel", "confidence": 70.5}
    assert [e.reader for e in store.events(STUDY, kinds=["before"])] == ["R001", "R002"]
    assert [e.step for e in store.events(STUDY, "R002")] == ["enrolled", "before/C001"]
    assert (store.head(STUDY).sequence, store.head(STUDY).digest) == (6, read[-1].digest)
    assert store.verify(STUDY) == [] and store.studies() == [STUDY]


def test_retry_returns_the_stored_event(store: Store) -> None:
    reader = enrol(store)
    send = (STUDY, reader, "before", "before/C001")
    first = store.append(*send, {"diagnosis": "mel", "measured": {"seconds": 12.3}}, "q1")
    assert store.append(*send, {"diagnosis": "mel", "measured": {"seconds": 12.9}}, "q1") == first
    assert store.append(*send, {"diagnosis": "mel"}, "another request") == first
    with pytest.raises(AlreadyAnsweredError, match="first answer stands") as refused:
        store.append(*send, {"diagnosis": "nv"}, "q2")
    assert refused.value.sequence == first.sequence
    with pytest.raises(AlreadyAnsweredError):
        store.append(*send, {"diagnosis": "nv"}, "q1")
    with pytest.raises(AlreadyAnsweredError):
        store.append(STUDY, reader, "after", "before/C001", {"diagnosis": "mel"}, "q3")
    assert store.head(STUDY).sequence == first.sequence


def test_request_id_of_another_step_or_reader_is_refused(store: Store) -> None:
    reader, other = enrol(store), enrol(store)
    store.append(STUDY, reader, "before", "before/C001", {"diagnosis": "mel"}, "q1")
    for who, step in [(other, "before/C001"), (reader, "before/C002")]:
        with pytest.raises(RequestIdReusedError, match="send again"):
            store.append(STUDY, who, "before", step, {"diagnosis": "mel"}, "q1")


def test_events_that_answer_nothing_may_repeat(store: Store) -> None:
    reader = enrol(store)
    for number in range(3):
        store.append(STUDY, reader, "shown", "before/C001", {}, f"shown {number}")
    store.append(STUDY, reader, "before", "before/C001", {}, "q1")
    assert len(store.events(STUDY, reader, ["shown"])) == 3


def test_what_cannot_be_taken_is_refused_in_words(store: Store) -> None:
    reader = enrol(store)
    with pytest.raises(UnknownStudyError, match="build it first"):
        store.append("other", reader, "before", "s", {}, "q")
    with pytest.raises(UnknownStudyError):
        store.events("other")
    with pytest.raises(UnknownReaderError, match="enrol the reader first"):
        store.append(STUDY, "R009", "before", "s", {}, "q")
    with pytest.raises(UnknownReaderError, match="needs a reader"):
        store.append(STUDY, None, "before", "s", {}, "q")
    with pytest.raises(ValueError, match="the step must have 1 to 200"):
        store.append(STUDY, reader, "before", "a\x00b", {}, "q")
    with pytest.raises(ValueError, match="can be stored"):
        store.append(STUDY, reader, "before", "s", {"x": float("nan")}, "q")
    with pytest.raises(ValueError, match="made by the store alone"):
        store.append(STUDY, reader, "withdrawn", "s", {}, "q")
    assert store.head(STUDY).sequence == 2


def test_create_keeps_the_first(store: Store) -> None:
    assert store.create(STUDY, {"title": "Other"}).payload == {"title": "Trust"}
    assert store.head(STUDY).sequence == 1


def test_late_answer_is_refused_and_a_repeated_one_is_not(store: Store) -> None:
    reader = enrol(store)
    first = store.append(STUDY, reader, "before", "before/C001", {"diagnosis": "mel"}, "q1")
    assert not store.is_closed(STUDY)
    closed = store.close_study(STUDY)
    assert store.close_study(STUDY) == closed and store.is_closed(STUDY)
    with pytest.raises(StudyClosedError, match="too late"):
        store.append(STUDY, reader, "before", "before/C002", {"diagnosis": "mel"}, "q2")
    with pytest.raises(StudyClosedError, match="nobody can be enrolled"):
        enrol(store)
    assert store.append(STUDY, reader, "before", "before/C001", {"diagnosis": "mel"}, "q1") == first
    store.append(STUDY, reader, "debrief", "debrief", {}, "q3")
    store.withdraw(STUDY, reader)
    assert store.verify(STUDY) == []


# -- tampering


def wrong_fingerprint() -> str:
    return hmac.digest(b"x" * 32, b"fingerprint", "sha256").hex()


TAMPERING = {
    "edited payload": (
        ['UPDATE payloads SET body = \'{"diagnosis":"df"}\' WHERE event = 4'],
        [("payload_edited", 4)],
    ),
    "payload of another": (
        ["UPDATE payloads SET body = (SELECT body FROM payloads WHERE event = 5) WHERE event = 4"],
        [("payload_edited", 4)],
    ),
    "removed payload": (["DELETE FROM payloads WHERE event = 4"], [("payload_removed", 4)]),
    "edited reader": (["UPDATE events SET reader = 'R002' WHERE sequence = 4"], [("altered", 4)]),
    "edited time": (["UPDATE events SET at_server = '2026-11-24T09:31:00.000Z' WHERE sequence = 4"], [("altered", 4)]),
    "edited digest": (
        [f"UPDATE events SET payload_sha = '{'0' * 64}' WHERE sequence = 4"],
        [("altered", 4), ("payload_edited", 4)],
    ),
    "removed event": (["DELETE FROM payloads WHERE event = 4", "DELETE FROM events WHERE sequence = 4"], [("gap", 5)]),
    "removed and closed up": (
        [
            "DELETE FROM payloads WHERE event = 4",
            "DELETE FROM events WHERE sequence = 4",
            "UPDATE events SET sequence = 4 WHERE sequence = 5",
            "UPDATE events SET sequence = 5 WHERE sequence = 6",
            "UPDATE studies SET sequence = 5",
        ],
        [("moved", 4), ("moved", 5)],
    ),
    "swapped": (
        [
            "UPDATE events SET sequence = 99 WHERE sequence = 4",
            "UPDATE events SET sequence = 4 WHERE sequence = 5",
            "UPDATE events SET sequence = 5 WHERE sequence = 99",
        ],
        [("moved", 4), ("moved", 5)],
    ),
    "cut tail": (["DELETE FROM payloads WHERE event = 6", "DELETE FROM events WHERE sequence = 6"], [("cut_tail", 5)]),
    "inserted": (
        [
            "INSERT INTO events (id, study, sequence, reader, kind, step, request_id, answers, at_server, "
            "payload_sha, previous, digest) SELECT 99, study, 7, reader, kind, 'before/C009', 'q9', 'before/C009', "
            "at_server, payload_sha, digest, payload_sha FROM events WHERE sequence = 6",
            "INSERT INTO payloads SELECT 99, salt, body FROM payloads WHERE event = 6",
        ],
        [("altered", 7), ("payload_edited", 7), ("head", 7)],
    ),
}


@pytest.mark.parametrize("name", TAMPERING)
def test_verify_finds(store: Store, name: str) -> None:
    answers(store, enrol(store), 4)
    assert store.verify(STUDY) == []
    statements, found = TAMPERING[name]
    run_sql(store, *statements)
    problems = store.verify(STUDY)
    assert [(problem.kind, problem.sequence) for problem in problems] == found
    assert all("event" in str(problem) for problem in problems)


# Columns that no digest covers, changed by who has the database and not the key; events 3 to 6 are answers of R001.
BESIDE = {
    "reopened": (["UPDATE studies SET closed_at = NULL"], [("reopened", 8)], "it was reopened"),
    "closing moved": (["UPDATE studies SET closed_at = '2026-11-24T10:00:00.000Z'"], [("closed", 8)], "says on 2026"),
    "reader removed": (["DELETE FROM readers WHERE reader = 'R001'"], [("reader", 2)], "gone from the table"),
    "reader put in": (
        ["INSERT INTO readers (study, reader, number) VALUES ('trust', 'R009', 9)"],
        [("reader", None)],
        "no event enrolled",
    ),
    "reader renumbered": (
        ["UPDATE readers SET number = 7 WHERE reader = 'R001'"], [("reader", 2)], "as number 1, and the table",
    ),
    "withdrawal made up": (
        ["UPDATE readers SET withdrawn_at = '2026-11-24T10:00:00.000Z' WHERE reader = 'R001'"],
        [("reader", None)],
        "says that R001 withdrew on 2026-11-24T10:00:00.000Z; no event says so",
    ),
    "withdrawal taken back": (
        ["UPDATE readers SET withdrawn_at = NULL WHERE reader = 'R002'"], [("reader", 9)], "R002 has not withdrawn",
    ),
    "code of one who withdrew": (
        ["UPDATE codes SET reader = 'R002' WHERE reader = 'R001'"],
        [("access", None), ("access", None)],
        "R002 has withdrawn and still",
    ),
    "code of a stranger": (
        ["UPDATE codes SET reader = 'R009' WHERE reader = 'R001'"], [("access", None)], "R009 has a code, and no event",
    ),
    "mark of an answer removed": (
        ["UPDATE events SET answers = NULL WHERE sequence = 4"], [("answers", 4)], "not marked as the answer",
    ),
    "mark of an answer put on": (
        ["UPDATE events SET answers = 'before/C009' WHERE sequence = 2"], [("answers", 2)], "and is none",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_verify_finds_columns_that_contradict_the_events(store: Store, name: str) -> None:
    answers(store, enrol(store), 4)
    second = enrol(store)
    store.close_study(STUDY)
    store.withdraw(STUDY, second)
    assert store.verify(STUDY) == []
    statements, found, words = BESIDE[name]
    run_sql(store, *statements)
    problems = store.verify(STUDY)
    assert [(problem.kind, problem.sequence) for problem in problems] == found
    assert words in str(problems[0])


def test_a_study_that_was_reopened_with_sql_takes_nothing_and_says_why(store: Store) -> None:
    reader = enrol(store)
    closed = store.close_study(STUDY)
    run_sql(store, "UPDATE studies SET closed_at = NULL")
    for attempt in (lambda: answers(store, reader, 1), lambda: enrol(store), lambda: store.is_closed(STUDY)):
        with pytest.raises(TamperedError, match="run `study verify`"):
            attempt()
    run_sql(store, f"UPDATE studies SET closed_at = '{closed.at}'")
    assert store.verify(STUDY) == [] and store.is_closed(STUDY)


def test_what_was_stored_in_a_reopened_study_is_found_even_when_it_was_closed_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = enrol(store)
    closed = store.close_study(STUDY)
    run_sql(store, "UPDATE studies SET closed_at = NULL")
    with monkeypatch.context() as earlier:  # versions that believed the column
        earlier.setattr(rows, "closed_at", lambda row, key: None)
        earlier.setattr(readers, "closed_at", lambda row, key: None)
        answers(store, reader, 1)
        enrol(store)
    run_sql(store, f"UPDATE studies SET closed_at = '{closed.at}'")
    found = store.verify(STUDY)
    assert [(problem.kind, problem.sequence) for problem in found] == [("after_closing", 4), ("after_closing", 5)]
    assert "after the study was closed by event 3: it had been reopened" in str(found[0])


def test_a_study_that_only_the_database_calls_closed_is_found(store: Store) -> None:
    run_sql(store, "UPDATE studies SET closed_at = '2026-11-24T10:00:00.000Z'")
    assert [problem.kind for problem in store.verify(STUDY)] == ["closed"]


def test_answers_after_a_withdrawal_that_was_taken_back_are_found(store: Store) -> None:
    reader = enrol(store)
    withdrawn = store.withdraw(STUDY, reader)
    run_sql(store, "UPDATE readers SET withdrawn_at = NULL")
    answers(store, reader, 1)
    run_sql(store, f"UPDATE readers SET withdrawn_at = '{withdrawn.at}'")
    assert [problem.kind for problem in store.verify(STUDY)] == ["after_withdrawal"]


def test_a_second_answer_to_a_step_is_found(store: Store) -> None:
    reader = enrol(store)
    answers(store, reader, 1)
    run_sql(store, "UPDATE events SET answers = NULL WHERE sequence = 3")
    store.append(STUDY, reader, "before", "before/C001", {"diagnosis": "mel"}, "other")
    run_sql(store, "UPDATE events SET answers = NULL WHERE sequence = 4")
    run_sql(store, "UPDATE events SET answers = step WHERE sequence = 3")
    assert [(p.kind, p.sequence) for p in store.verify(STUDY)] == [("answers", 4), ("answers", 4)]


def test_verify_finds_a_cut_tail_by_receipts(store: Store) -> None:
    answers(store, enrol(store), 4)
    receipts = [receipt_of(event) for event in store.events(STUDY)]
    kept = store.events(STUDY)[4]
    cut = ["DELETE FROM payloads WHERE event = 6", "DELETE FROM events WHERE sequence = 6"]
    run_sql(store, *cut, f"UPDATE studies SET sequence = 5, digest = '{kept.digest}'")
    assert store.verify(STUDY, receipts[:5]) == []
    assert [p.kind for p in store.verify(STUDY, receipts)] == ["cut_tail"]
    with pytest.raises(TamperedError, match="the end of the log, which held event 6 before"):
        store.append(STUDY, "R001", "before", "before/C004", {"diagnosis": "df"}, "again")
    store.log._reached.clear()  # as after a restart of the program
    store.append(STUDY, "R001", "before", "before/C004", {"diagnosis": "df"}, "again")
    assert store.verify(STUDY) == []
    assert [(p.kind, p.sequence) for p in store.verify(STUDY, receipts)] == [("rewritten", 6)]


def test_another_key_opens_nothing_and_verifies_nothing(store: Store, database: str) -> None:
    answers(store, enrol(store), 2)
    with pytest.raises(WrongKeyError, match="key file that belongs to it"):
        Store.open(database, b"x" * 32)
    run_sql(store, f"UPDATE settings SET value = '{wrong_fingerprint()}'")
    with Store.open(database, b"x" * 32) as other:
        assert [p.kind for p in other.verify(STUDY)] == ["wrong_key"]


def test_exported_log_verifies_with_the_key_alone(store: Store, tmp_path: Path) -> None:
    answers(store, enrol(store), 3)
    head = store.export_log(STUDY, tmp_path / "log.jsonl")
    events = read_log((tmp_path / "log.jsonl").read_text().splitlines())
    assert events == store.events(STUDY)
    assert audit(STUDY, events, KEY, head=head).problems == ()


# -- readers


def test_readers_are_numbered_and_carry_their_allocation(store: Store) -> None:
    assert [enrol(store, site) for site in ("Graz", "Wien")] == ["R001", "R002"]
    assert store.reader(STUDY, "R002") == Reader(
        STUDY, "R002", 2, "Wien", {"number": 2}, "2026-11-24T09:30:00.125Z", None
    )
    assert [reader.site for reader in store.readers(STUDY)] == ["Graz", "Wien"]
    with pytest.raises(UnknownReaderError):
        store.reader(STUDY, "R003")


def test_readers_enrolled_at_once_get_different_numbers(store: Store) -> None:
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda _: enrol(store), range(12)))
    assert sorted(made) == [f"R{number:03d}" for number in range(1, 13)]
    assert store.verify(STUDY) == []


def test_withdrawal_erases_and_the_log_stays_valid(store: Store) -> None:
    leaving, staying = store.enrol(STUDY, lambda n, site, others: {"number": n}, "Graz"), enrol(store, "Wien")
    session = store.sign_in(leaving.code)
    store.append(STUDY, leaving.reader, "before", "before/C001", {"remark": SECRET_WORDS}, "q1")
    answers(store, staying, 2)
    event = store.withdraw(STUDY, leaving.reader)
    assert store.withdraw(STUDY, leaving.reader) == event
    found = store.audit(STUDY)
    assert (found.problems, found.erased) == ((), 3)
    assert [e.payload for e in store.events(STUDY, leaving.reader)] == [None, None, None, {}]
    reader = store.reader(STUDY, leaving.reader)
    assert (reader.site, reader.allocation, reader.withdrawn_at) == (None, None, event.at)
    assert [e.payload for e in store.events(STUDY, staying, ["before"])] == [{"diagnosis": "nv"}] * 2
    with pytest.raises(WrongCodeError):
        store.sign_in(leaving.code)
    with pytest.raises(SessionExpiredError):
        store.session_reader(session.token)
    with pytest.raises(WithdrawnError, match="nothing is stored"):
        store.append(STUDY, leaving.reader, "before", "before/C001", {"remark": SECRET_WORDS}, "q1")
    assert enrol(store) == "R003"


def test_payloads_removed_beside_a_withdrawal_are_found(store: Store) -> None:
    leaving, staying = enrol(store), enrol(store)
    answers(store, staying, 1)
    store.withdraw(STUDY, leaving)
    run_sql(store, "DELETE FROM payloads WHERE event = 4")
    assert [(p.kind, p.sequence) for p in store.verify(STUDY)] == [("payload_removed", 4)]


def test_answers_cannot_be_read_from_the_files_and_erased_ones_leave_them(tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"

    def bytes_on_disk() -> bytes:
        return b"".join(file.read_bytes() for file in sorted(tmp_path.iterdir()))

    with Store.open(path, KEY) as store:
        store.create(STUDY, {})
        reader = enrol(store, "Clinic of one name")
        salts: list[bytes] = []
        for number, length in enumerate([1, 40, 4000]):  # the longest spills over several pages
            payload = {"remark": SECRET_WORDS * length}
            event = store.append(STUDY, reader, "before", f"before/C{number:03d}", payload, f"q{number}")
            salts.append(event.salt or b"")
        readable = [SECRET_WORDS.encode(), b"Clinic of one name", *salts]
        assert not [needle for needle in readable if needle in bytes_on_disk()]
        with store.database.reading.begin() as connection:
            of_reader = "SELECT body FROM payloads JOIN events ON events.id = event WHERE reader = 'R001'"
            sealed = [str(body)[20:60].encode() for body in connection.scalars(sa.text(of_reader))]
        assert len(sealed) == 4 and all(text in bytes_on_disk() for text in sealed)
        store.withdraw(STUDY, reader)
        assert not [text for text in sealed if text in bytes_on_disk()]
        assert store.verify(STUDY) == []


def test_the_documented_command_clears_postgresql_s_write_ahead_log(postgresql_database: str) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "study_guide.md").read_text()
    (line,) = (line for line in guide.splitlines() if line.startswith("psql ") and "CHECKPOINT" in line)
    with Store.open(postgresql_database, KEY) as store:
        store.create(STUDY, {})
        reader = enrol(store)
        store.append(STUDY, reader, "before", "before/C001", {"remark": SECRET_WORDS * 40}, "q1")
        with store.database.reading.begin() as connection:
            body = str(connection.scalar(sa.text("SELECT body FROM payloads ORDER BY event DESC LIMIT 1")))
            wal = Path(str(connection.scalar(sa.text("SHOW data_directory")))) / "pg_wal"
        needle = body[100:200].encode()

        def holding() -> list[str]:
            return [path.name for path in wal.iterdir() if path.is_file() and needle in path.read_bytes()]

        store.withdraw(STUDY, reader)
        assert holding()  # what the guide warns of
        with store.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in shlex.split(line)[3::2]:
                connection.execute(sa.text(statement))
        deadline = time.monotonic() + 20
        while holding() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert holding() == []


def test_payloads_of_earlier_versions_lie_open_and_are_read_as_before(store: Store) -> None:
    reader = enrol(store)
    answers(store, reader, 1)
    event = store.events(STUDY)[-1]
    with store.database.writing.begin() as connection:
        connection.execute(
            sa.text("UPDATE payloads SET body = :body, salt = :salt WHERE event = 3"),
            {"body": event.body, "salt": event.salt},
        )
    assert store.events(STUDY)[-1] == event and store.verify(STUDY) == []


def test_no_column_holds_where_a_reader_sits(store: Store) -> None:
    columns = {f"{table.name}.{column.name}" for table in metadata.tables.values() for column in table.columns}
    assert not [name for name in columns if any(word in name for word in ("ip", "agent", "mail", "host", "browser"))]


# -- sign-in


def test_code_is_stored_hashed_and_signs_in_however_it_is_typed(store: Store) -> None:
    enrolment = store.enrol(STUDY, lambda *_: {}, "Graz")
    assert len(enrolment.code) == 19 and enrolment.code not in repr(enrolment)
    session = store.sign_in(enrolment.code.lower().replace("-", " ").replace("0", "o").replace("1", "l"))
    assert (session.study, session.reader, session.is_coordinator) == (STUDY, enrolment.reader, False)
    assert store.session_reader(session.token) == session
    with store.database.reading.begin() as connection:
        kept = " ".join(
            str(tuple(row)) for table in metadata.tables.values() for row in connection.execute(sa.select(table))
        )
    assert not [text for text in (parse_code(enrolment.code).secret, enrolment.code, session.token) if text in kept]
    store.sign_out(session.token)
    with pytest.raises(SessionExpiredError, match="All answers that you sent are stored"):
        store.session_reader(session.token)


def test_session_ends(store: Store, clock: Clock) -> None:
    session = store.sign_in(store.coordinator_code(STUDY))
    assert session.is_coordinator
    clock.forward(hours=11.9)
    store.session_reader(session.token)
    clock.forward(hours=0.2)
    with pytest.raises(SessionExpiredError):
        store.session_reader(session.token)
    with pytest.raises(SessionExpiredError):
        store.session_reader("never was")


def test_renewed_code_ends_the_old_one(store: Store) -> None:
    enrolment, other = store.enrol(STUDY, lambda *_: {}, "Graz"), store.enrol(STUDY, lambda *_: {}, "Graz")
    session = store.sign_in(enrolment.code)
    code = store.renew_code(STUDY, enrolment.reader)
    with pytest.raises(WrongCodeError, match="ask the coordinator"):
        store.sign_in(enrolment.code)
    with pytest.raises(SessionExpiredError):
        store.session_reader(session.token)
    assert store.sign_in(code).reader == enrolment.reader
    assert store.sign_in(other.code).reader == other.reader
    first = store.coordinator_code(STUDY)
    assert store.sign_in(store.coordinator_code(STUDY)).is_coordinator
    with pytest.raises(WrongCodeError):
        store.sign_in(first)


@pytest.mark.parametrize("typed", ["", "ABCD", "ABCD-EFGH-JKM!", "ABCD-EFGH-JKMN-PQRS", "UUUU-UUUU-UUUU"])
def test_text_that_is_no_code_is_a_wrong_code(store: Store, typed: str) -> None:
    with pytest.raises(WrongCodeError):
        store.sign_in(typed)


def guess(store: Store, handle: str, address: str = "") -> type[Exception]:
    try:
        store.sign_in(str(Code(handle, new_code().secret)), address)
    except (WrongCodeError, TooManyAttempts) as error:
        return type(error)
    raise AssertionError("a guess was right")


def test_guesses_at_one_code_are_limited_and_lock_nobody_out(store: Store, clock: Clock) -> None:
    enrolment = store.enrol(STUDY, lambda *_: {}, "Graz")
    handle = parse_code(enrolment.code).handle
    for number in range(PER_CODE):
        assert guess(store, handle, f"192.0.2.{number}") is WrongCodeError
        clock.forward(seconds=1)
    with pytest.raises(TooManyAttempts, match="in 295 seconds") as refused:
        store.sign_in(str(Code(handle, new_code().secret)), "192.0.2.99")
    assert store.sign_in(enrolment.code, "192.0.2.1").reader == enrolment.reader
    clock.forward(seconds=refused.value.seconds)
    assert guess(store, handle) is WrongCodeError


def test_guesses_at_once_are_limited_too(store: Store) -> None:
    handle = parse_code(store.enrol(STUDY, lambda *_: {}, "Graz").code).handle
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: guess(store, handle), range(16)))
    assert outcomes.count(WrongCodeError) == PER_CODE


def test_junk_from_one_address_is_limited_and_locks_nobody_out(store: Store, clock: Clock) -> None:
    code, reader = store.coordinator_code(STUDY), store.enrol(STUDY, lambda *_: {}, "Graz")
    kinds = [guess(store, new_code().handle, "2001:db8::1") for _ in range(PER_ADDRESS + 100)]
    assert kinds.count(WrongCodeError) == PER_ADDRESS
    for address in ("2001:db8::1", "2001:db8::2", "192.0.2.1", ""):
        with pytest.raises(TooManyAttempts if address.startswith("2001") else WrongCodeError):
            store.sign_in("no code", address)
        assert store.sign_in(code, address).is_coordinator
        assert store.sign_in(reader.code, address).reader == reader.reader
    clock.forward(minutes=5)
    assert guess(store, new_code().handle, "2001:db8::1") is WrongCodeError
    assert store.verify(STUDY) == []


def test_junk_costs_no_slow_hash(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = parse_code(store.enrol(STUDY, lambda *_: {}, "Graz").code).handle
    slow: list[object] = []
    monkeypatch.setattr(sign_in, "hash_code", lambda *given: slow.append(given) or bytes(32))
    for _ in range(60):
        guess(store, handle)
    assert len(slow) <= 1  # one in 65,536 gets as far as that


def test_an_earlier_code_opens_and_guesses_at_it_end_at_the_limit(store: Store) -> None:
    short = Code("ABCD", "EFGHJKMN")
    salt = secrets.token_bytes(16)
    store.enrol(STUDY, lambda *_: {}, "Graz")
    with store.database.writing.begin() as connection:
        connection.execute(schema.codes.delete())
        values = {"handle": "ABCD", "study": STUDY, "reader": None, "salt": salt, "hash": hash_code(KEY, short, salt)}
        connection.execute(schema.codes.insert().values(**values))
    with pytest.raises(TamperedError):
        store.sign_in(str(short))
    run_sql(store, "UPDATE codes SET reader = 'R001'")
    store.sign_ins.seal_earlier_codes(STUDY)
    for _ in range(PER_ADDRESS):
        guess(store, "ABCE", "192.0.2.9")
    with pytest.raises(TooManyAttempts):
        store.sign_in(str(short), "192.0.2.9")


# -- the database


def test_schema_is_what_the_migrations_make(store: Store) -> None:
    with store.database.reading.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_older_schema_is_upgraded_and_a_newer_one_refused(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(database, KEY) as older:
        older.create(STUDY, {})
        answers(older, enrol(older), 2)
    newer = tmp_path / "migrations"
    shutil.copytree(database_module.MIGRATIONS, newer, ignore=shutil.ignore_patterns("__pycache__"))
    (newer / "versions" / "v9999_next.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\nrevision, down_revision = '9999', '0002'\n"
        "def upgrade() -> None:\n    op.add_column('readers', sa.Column('group', sa.Text))\n"
    )
    with monkeypatch.context() as patch:
        patch.setattr(database_module, "MIGRATIONS", newer)
        with Store.open(database, KEY) as upgraded:
            assert upgraded.verify(STUDY) == [] and upgraded.head(STUDY).sequence == 4
            run_sql(upgraded, "UPDATE readers SET \"group\" = 'a'")
            answers(upgraded, enrol(upgraded), 1)
    with pytest.raises(StoreError, match="newer than this program"):
        Store.open(database, KEY)


def test_failed_upgrade_leaves_the_old_schema(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(database, KEY).close()
    newer = tmp_path / "migrations"
    shutil.copytree(database_module.MIGRATIONS, newer, ignore=shutil.ignore_patterns("__pycache__"))
    (newer / "versions" / "v9999_next.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\nrevision, down_revision = '9999', '0002'\n"
        "def upgrade() -> None:\n    op.create_table('half', sa.Column('a', sa.Text))\n    op.drop_table('none such')\n"
    )
    with monkeypatch.context() as patch:
        patch.setattr(database_module, "MIGRATIONS", newer)
        with pytest.raises(StoreError, match="none such"):
            Store.open(database, KEY)
    with Store.open(database, KEY) as store:
        store.create(STUDY, {})
        with store.database.reading.begin() as connection:
            assert "half" not in sa.inspect(connection).get_table_names()


def test_stores_opened_at_once_agree(database: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(lambda _: Store.open(database, KEY), range(6)))
    for number, store in enumerate(opened):
        store.create(STUDY, {})
        store.append(STUDY, None, "note", "n", {}, f"{number}")
    assert opened[0].head(STUDY).sequence == 7
    for store in opened:
        store.close()


@contextmanager
def each_connection(store: Store, pragma: str) -> Iterator[None]:
    def apply(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA {pragma}").close()

    sa.event.listen(store.database.engine, "checkout", apply)
    yield
    sa.event.remove(store.database.engine, "checkout", apply)


@pytest.mark.parametrize(
    ("harm", "remedy", "words"),
    [
        ("max_page_count=1", "max_page_count=1000000", "disk .* is full"),
        ("query_only=ON", "query_only=OFF", "cannot be written to"),
    ],
)
def test_failing_disk_loses_nothing(tmp_path: Path, harm: str, remedy: str, words: str) -> None:
    with Store.open(tmp_path / "study.sqlite", KEY) as store:
        store.create(STUDY, {})
        answers(store, enrol(store), 3)
        send = (STUDY, "R001", "before", "before/C009", {"remark": "x" * 100_000}, "q9")
        with (
            each_connection(store, harm),
            pytest.raises(StoreError, match=f"nothing was stored: .*{words}.*send again"),
        ):
            store.append(*send)
        with each_connection(store, remedy):
            assert store.head(STUDY).sequence == 5 and store.verify(STUDY) == []
            assert store.append(*send).sequence == 6 and store.verify(STUDY) == []


def test_read_only_postgresql_says_so(postgresql_database: str) -> None:
    with Store.open(postgresql_database, KEY) as store:
        store.create(STUDY, {})
        name = sa.make_url(postgresql_database).database
        run_sql(store, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        store.database.engine.dispose()
        with pytest.raises(StoreError, match="nothing was stored: .*cannot be written to"):
            store.append(STUDY, None, "note", "n", {}, "q")
        assert store.verify(STUDY) == []


def test_connections_that_postgresql_ended_are_made_anew(postgresql_database: str) -> None:
    with Store.open(postgresql_database, KEY) as store:
        store.create(STUDY, {})
        with store.database.reading.connect() as connection, suppress(sa.exc.DBAPIError):
            connection.execute(
                sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()")
            )
        assert store.append(STUDY, None, "note", "n", {}, "q").sequence == 2


def test_busy_database_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_BUSY_SECONDS", 0.05)
    monkeypatch.setattr(database_module, "_TRIES", 2)
    with Store.open(tmp_path / "study.sqlite", KEY) as store, Store.open(tmp_path / "study.sqlite", KEY) as other:
        store.create(STUDY, {})
        with other.database.writing.begin(), pytest.raises(StoreError, match="busy. Wait a moment"):
            store.append(STUDY, None, "note", "n", {}, "q1")
        monkeypatch.setattr(database_module, "_TRIES", 12)
        holding = other.database.writing.connect()
        holding.begin()
        timer = threading.Timer(0.3, holding.close)
        timer.start()
        assert store.append(STUDY, None, "note", "n", {}, "q1").sequence == 2
        timer.join()


@pytest.mark.parametrize("where", ["mysql://a/b", "://", "/no/such/folder/study.sqlite"])
def test_database_that_cannot_be_opened(where: str) -> None:
    with pytest.raises(StoreError):
        Store.open(where, KEY)


def test_url_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SKINCLIP_DATABASE_URL", raising=False)
    assert database_module.where_from_environment(tmp_path / "s.sqlite") == tmp_path / "s.sqlite"
    monkeypatch.setenv("SKINCLIP_DATABASE_URL", "postgresql://h/n")
    assert database_module.where_from_environment(tmp_path / "s.sqlite") == "postgresql://h/n"


def test_sqlite_is_set_to_keep_what_it_acknowledges(tmp_path: Path) -> None:
    with Store.open(tmp_path / "study.sqlite", KEY) as store, store.database.reading.begin() as connection:
        set_to = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
        }
        more = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("foreign_keys", "secure_delete")
        }
    assert (set_to, more) == ({"journal_mode": "wal", "synchronous": 2}, {"foreign_keys": 1, "secure_delete": 1})
    assert stat.S_IMODE((tmp_path / "study.sqlite").stat().st_mode) == 0o600


# -- many at once, and killed


def test_readers_at_once_lose_nothing(database: str) -> None:
    outcome = study_load.load(database, readers=5, cases=20)
    assert outcome["submits"] == 200
    assert (outcome["lost"], outcome["doubled"], outcome["misplaced"], outcome["problems"]) == (0, 0, 0, [])
    assert outcome["p95_ms"] < 300


def test_log_is_whole_at_every_moment_of_a_study(store: Store) -> None:
    readers = [enrol(store) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(answers, store, reader, 30) for reader in readers]
        checks = 0
        while not all(one.done() for one in writing):
            assert store.verify(STUDY) == []
            checks += 1
        for one in writing:
            one.result()
    assert checks > 3 and store.head(STUDY).sequence == 4 + 90


def test_one_answer_sent_by_many_threads_is_stored_once(store: Store) -> None:
    reader = enrol(store)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(store.append, STUDY, reader, "before", "s", {"x": 1}, f"q{i % 2}") for i in range(16)]
    assert {call.result().sequence for call in calls} == {3}
    assert store.head(STUDY).sequence == 3


def test_processes_at_once_lose_nothing(database: str, tmp_path: Path) -> None:
    children = [study_load.start_writer(database, tmp_path / f"{number}.txt", answers=10) for number in range(2)]
    assert [child.wait(120) for child in children] == [0, 0]
    with Store.open(database, study_load.KEY) as store:
        assert len(store.events(study_load.STUDY, kinds=["before"])) == 2 * study_load.WRITERS * 10
        assert store.verify(study_load.STUDY) == []


def test_killed_process_loses_nothing_it_acknowledged(database: str) -> None:
    outcome = study_load.kills(database, runs=5)
    assert outcome["problems"] == [] and outcome["acknowledged"] > 0


# -- the key file


def test_key_file_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "study.key"
    with pytest.raises(KeyFileError, match="restore it from its backup"):
        read_key(path)
    key = read_key(path, create=True)
    assert len(key) == 32 and read_key(path, create=True) == key == read_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and [p.name for p in tmp_path.iterdir()] == ["study.key"]
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_key(path)
    path.chmod(0o600)
    path.write_text("abc")
    with pytest.raises(KeyFileError, match="64 hexadecimal digits"):
        read_key(path)
    with pytest.raises(KeyFileError, match="choose another folder"):
        read_key(tmp_path / "none" / "study.key", create=True)


def test_several_events_are_stored_together_or_not_at_all(store: Store) -> None:
    reader = enrol(store)
    stored = store.append_all(STUDY, reader, [("before", "s1", {"a": 1}, "one"), ("shown", "s2", {}, "two")])
    assert [event.step for event in stored] == ["s1", "s2"]
    before = store.head(STUDY)
    with pytest.raises(AlreadyAnsweredError):
        store.append_all(STUDY, reader, [("shown", "s3", {}, "three"), ("before", "s1", {"a": 2}, "four")])
    assert store.head(STUDY) == before
    assert store.append_all(STUDY, reader, [("before", "s1", {"a": 1}, "one"), ("shown", "s2", {}, "two")]) == stored
    with pytest.raises(ValueError, match="by the store alone"):
        store.append_all(STUDY, reader, [("shown", "s4", {}, "five"), ("closed", "closed", {}, "six")])


# -- threads whose events are stored together


def _at_once(store: Store, calls: list[tuple[str, str]]) -> list[object]:
    """(reader, request id) of answers that wait for the same turn; each one's event, or the error that it got."""

    def send(reader: str, request_id: str) -> object:
        try:
            return store.append(STUDY, reader, "before", f"step {request_id}", {"x": 1}, request_id)
        except (StoreError, ValueError) as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        with store.database.turn:
            waiting = [pool.submit(send, *call) for call in calls]
            deadline = time.monotonic() + 10
            while len(store.log._waiting) < len(calls) and time.monotonic() < deadline:
                time.sleep(0.001)
        return [one.result() for one in waiting]


def test_what_is_refused_of_one_thread_does_not_stop_the_others(store: Store) -> None:
    reader = enrol(store)
    commits: list[object] = []
    sa.event.listen(store.database.engine, "commit", commits.append)
    found = _at_once(store, [(reader, "a"), ("R404", "b"), (reader, "c")])
    assert isinstance(found[1], UnknownReaderError)
    assert sorted(event.sequence for event in (found[0], found[2])) == [3, 4]
    assert len(commits) == 1  # the disk is waited for once
    assert store.verify(STUDY) == []


def test_what_breaks_the_transaction_of_many_is_stored_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, insert = enrol(store), rows.insert

    def failing(connection: sa.Connection, tails: dict[str, rows.Tail], key: StudyKey) -> None:
        if any(event.request_id == "b" for event in tails[STUDY].fresh):
            raise sa.exc.DataError("INSERT", None, Exception("a value that the database does not take"))
        insert(connection, tails, key)

    monkeypatch.setattr(rows, "insert", failing)
    found = _at_once(store, [(reader, "a"), (reader, "b"), (reader, "c")])
    assert isinstance(found[1], StoreError) and "nothing was stored" in str(found[1])
    assert {event.request_id for event in store.events(STUDY, reader, ["before"])} == {"a", "c"}
    assert store.verify(STUDY) == []


def test_the_same_answer_sent_twice_for_one_turn_is_stored_once(store: Store) -> None:
    reader = enrol(store)
    found = _at_once(store, [(reader, "a"), (reader, "a"), (reader, "b")])
    assert found[0] == found[1] and len(store.events(STUDY, reader, ["before"])) == 2
    assert store.verify(STUDY) == []
