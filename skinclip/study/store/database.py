"""The database of the study store: SQLite (WAL, synchronous=FULL) or PostgreSQL, its schema, and its transactions.

A transaction is tried again where another one was in the way, and what fails for good is reported in words for the
person who waits for it. Nothing here knows what the tables mean.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from skinclip.study.errors import StoreError

URL_VARIABLE = "SKINCLIP_DATABASE_URL"
NOTES = "notes"  # entry of `Connection.info`: what `on_commit` gets of a transaction
MIGRATIONS = Path(__file__).parent / "migrations"

PATIENCE = 7.0  # seconds after which nothing is tried again: with the last try, a caller knows within 10
_BUSY_SECONDS = 2.0  # how long a transaction waits for a lock
_TRIES = 6
_MIGRATION_LOCK = 7_260_321  # PostgreSQL advisory lock: one process migrates, the others wait
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_PG_LOCKED = {"40001", "40P01", "55P03", "57P01", "57P03"}  # serialization, deadlock, lock, restart of the server
_FULL = "the disk that holds the study is full. Free some space"
_READ_ONLY = "the database cannot be written to. Have its files or rights put right"
LOCKED = (
    f"nothing was stored: another program has held the database for more than {PATIENCE:.0f} seconds. The coordinator "
    "ends it (a database browser, a copying or backup program, a second copy of this page that hangs); then send "
    "again. What was stored before is safe."
)
GONE = (
    "nothing was stored: the database's file is gone, or another lies in its place. The coordinator puts it back where "
    "it was, or starts the page again where it was replaced on purpose (a restored backup); then send again. What was "
    "stored before is in the file that was taken away."
)
_SQLITE_FAULTS = {sqlite3.SQLITE_FULL: _FULL, sqlite3.SQLITE_READONLY: _READ_ONLY, sqlite3.SQLITE_CANTOPEN: _READ_ONLY}
_PG_FAULTS = {"53100": _FULL, "25006": _READ_ONLY, "42501": _READ_ONLY}

T = TypeVar("T")
OnCommit = Callable[[dict[Any, Any]], None]


def where_from_environment(default: Path) -> str | Path:
    """The database's URL from SKINCLIP_DATABASE_URL, or the SQLite file `default`."""
    return os.environ.get(URL_VARIABLE) or default


