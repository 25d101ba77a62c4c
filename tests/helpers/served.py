"""The page in a process of its own, for the tests that visit it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from eval_study.trust_study.serving import free_port

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Served:
    url: str
    process: subprocess.Popen[bytes]


def health(url: str) -> tuple[int, dict[str, Any]]:
    """Status and body of the health answer. Raises OSError where nobody listens."""
    try:
        with urlopen(f"{url}/healthz", timeout=10) as reply:
            return reply.status, json.load(reply)
    except HTTPError as answer:
        with answer:
            return answer.code, json.load(answer)


def await_status(
    url: str, process: subprocess.Popen[Any], status: str = "ready", seconds: float = 120
) -> dict[str, Any]:
    """The health answer once it has that status; fails where it gets another for good, or none in time."""
    end = time.monotonic() + seconds
    answer: dict[str, Any] = {}
    while time.monotonic() < end:
        assert process.poll() is None, "the page did not start"
        try:
            answer = health(url)[1]
        except OSError:
            answer = {}
        if answer.get("status") == status:
            return answer
        assert answer.get("status") in (None, "loading"), answer
        time.sleep(0.2)
    raise AssertionError(f"the page was not {status} in {seconds} s: {answer}")


@contextmanager
def running(
    command: Sequence[str], port: int, environment: Mapping[str, str] | None = None, root: Path = ROOT
) -> Iterator[Served]:
    """A page in a process of its own, which `command` (without the Python in front) starts on `port`."""
    process = subprocess.Popen([sys.executable, *command], cwd=root, env=os.environ | dict(environment or {}))
    try:
        yield Served(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def serving(*arguments: str, environment: Mapping[str, str] | None = None, root: Path = ROOT) -> Iterator[Served]:
    """`python app.py` with these arguments, on a port of its own unless they name one."""
    port = free_port()
    with running(["app.py", "--port", str(port), *arguments], port, environment, root) as served:
        yield served
