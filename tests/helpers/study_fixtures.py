"""The default study, the same with its ethics fields filled in for tests alone, and databases for the store's tests.

Each test that asks for `database` runs on SQLite and on a real PostgreSQL.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from skinclip.core.paths import TRUST_STUDY
from skinclip.study.protocol.protocol import Ethics, Protocol
from tests.study import tiny


@pytest.fixture(scope="session")
def trust_study() -> Protocol:
    return Protocol.read(TRUST_STUDY)


@pytest.fixture(scope="session")
def filled_study(trust_study: Protocol) -> Protocol:
    """A study in which readers could be enrolled; every word of its ethics fields says that it is a test."""
    words = {f.name: f"for tests only: {f.name}" for f in dataclasses.fields(Ethics)}
    return dataclasses.replace(trust_study, ethics=Ethics(**words))


@pytest.fixture(scope="session")
def tiny_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_photos(tmp_path_factory.mktemp("study") / "photos")


@pytest.fixture(scope="session")
def built_study(tmp_path_factory: pytest.TempPathFactory, tiny_photos: Path) -> Path:
    """A tiny study as `study build` makes it, by the embedded model; tests copy it."""
    from skinclip.pipeline.assessor import Assessor
    from skinclip.study import build as study_build

    folder = tmp_path_factory.mktemp("built")
    protocol = tiny.write_protocol(folder / "protocol.yaml")
    return study_build.build(protocol, tiny_photos, Assessor.load(), out=folder / "study").folder


@pytest.fixture
def study_folder(built_study: Path, tmp_path: Path) -> Path:
    """A copy of the tiny study, nobody enrolled yet."""
    return Path(shutil.copytree(built_study, tmp_path / "study"))


_NUMBERS = itertools.count(1)


def _binaries() -> Path | None:
    """The folder of PostgreSQL's programs: that of `initdb` on the path, or the newest of Debian's."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    return debian[-1] if debian else None


def _other_user() -> dict[str, object]:
    """The server refuses root: Popen's arguments for the user it runs as, none where we are not root."""
    if os.getuid() != 0:
        return {}
    names = [user.pw_name for user in pwd.getpwall()]
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Path]:
    """The socket folder of a server that only this machine's processes reach, gone with the session."""
    programs = _binaries()
    if programs is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is missing; .ci/postgres installs it")
        pytest.skip("PostgreSQL is missing: sudo apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="skinclip-pg-"))
    user = _other_user()
    if user:
        os.chown(folder, int(str(user["user"])), int(str(user["group"])))
    log = folder.with_suffix(".log")
    try:
        with open(log, "wb") as output:
            common = {"stdout": output, "stderr": subprocess.STDOUT, "stdin": subprocess.DEVNULL, "cwd": "/", **user}
            initdb = [
                str(programs / "initdb"),
                "-D",
                str(folder / "data"),
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
            ]
            subprocess.run([*initdb, "--no-sync", "--no-locale"], check=True, timeout=120, **common)
            server = [
                str(programs / "postgres"),
                "-D",
                str(folder / "data"),
                "-k",
                str(folder),
                "-c",
                "listen_addresses=",
            ]
            process = subprocess.Popen(server, **common)
        try:
            _await_server(folder, process, log)
            yield folder
        finally:
            process.terminate()
            process.wait(60)
    finally:
        shutil.rmtree(folder)
        log.unlink()


def _await_server(folder: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            psycopg.connect(host=str(folder), user="postgres", dbname="postgres").close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise RuntimeError(f"PostgreSQL does not start:\n{log.read_text()[-2000:]}")


@pytest.fixture
def postgresql_database(postgresql_server: Path) -> Iterator[str]:
    """URL of an empty database on PostgreSQL."""
    name = f"study_{next(_NUMBERS)}"
    with psycopg.connect(
        host=str(postgresql_server), user="postgres", dbname="postgres", autocommit=True
    ) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"postgresql://postgres@/{name}?host={postgresql_server}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database, once of each kind."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql_database"))
    return f"sqlite:///{tmp_path}/study.sqlite"
