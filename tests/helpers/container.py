"""What a container engine makes of the Dockerfile, as far as it can be made without one.

The command runs as a user without rights in a file system that is read-only but for the data directory and a scratch
folder, on nothing but the files that the image copies. Where the system gives no namespaces, only the files are so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dockerfile_parse import DockerfileParser

from eval_study.trust_study.serving import free_port
from tests.helpers.served import ROOT

UID = 10001
# Every attempt to write is noted, whether it succeeds or not: one absolute path a line.
SPY = """
import os, sys
fd = int(os.environ["WRITES_FD"])
writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
changing = {"os.mkdir": 1, "os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.link": 2, "os.symlink": 2,
            "os.truncate": 1, "os.chmod": 1, "sqlite3.connect": 1}
def note(event, args):
    count = changing.get(event, 0)
    if event == "open" and not isinstance(args[0], int) and args[2] & writing:
        count = 1
    for path in args[:count]:
        if not isinstance(path, int):
            try:
                os.write(fd, os.path.abspath(os.fsencode(path)) + b"\\n")
            except OSError:  # a process without the descriptor: one that decodes photos, and can write no file
                pass
sys.addaudithook(note)
"""
# $1: data, $2: scratch; the rest is the command
READ_ONLY = """
set -e
for place in "$1" "$2"; do mount --bind "$place" "$place"; done
mount -o remount,bind,ro /
shift 2
exec unshare --user --map-user={uid} --map-group={uid} -- "$@"
"""


@dataclass(frozen=True)
class Instruction:
    name: str
    value: str
    stage: int  # from 0


def instructions() -> list[Instruction]:
    """Those of the Dockerfile, in order, comments left out."""
    found: list[Instruction] = []
    stage = -1
    for entry in DockerfileParser(str(ROOT)).structure:
        stage += entry["instruction"] == "FROM"
        if entry["instruction"] != "COMMENT":
            found.append(Instruction(entry["instruction"], entry["value"], stage))
    return found


def last(name: str) -> str:
    """The value of the instruction that counts in the image."""
    return [i.value for i in instructions() if i.name == name][-1]


def environment() -> dict[str, str]:
    """The image's variables."""
    return dict(DockerfileParser(str(ROOT)).envs)


def copied() -> list[str]:
    """What is copied out of the project's folder, by its path there."""
    copies = [i.value.split() for i in instructions() if i.name == "COPY" and not i.value.startswith("--from")]
    return [source for *sources, _ in copies for source in sources]


def health_check() -> list[str]:
    return json.loads(last("HEALTHCHECK").partition(" CMD ")[2])


@dataclass(frozen=True)
class Container:
    url: str
    process: subprocess.Popen[bytes]
    data: Path
    scratch: Path
    program: Path  # the folder it runs in
    isolated: bool
    variables: dict[str, str]
    attempts: Path

    def healthy(self) -> bool:
        """What the image's health check says."""
        command = [sys.executable, *health_check()[1:]]
        return not subprocess.run(command, env=self.variables, timeout=30, stderr=subprocess.DEVNULL).returncode

    def strays(self) -> list[str]:
        """Where it tried to write outside the data directory and the scratch folder."""
        written = [Path(line) for line in self.attempts.read_text().splitlines()]
        allowed = (self.data, self.scratch, Path("/dev"))
        assert written, "nothing was noted, not even a temporary file"
        return sorted({str(path) for path in written if not any(path.is_relative_to(place) for place in allowed)})


@contextmanager
def running(folder: Path) -> Iterator[Container]:
    """The image's command on the image's files; `folder` takes the place of the container's file system."""
    data, scratch, program, spy = (folder / name for name in ("data", "tmp", "app", "spy"))
    for place in (data, scratch, program, spy):
        place.mkdir()
    for source in copied():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, program / source, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(ROOT / source, program / source)
    (spy / "sitecustomize.py").write_text(SPY)
    port, attempts = free_port(), folder / "writes"
    replaced = {"/data": str(data), "/tmp": str(scratch)}
    variables = {name: _moved(value, replaced) for name, value in environment().items()} | {
        "SKINCLIP_HOST": "127.0.0.1",
        "SKINCLIP_PORT": str(port),
        "HOME": "/nonexistent",
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(spy),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
    }
    command = [sys.executable, *json.loads(last("CMD"))[1:]]
    isolated = _namespaces()
    if isolated:
        inner = READ_ONLY.format(uid=UID)
        command = [*_NEW, "sh", "-c", inner, "sh", str(data), str(scratch), *command]
    with attempts.open("ab") as noted:
        process = subprocess.Popen(
            command, cwd=program, env=variables | {"WRITES_FD": str(noted.fileno())}, pass_fds=[noted.fileno()]
        )
    try:
        yield Container(
            f"http://127.0.0.1:{port}",
            process,
            data,
            scratch,
            program,
            isolated,
            variables | {"PYTHONPATH": ""},
            attempts,
        )
    finally:
        process.terminate()
        process.wait(30)


_NEW = ["unshare", "--user", "--map-root-user", "--mount"]


def _namespaces() -> bool:
    """Whether this system lets this user have a file system of its own that is read-only."""
    if shutil.which("unshare") is None:
        return False
    trial = [*_NEW, "sh", "-c", "mount -o remount,bind,ro / && unshare --user --map-user=1 true"]
    return not subprocess.run(trial, capture_output=True, timeout=30).returncode


def _moved(value: str, places: dict[str, str]) -> str:
    for place, here in places.items():
        if value == place or value.startswith(f"{place}/"):
            return here + value[len(place) :]
    return value
