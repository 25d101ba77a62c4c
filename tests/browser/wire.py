"""A relay between browser and server that keeps every byte of both directions, and can lose an acknowledgement."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress


class Wire:
    """Listens on `port` and passes everything on to `server`, nothing of it packed.

    Attributes:
        seen: all that went through, either way.
        lose_next: the answer to the next request that holds these bytes is lost.
    """

    def __init__(self, server: int) -> None:
        self.server = server
        self.seen = bytearray()
        self.lose_next = b""
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        for end in list(self._ends):
            _shut(end)
        for thread in list(self._threads):
            thread.join(5)
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                browser, _ = self._listener.accept()
                self._ends.append(browser)
                try:
                    server = socket.create_connection(("127.0.0.1", self.server))
                except OSError:  # as without this relay: nobody listens
                    _shut(browser)
                    continue
                self._ends.append(server)
                self._relay(browser, server)

    def _relay(self, browser: socket.socket, server: socket.socket) -> None:
        lost = threading.Event()
        for work in (self._ask, self._answer):
            thread = threading.Thread(target=work, args=(browser, server, lost), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _ask(self, browser: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while data := browser.recv(1 << 16):
                data = re.sub(rb"(?i)(?<=\naccept-encoding: )[^\r]+", lambda m: b"identity".ljust(len(m[0])), data)
                with self._lock:
                    self.seen += data
                    if self.lose_next and self.lose_next in data:
                        self.lose_next = b""
                        lost.set()
                server.sendall(data)
        _shut(browser, server)

    def _answer(self, browser: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if lost.is_set():
                    break  # the server has answered, and the browser is never told
                with self._lock:
                    self.seen += data
                browser.sendall(data)
        _shut(browser, server)


def _shut(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
