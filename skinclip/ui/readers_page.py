"""The readers' page as a process of its own, started and stopped from the set-up page on this computer."""

from __future__ import annotations

import atexit
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from skinclip.study.errors import StudyRequestError

START_SECONDS = 120.0
END_SECONDS = 10.0
FIRST_PORT, TRIED = 7871, 50
HOST = "127.0.0.1"


def command(folder: Path, port: int | None = None) -> list[str]:
    """The command that serves a study, for this computer alone."""
    options = [] if port is None else ["--host", HOST, "--port", str(port)]
    return ["python", "-m", "skinclip", "run", "--study", str(folder), *options]


class ReadersPages:
    """The readers' pages that were started, by the folder of their study; all end with this program."""

    def __init__(self) -> None:
        self._running: dict[Path, tuple[subprocess.Popen[bytes], str]] = {}
        self._lock = threading.Lock()
        atexit.register(self.stop_all)

    def url(self, folder: Path) -> str | None:
        """The address of a page that runs; None otherwise."""
        process, url = self._running.get(folder, (None, ""))
        return url if process is not None and process.poll() is None else None

    def start(self, folder: Path) -> str:
        """Starts the page and waits until it answers; returns its address. Raises StudyRequestError."""
        with self._lock:
            running = self.url(folder)
            if running:
                return running
            port = _free_port()
            started = [sys.executable, *command(folder, port)[1:]]
            process = subprocess.Popen(started, stdin=subprocess.DEVNULL, start_new_session=True)
            url = f"http://{HOST}:{port}/"
            self._running[folder] = (process, url)
        _await_ready(url, process)
        return url

    def stop(self, folder: Path) -> None:
        """Stops the page; confirmed answers are on disk."""
        with self._lock:
            process, _ = self._running.pop(folder, (None, ""))
        if process is not None:
            _end(process)

    def stop_all(self) -> None:
        """Stops every page."""
        for folder in list(self._running):
            self.stop(folder)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    for port in range(FIRST_PORT, FIRST_PORT + TRIED):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((HOST, port))
            except OSError:
                continue
            return port
    raise StudyRequestError(f"no port from {FIRST_PORT} to {FIRST_PORT + TRIED - 1} is free; stop another server")


def _await_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urlopen(f"{url}healthz", timeout=5) as reply:
                if json.load(reply).get("ready"):
                    return
        except (HTTPError, URLError, OSError, ValueError):
            pass
        time.sleep(0.3)
    _end(process)
    raise StudyRequestError("the readers' page did not start; the terminal says why")
