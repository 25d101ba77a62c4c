"""The data directory: where it is, that everything is pointed to it, and what becomes of uploads of a killed run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skinclip.core import paths
from skinclip.core.paths import DataDirectory, DataDirectoryError

PLACES = (  # each read by one library
    *("GRADIO_TEMP_DIR", "HF_HOME", "MPLCONFIGDIR", "TORCH_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"),
    "CUDA_CACHE_PATH",
)
PREPARED = """
import json, os, sys, tempfile
from skinclip.core import paths
kept = paths.prepare()
folder = tempfile.mkdtemp()
print(json.dumps({"kept": str(kept), "temporary": folder, "environment": dict(os.environ)}), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (paths.HOME, paths.SPACE, "XDG_CACHE_HOME", "TMPDIR", *PLACES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setattr(paths, "SPACE_STORAGE", tmp_path / "data")


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program that calls `prepare` and waits; its first line says what came of it."""
    programs: list[subprocess.Popen[str]] = []

    def started(**environment: str) -> subprocess.Popen[str]:
        command, pipe = [sys.executable, "-c", PREPARED], subprocess.PIPE
        programs.append(subprocess.Popen(command, env=os.environ | environment, stdin=pipe, stdout=pipe, text=True))
        return programs[-1]

    yield started
    for program in programs:
        if program.returncode is None:
            program.kill()
            program.communicate(timeout=20)


def said(program: subprocess.Popen[str]) -> dict:
    assert program.stdout is not None
    return json.loads(program.stdout.readline())


def end(program: subprocess.Popen[str]) -> None:
    program.communicate("", timeout=20)


def test_the_directory_named_wins(tmp_path: Path) -> None:
    named = {paths.HOME: str(tmp_path / "here"), paths.SPACE: "me/space"}
    (tmp_path / "data").mkdir()
    assert paths.data_directory(named) == DataDirectory(tmp_path / "here", tmp_path / "here" / "tmp")


def test_by_default_it_is_the_users_own() -> None:
    place = paths.data_directory({})
    assert place.kept.is_relative_to(Path(os.environ["HOME"])) and place.passing == place.kept / "tmp"


def test_on_a_space_weights_stay_where_storage_is_attached_and_photos_never_get_there(tmp_path: Path) -> None:
    assert paths.data_directory({paths.SPACE: "me/space"}) == paths.data_directory({})
    (tmp_path / "data").mkdir()
    place = paths.data_directory({paths.SPACE: "me/space"})
    assert place.kept == tmp_path / "data" / "skinclip"
    assert place.passing == paths.data_directory({}).passing
    assert paths.data_directory({}).kept != place.kept  # such a folder means nothing elsewhere


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "user_cache_path", lambda *_, **__: Path("~/.cache/skinclip"))
    with pytest.raises(DataDirectoryError, match="set SKINCLIP_HOME"):
        paths.data_directory({})


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataDirectoryError, match=r"file.*set SKINCLIP_HOME"):
        paths.prepare({paths.HOME: str(tmp_path / "file" / "below")})


def test_everything_is_pointed_below_it(tmp_path: Path, start: Start) -> None:
    program = start(SKINCLIP_HOME=str(tmp_path / "here"), XDG_CACHE_HOME="/elsewhere", TMPDIR="/elsewhere")
    answer = said(program)
    for name in (paths.HOME, "XDG_CACHE_HOME", "TMPDIR", *PLACES):
        assert Path(answer["environment"][name]).is_relative_to(tmp_path / "here"), name
    run = Path(answer["environment"]["TMPDIR"])
    assert Path(answer["temporary"]).parent == run and run.stat().st_mode & 0o777 == 0o700
    end(program)
    assert not run.exists() and not list((tmp_path / "here" / "tmp").iterdir())


def test_a_place_named_for_one_library_wins(tmp_path: Path, start: Start) -> None:
    program = start(SKINCLIP_HOME=str(tmp_path / "here"), HF_HOME="/models", GRADIO_TEMP_DIR="/tmp/uploads")
    environment = said(program)["environment"]
    end(program)
    assert (environment["HF_HOME"], environment["GRADIO_TEMP_DIR"]) == ("/models", "/tmp/uploads")


def test_uploads_of_a_killed_run_go_with_the_next_start_and_those_of_a_running_one_stay(
    tmp_path: Path, start: Start
) -> None:
    programs = [start(SKINCLIP_HOME=str(tmp_path)) for _ in range(2)]
    uploads = [Path(said(p)["temporary"]) / "photo.jpg" for p in programs]
    for upload in uploads:
        upload.write_bytes(b"a photo")
    programs[0].kill()
    programs[0].communicate(timeout=20)
    assert uploads[0].exists()
    programs.append(start(SKINCLIP_HOME=str(tmp_path)))
    said(programs[2])
    assert not uploads[0].exists() and uploads[1].exists()
    end(programs[1])
    end(programs[2])
    assert not list((tmp_path / "tmp").iterdir())


def test_servers_that_start_at_once_leave_each_other_alone(tmp_path: Path, start: Start) -> None:
    programs = [start(SKINCLIP_HOME=str(tmp_path)) for _ in range(6)]
    assert all(Path(said(program)["temporary"]).is_dir() for program in programs)


def test_a_user_without_an_account_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under `docker run --user 12345`, where HOME may be missing too."""

    def missing(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", missing)
    for name in ("HOME", "XDG_CACHE_HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    for environment in ({}, {paths.HOME: "~/data"}, {paths.HOME: "~nobody-at-all/data"}):
        with pytest.raises(paths.DataDirectoryError, match=f"set {paths.HOME} to a folder"):
            paths.data_directory(environment)
    with pytest.raises(paths.DataDirectoryError, match="no home directory"):
        paths.without_tilde(Path("~/models"))
    environment = {}
    paths.name_user(environment)
    assert environment == {"USER": f"uid-{os.getuid()}"}


def test_a_user_with_a_name_keeps_it() -> None:
    environment = {"LOGNAME": "ada"}
    paths.name_user(environment)
    assert environment == {"LOGNAME": "ada"}
