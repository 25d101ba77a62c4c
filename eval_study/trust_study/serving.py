"""The page in a process of its own, for the measurements that visit it."""

from __future__ import annotations

import socket
import subprocess
import time
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

WAIT_SECONDS = 120


def free_port() -> int:
    """A port of this computer that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def await_ready(port: int, process: subprocess.Popen[Any], seconds: float = WAIT_SECONDS) -> None:
    """Returns once the page is open, not only the port: until then every address of the page answers 503.

    Raises RuntimeError where the process ends, TimeoutError where the page is not ready in `seconds`.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError("app.py ended before its page was open; start it by hand to see why")
        try:
            urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2).close()
            return
        except HTTPError as answer:  # 503 while the page is being opened
            answer.close()
        except OSError:  # nobody listens yet
            pass
        time.sleep(0.1)
    raise TimeoutError(f"the page was not ready within {seconds:.0f} s")
