"""Bounded decoding: photos of strangers are decoded in processes that can be ended, never in the one that serves.

A small file can ask for minutes of work and gigabytes of memory, and no check of headers foresees every way. Here a
file that takes too much ends its own process and is refused in words; the next photo gets a new one. Few are decoded at
once.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import queue
import selectors
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from skinclip.imaging.decode_worker import HEADER_IN, HEADER_OUT, PIXELS
from skinclip.imaging.photo import MAX_FILE_MB, MAX_MEGAPIXELS, MAX_SIDE, LesionImage, PhotoError, load_photo

CPU_SECONDS = 15  # sound photos of 50 megapixels take up to 6, by their format
WALL_SECONDS = 40.0  # on a machine that is busy
MEMORY = 900_000_000  # bytes beyond what the worker has when it starts; 50 megapixels as RGB are 150 MB
AT_ONCE = 2
WAIT_SECONDS = 30.0  # for a free worker
TOO_LONG = "The photo takes too long to decode, as files do that are damaged or made to. Save it anew as JPEG."
STOPPING = "The server is stopping. Try again in a moment."
BUSY = "Other photos are being read at this moment. Wait a few seconds and try again."
_PACKAGE_PARENT = str(Path(__file__).parents[2])


class _Ended(Exception):
    """The worker has ended or has been ended."""


class _Worker:
    """One process."""

    def __init__(self) -> None:
        code = f"from skinclip.imaging.decode_worker import main; main({MEMORY}, {CPU_SECONDS})"
        path = os.pathsep.join(filter(None, [_PACKAGE_PARENT, os.environ.get("PYTHONPATH")]))
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        environment = {**os.environ, **one, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0
        )

    def decode(self, data: bytes) -> LesionImage:
        """The photo. Raises PhotoError, or _Ended where the worker is no more."""
        try:
            return self._decode(data)
        except PhotoError:
            raise
        except (OSError, ValueError):  # its pipes were closed: the program is stopping
            raise _Ended from None

    def _decode(self, data: bytes) -> LesionImage:
        until = time.monotonic() + WALL_SECONDS
        self._send(HEADER_IN.pack(len(data)) + data, until)
        status, height, width = HEADER_OUT.unpack(self._receive(HEADER_OUT.size, until))
        if status != PIXELS:
            raise PhotoError(bytes(self._receive(min(height, 10_000), until)).decode("utf-8", "replace"))
        if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE and height * width <= MAX_MEGAPIXELS * 1_000_000):
            raise _Ended
        pixels = np.frombuffer(self._receive(height * width * 3, until), np.uint8).reshape(height, width, 3)
        return LesionImage(pixels, hashlib.sha256(data).hexdigest())

    @property
    def has_ended(self) -> bool:
        """True where the process is no more, as after the system killed it while it waited."""
        return self._process.poll() is not None

    def end(self) -> None:
        """Ends the process at once; whoever reads from it finds the end of its output."""
        self._process.kill()
        self._process.wait()

    def close_pipes(self) -> None:
        """Closes the pipes of a process that has ended; not while another thread waits for them."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _send(self, data: bytes, until: float) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        os.set_blocking(pipe.fileno(), False)
        left = memoryview(data)
        while left:
            self._wait(pipe.fileno(), selectors.EVENT_WRITE, until)
            try:
                left = left[os.write(pipe.fileno(), left[: 1 << 20]) :]
            except BlockingIOError:
                continue
            except OSError:
                raise _Ended from None

    def _receive(self, size: int, until: float) -> bytearray:
        pipe = self._process.stdout
        assert pipe is not None
        data = bytearray(size)
        left = memoryview(data)
        while left:
            self._wait(pipe.fileno(), selectors.EVENT_READ, until)
            count = pipe.readinto(left)  # type: ignore[attr-defined]
            if not count:
                raise _Ended
            left = left[count:]
        return data

    def _wait(self, descriptor: int, event: int, until: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, event)
            if not selector.select(max(0.0, until - time.monotonic())):
                raise _Ended


class BoundedDecoder:
    """Decodes photos in at most `AT_ONCE` processes, which are started when they are first needed."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._free: queue.LifoQueue[_Worker | None] = queue.LifoQueue()  # the worker used last is warm
        for _ in range(at_once):
            self._free.put(None)
        self._running: set[_Worker] = set()
        self._lock = threading.Lock()
        atexit.register(self.close)

    def load(self, data: bytes) -> LesionImage:
        """Decodes the bytes of a photo file within limits of time and memory. Raises PhotoError."""
        if not data or len(data) > MAX_FILE_MB * 1_000_000:
            return load_photo(data)  # which refuses it without decoding
        try:
            worker = self._free.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            raise PhotoError(BUSY) from None
        kept = None
        try:
            if worker is not None and worker.has_ended:
                self._end(worker)
                worker.close_pipes()
                worker = None
            worker = worker or self._started()
            image = worker.decode(data)
        except PhotoError:
            kept = worker
            raise
        except _Ended:
            raise PhotoError(TOO_LONG if worker in self._running else STOPPING) from None
        else:
            kept = worker
            return image
        finally:
            if kept is None and worker is not None:
                self._end(worker)
                worker.close_pipes()
            self._free.put(kept)

    def close(self) -> None:
        """Ends all workers; a photo that is being decoded is refused. Another photo starts a worker again."""
        with self._lock:
            running = list(self._running)
        for worker in running:
            self._end(worker)
        idle: list[_Worker | None] = []
        with contextlib.suppress(queue.Empty):
            while True:
                idle.append(self._free.get_nowait())
        for worker in filter(None, idle):
            worker.close_pipes()
        for _ in idle:
            self._free.put(None)

    def _started(self) -> _Worker:
        worker = _Worker()
        with self._lock:
            self._running.add(worker)
        return worker

    def _end(self, worker: _Worker) -> None:
        with self._lock:
            known = worker in self._running
            self._running.discard(worker)
        if known:
            worker.end()


_DECODER = BoundedDecoder()


def load_photo_bounded(data: bytes) -> LesionImage:
    """A photo, from the bytes of its file, decoded in a process of its own. Raises PhotoError."""
    return _DECODER.load(data)


def end_decoding() -> None:
    """Ends the processes: whoever waits for a photo is refused, so that the program can stop at once."""
    _DECODER.close()
