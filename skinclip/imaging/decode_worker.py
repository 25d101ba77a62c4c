"""The process in which photos of strangers are decoded: `python -c "...decode_worker.main()"`, started by `bounded`.

It reads one file after the other from its standard input and writes its pixels, or the reason in words why there are
none, to its standard output. The system holds it to its limits of memory and of processor time; it can write no file.

    in    size of the file (8 bytes), the file
    out   status (1 byte), height and width or size of the text (4 bytes each), pixels or text
"""

from __future__ import annotations

import os
import struct
import sys
from typing import BinaryIO

from skinclip.imaging.photo import PhotoError, load_photo

HEADER_IN, HEADER_OUT = struct.Struct(">Q"), struct.Struct(">BII")
PIXELS, REFUSED = 0, 1
TOO_COSTLY = (
    "The photo takes more memory to decode than any photo should. Save it anew as JPEG, with 8 bits a channel, and "
    "smaller if it still does not fit."
)


def main(memory: int, seconds: int) -> None:
    """Decodes what comes in until the input ends, within these limits: bytes beyond what it has now, CPU seconds."""
    stdin, stdout = _own_streams()
    _limit(memory)
    while header := stdin.read(HEADER_IN.size):
        (size,) = HEADER_IN.unpack(header)
        data = stdin.read(size)
        _limit_seconds(seconds)
        _answer(stdout, data)


def _own_streams() -> tuple[BinaryIO, BinaryIO]:
    """The two pipes; whatever a library prints goes nowhere, not between the pixels and not into a log."""
    stdout = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    return sys.stdin.buffer, stdout


def _answer(stdout: BinaryIO, data: bytes) -> None:
    try:
        pixels = load_photo(data).pixels
    except PhotoError as problem:
        memory = isinstance(problem.__cause__, MemoryError)
        text = (TOO_COSTLY if memory else str(problem)).encode()
        stdout.write(HEADER_OUT.pack(REFUSED, len(text), 0) + text)
    else:
        stdout.write(HEADER_OUT.pack(PIXELS, *pixels.shape[:2]))
        stdout.write(pixels.data)
    stdout.flush()


def _limit(memory: int) -> None:
    """Limits memory, and forbids files and core dumps, which could hold photos."""
    if sys.platform != "linux":
        return
    import resource
    import signal

    pages = int(open("/proc/self/statm").read().split()[0])  # noqa: SIM115
    most = pages * os.sysconf("SC_PAGE_SIZE") + memory
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the program that waits for it


def _limit_seconds(seconds: int) -> None:
    """Ends the process once it has used so many more seconds of processor time."""
    if sys.platform != "linux":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))
