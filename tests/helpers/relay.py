"""A relay before a server's Unix socket, which can be cut: the server is gone for those behind it, and comes back."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


class Relay:
    """Passes bytes between a socket at `path` and one at `target`.

    Attributes:
        answer: takes each piece that the server sends; what it returns is passed on, None cuts the connection.
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.path, self._target = path, target
        self.answer: Callable[[bytes], bytes | None] = lambda data: data
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listening: socket.socket | None = None
        self.mend()

    def mend(self) -> None:
        """Listens (again)."""
        self.path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self.path))
        self._listening.listen(64)
        self._start(self._accept, self._listening)

    def cut(self) -> None:
        """Ends all connections and takes no more."""
        listening, self._listening = self._listening, None
        if listening is not None:
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        self.path.unlink(missing_ok=True)
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cuts for good."""
        self.cut()
        for thread in self._threads:
            thread.join(10)
        for one in self._sockets:
            one.close()

    def _start(self, work: Callable[..., None], *args: Any) -> None:
        self._threads.append(threading.Thread(target=work, args=args, daemon=True))
        self._threads[-1].start()

    def _accept(self, listening: socket.socket) -> None:
        while self._listening is listening:
            try:
                near = listening.accept()[0]
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(str(self._target))
            self._sockets += [near, far]
            for source, sink, change in ((near, far, lambda data: data), (far, near, lambda data: self.answer(data))):
                self._start(self._pass, source, sink, change)

    def _pass(self, source: socket.socket, sink: socket.socket, change: Callable[[bytes], bytes | None]) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                passed = change(data)
                if passed is None:
                    break
                sink.sendall(passed)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