class Database:
    """An open database. Safe for threads; several processes may open the same one.

    Attributes:
        on_commit: Called with what a transaction noted about itself (`Connection.info[NOTES]`) once it is on disk.
        turn: Held by the thread that writes. Threads that wait here are let in at once, those that poll SQLite's file
            are not; and who holds a study's row on PostgreSQL need not compete for the interpreter with those who wait.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.on_commit: OnCommit = lambda notes: None
        self.writing = engine.execution_options(writing=True)
        # What is read in one transaction is of one moment: of itself on SQLite, by request on PostgreSQL.
        self.reading = engine if _is_sqlite(engine) else engine.execution_options(isolation_level="REPEATABLE READ")
        self.turn = threading.Lock()

    @classmethod
    def open(cls, where: str | Path) -> Database:
        """Opens or makes the database at a path (SQLite) or URL, and brings its schema up to date.

        Raises StoreError where that fails.
        """
        database = cls(_engine(where))
        try:
            database.write(_migrate)
        except BaseException:
            database.close()
            raise
        return database

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()

    def read(self, work: Callable[[Connection], T]) -> T:
        """The result of `work`, run in one transaction that only reads."""
        return self._run(self.reading, work)

    def write(self, work: Callable[[Connection], T]) -> T:
        """The result of `work`, run in one transaction that may write, after those of other threads."""
        return self._run(self.writing, work, self.turn)

    def write_in_turn(self, work: Callable[[Connection], T], deadline: float | None = None) -> T:
        """As `write`, for a thread that holds `turn` already."""
        return self._run(self.writing, work, deadline=deadline)

    def _run(
        self,
        engine: Engine,
        work: Callable[[Connection], T],
        turn: threading.Lock | None = None,
        deadline: float | None = None,
    ) -> T:
        """What `work` returns, run in one transaction; tried again where others are in the way, until `deadline`.

        Raises StoreError where the database fails; what `work` raises itself passes through, rolled back.
        """
        until = time.monotonic() + PATIENCE if deadline is None else deadline
        for attempt in range(1, _TRIES + 1):
            try:
                with _taken(turn, until), engine.begin() as connection:
                    connection.info.pop(NOTES, None)
                    result = work(connection)
                    notes = connection.info.pop(NOTES, None)
            except SQLAlchemyError as error:
                late = time.monotonic() > until
                if late or attempt == _TRIES or not is_transient(error):
                    raise StoreError(_words(error, late)) from error
            else:
                if notes:
                    self.on_commit(notes)
                return result
            time.sleep(random.uniform(0.5, 1.0) * 0.01 * 2**attempt)
        raise AssertionError("the last try returned or raised")

    def scrub(self) -> None:
        """Removes erased bytes from the files: empties SQLite's log, writes PostgreSQL's tables of secrets anew."""
        if not _is_sqlite(self.engine):
            self._run(self.engine.execution_options(isolation_level="AUTOCOMMIT"), _rewrite_payloads)
            return
        with self.turn:
            connection = self.engine.raw_connection()
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


@contextmanager
def _taken(turn: threading.Lock | None, until: float) -> Iterator[None]:
    """Holds `turn`, if there is one. Raises StoreError where it cannot be had in time."""
    if turn is None:
        yield
        return
    if not turn.acquire(timeout=max(0.0, until - time.monotonic())):
        raise StoreError(LOCKED)
    try:
        yield
    finally:
        turn.release()


def _rewrite_payloads(connection: Connection) -> None:
    for table in ("payloads", "codes"):
        connection.execute(sa.text(f"VACUUM FULL {table}"))


def _is_sqlite(engine: Engine) -> bool:
    return engine.dialect.name == "sqlite"


def _engine(where: str | Path) -> Engine:
    """An engine for SQLite or PostgreSQL. Raises StoreError where `where` names neither."""
    url = _url(where)
    if url.get_backend_name() == "sqlite":
        _create_private(url.database)
        engine = sa.create_engine(
            url,
            pool_size=10,
            max_overflow=40,
            pool_timeout=_BUSY_SECONDS,
            hide_parameters=True,
            connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
        )
        check = _file_check(Path(url.database or "").absolute())
        sa.event.listen(engine, "do_connect", lambda *_: check())  # or SQLite would begin a new file
        sa.event.listen(engine, "connect", _set_up_sqlite)
        sa.event.listen(engine, "begin", lambda _: check())
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    options = f"-c lock_timeout={int(_BUSY_SECONDS * 1000)} -c synchronous_commit=on"
    limits = {"connect_timeout": 3, "tcp_user_timeout": int(PATIENCE * 1000)}  # a server that has gone silent
    # A submit needs a connection for milliseconds: with more of them threads only fight for the interpreter.
    return sa.create_engine(
        url,
        pool_size=5,
        max_overflow=5,
        pool_timeout=_BUSY_SECONDS,
        hide_parameters=True,
        connect_args={"options": options, **limits},
    )


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
    """Makes the file, if it is missing, such that only its owner can read it. SQLite's side files follow its mode."""
    try:
        os.close(os.open(path or "", os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreError(
            f"{path}: the database cannot be opened ({error.strerror}); choose a folder you can write to"
        ) from error


def _file_check(path: Path) -> Callable[[], None]:
    """A check that the file which is open still lies at its path.

    SQLite writes on into a file that was deleted or moved away, and so would acknowledge what nobody finds again.
    """
    opened = path.stat().st_ino

    def check() -> None:
        try:
            same = path.stat().st_ino == opened
        except OSError:
            same = False
        if not same:
            raise StoreError(GONE)

    return check


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says, not at the first INSERT
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """Takes the write lock at the start: one that is only asked for at the first write can be refused half-way."""
    writing = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _migrate(connection: Connection) -> None:
    """Brings the schema up to date, whole or not at all. Raises StoreError where it is newer than this program."""
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


def is_transient(error: SQLAlchemyError) -> bool:
    """True where trying again may help: another transaction was in the way, or the connection broke."""
    if isinstance(error, PoolTimeout | IntegrityError):  # two made the same row at once; the next try finds it
        return True
    if not isinstance(error, DBAPIError):
        return False
    return error.connection_invalidated or _sqlite_code(error) in _LOCKED or _pg_state(error) in _PG_LOCKED


def _words(error: SQLAlchemyError, late: bool = False) -> str:
    """What went wrong and what to do; `late` where it was tried until nobody should wait any longer."""
    if late and isinstance(error, DBAPIError) and (_sqlite_code(error) in _LOCKED or _pg_state(error) in _PG_LOCKED):
        return LOCKED
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return "the connection to the database broke. Send again: what was stored is not stored twice."
    reason = (
        "the database is busy. Wait a moment"
        if is_transient(error)
        else f"the database failed ({_cause(error)}). Tell the coordinator"
    )
    if isinstance(error, DBAPIError):
        reason = _SQLITE_FAULTS.get(_sqlite_code(error), _PG_FAULTS.get(_pg_state(error), reason))
    return f"nothing was stored: {reason}, then send again. What was stored before is safe."


def _cause(error: SQLAlchemyError) -> str:
    """The database's own first line, without the statement and the values in it, which are for nobody's page."""
    words = str(error.orig) if isinstance(error, DBAPIError) else type(error).__name__
    return next(iter(words.splitlines()), type(error).__name__)


def _sqlite_code(error: DBAPIError) -> int:
    """SQLite's primary result code, 0 where the error is another database's."""
    return int(getattr(error.orig, "sqlite_errorcode", 0)) & 0xFF


def _pg_state(error: DBAPIError) -> str:
    """PostgreSQL's SQLSTATE, empty where the error is another database's."""
    return str(getattr(error.orig, "sqlstate", "") or "")
