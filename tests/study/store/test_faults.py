"""Faults of a study's database while it runs: each is told, nothing acknowledged is lost, and it goes on after."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from skinclip.study.errors import SessionExpiredError, StoreError, TooManyAttempts, WrongCodeError
from skinclip.study.store import database as database_module
from skinclip.study.store.attempts import PER_CODE, WINDOW
from skinclip.study.store.codes import new_code
from skinclip.study.store.sign_in import SESSION_LIFE
from skinclip.study.store.store import Store
from tests.helpers.relay import Relay

KEY, STUDY = b"k" * 32, "trust"
SECRET = "what only one reader wrote"


def send(store: Store, number: int, request_id: str = "") -> int:
    """Stores one answer; returns its sequence."""
    payload = {"remark": SECRET, "number": number}
    step = f"before/C{number:03d}"
    return store.append(STUDY, "R001", "before", step, payload, request_id or secrets.token_hex(8)).sequence


def begin(store: Store) -> str:
    """A study with one reader, whose code is returned."""
    store.create(STUDY, {"title": "Trust"})
    return store.enrol(STUDY, lambda number, site, others: {"number": number}, "Graz").code


def numbers(store: Store) -> list[int]:
    return [event.payload["number"] for event in store.events(STUDY, kinds=["before"]) if event.payload]


# --- the file of SQLite ------------------------------------------------------------------------------------------


def taken_away(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replaced(path: Path) -> None:
    """By a copy, as a program that synchronises folders leaves it."""
    path.rename(path.with_name("elsewhere"))
    shutil.copy(path.with_name("elsewhere"), path)


def folder_gone(path: Path) -> None:
    path.parent.rename(path.parent.with_name("folder_elsewhere"))


@pytest.mark.parametrize("harm", [taken_away, replaced, folder_gone])
def test_a_file_that_is_gone_takes_no_answer_and_goes_on_when_it_is_back(tmp_path: Path, harm) -> None:
    """SQLite itself writes on into a deleted file, and acknowledges what nobody finds again."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "store.sqlite"
    with Store.open(path, KEY) as store:
        begin(store)
        send(store, 1)
        harm(path)
        for _ in range(2):
            with pytest.raises(StoreError, match="nothing was stored: the database's file is gone"):
                send(store, 2, "q2")
        assert harm is replaced or not path.exists()  # no new one was begun in its place
        if harm is folder_gone:
            folder.with_name("folder_elsewhere").rename(folder)
        else:
            path.with_name("elsewhere").replace(path)
        send(store, 2, "q2")
        assert numbers(store) == [1, 2] and store.verify(STUDY) == []
    with Store.open(path, KEY) as store:
        assert numbers(store) == [1, 2] and store.verify(STUDY) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_IOERR, "disk I/O error"),
        (sqlite3.SQLITE_CORRUPT, "malformed"),
        (sqlite3.SQLITE_FULL, "disk that holds the study is full"),
        (sqlite3.SQLITE_READONLY, "cannot be written to"),
    ],
)
def test_a_fault_of_the_disk_is_told_without_statement_or_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    with Store.open(tmp_path / "store.sqlite", KEY) as store:
        begin(store)

        def failing(connection, cursor, statement, parameters, context, many) -> None:
            if statement.startswith("INSERT"):
                fault = sqlite3.OperationalError({10: "disk I/O error", 11: "malformed"}.get(code, "fault"))
                fault.sqlite_errorcode = code
                raise sa.exc.OperationalError(statement, {"answer": SECRET, **dict(enumerate(parameters))}, fault)

        sa.event.listen(store.database.engine, "before_cursor_execute", failing)
        with pytest.raises(StoreError, match=words) as told:
            send(store, 1, "q1")
        assert str(told.value).startswith("nothing was stored") and "INSERT" not in str(told.value)
        assert SECRET not in str(told.value) and len(str(told.value)) < 300
        sa.event.remove(store.database.engine, "before_cursor_execute", failing)
        send(store, 1, "q1")
        assert numbers(store) == [1] and store.verify(STUDY) == []


@pytest.mark.skipif(os.geteuid() != 0 or not os.access("/dev/full", os.W_OK), reason="needs a disk of its own")
def test_a_disk_that_is_really_full_loses_nothing(tmp_path: Path) -> None:
    """On a file system of a few hundred kilobytes, filled to the last byte and emptied again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=600k tmpfs {disk} 2>/dev/null"):
        pytest.skip("this system mounts nothing")
    try:
        with Store.open(disk / "store.sqlite", KEY) as store:
            begin(store)
            stored = 0
            (disk / "ballast").write_bytes(b"x" * 100_000)
            with pytest.raises(StoreError, match=r"nothing was stored: .*full"):
                for number in range(1, 2000):
                    send(store, number, f"q{number}")
                    stored = number
            assert 0 < stored < 2000 and numbers(store) == list(range(1, stored + 1)) and store.verify(STUDY) == []
            (disk / "ballast").unlink()
            send(store, stored + 1, f"q{stored + 1}")
            assert numbers(store) == list(range(1, stored + 2)) and store.verify(STUDY) == []
    finally:
        os.system(f"umount {disk}")


# --- PostgreSQL, gone and back -----------------------------------------------------------------------------------


@pytest.fixture
def relay(postgresql_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Relay, str]]:
    """A relay before the server, and the database's URL through it."""
    url = sa.make_url(postgresql_database)
    folder = tmp_path_factory.mktemp("pg")
    between = Relay(folder / ".s.PGSQL.5432", Path(str(url.query["host"])) / ".s.PGSQL.5432")
    yield between, url.set(query={"host": str(folder)}).render_as_string(False)
    between.close()


def test_a_database_that_is_gone_is_told_and_goes_on_when_it_is_back(
    relay: tuple[Relay, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "PATIENCE", 1.0)
    between, url = relay
    with Store.open(url, KEY) as store:
        begin(store)
        send(store, 1)
        for number in (2, 3):
            between.cut()
            with pytest.raises(StoreError, match="send again|Send again") as told:
                send(store, number, f"q{number}")
            assert "psycopg" not in str(told.value) and "SELECT" not in str(told.value)
            between.mend()
            send(store, number, f"q{number}")
        assert numbers(store) == [1, 2, 3] and store.verify(STUDY) == []


def test_an_acknowledgement_that_was_lost_on_the_way_is_given_again(relay: tuple[Relay, str]) -> None:
    """The network breaks after the commit: it is stored, nobody knows, and the same request stores it once."""
    between, url = relay
    with Store.open(url, KEY) as store:
        begin(store)
        lost = 0

        def lose(data: bytes) -> bytes | None:
            nonlocal lost
            if b"COMMIT" in data and lost < 2:
                lost += 1
                return None
            return data

        between.answer = lose
        send(store, 1, "q1")
        between.answer = lambda data: data
        send(store, 1, "q1")
        assert lost == 2 and numbers(store) == [1] and store.verify(STUDY) == []


# --- clocks --------------------------------------------------------------------------------------------------------


class JumpingClock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


YEAR = timedelta(days=365)


@pytest.mark.parametrize("jump", [YEAR, -YEAR, timedelta(hours=2), -timedelta(hours=2)])
def test_a_clock_that_jumps_and_comes_back_keeps_nobody_out(database: str, jump: timedelta) -> None:
    clock = JumpingClock()
    with Store.open(database, KEY, clock=clock) as store:
        code = begin(store)
        send(store, 1)
        clock.now += jump
        wrong = str(new_code())
        wrong = code[:4] + wrong[4:] if code[:4] != wrong[:4] else wrong
        for _ in range(PER_CODE + 2):
            with pytest.raises((WrongCodeError, TooManyAttempts)):
                store.sign_in(wrong)
        token = store.sign_in(code).token
        send(store, 2)
        clock.now -= jump
        for _ in range(PER_CODE + 2):  # no wait is longer than the window, whatever the clock said before
            with pytest.raises((WrongCodeError, TooManyAttempts)) as told:
                store.sign_in(wrong)
            assert getattr(told.value, "seconds", 0) <= WINDOW.total_seconds()
        again = store.sign_in(code).token
        assert store.session_reader(again).reader == "R001"
        if jump > SESSION_LIFE:  # a session that a clock ahead began ends with that clock
            with pytest.raises(SessionExpiredError):
                store.session_reader(token)
        send(store, 3)
        assert numbers(store) == [1, 2, 3] and store.verify(STUDY) == []


def test_a_small_step_back_ends_no_session(tmp_path: Path) -> None:
    clock = JumpingClock()
    with Store.open(tmp_path / "store.sqlite", KEY, clock=clock) as store:
        token = store.sign_in(begin(store)).token
        clock.now -= timedelta(minutes=10)
        assert store.session_reader(token).reader == "R001"
