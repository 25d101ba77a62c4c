"""A hostile file ends its own process and nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from skinclip.core.paths import EXAMPLES
from skinclip.imaging import bounded, decode_worker
from skinclip.imaging.bounded import BoundedDecoder
from skinclip.imaging.photo import PhotoError, load_photo
from tests.imaging import hostile

PHOTO = sorted(EXAMPLES.glob("*.jpg"))[0].read_bytes()


@pytest.fixture
def decoder() -> Iterator[BoundedDecoder]:
    decoder = BoundedDecoder(1)
    yield decoder
    decoder.close()


def in_worker(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Workers that run this instead of the decoder, after the same limits."""
    code = f"""
import skinclip.imaging.decode_worker as w, time, os, numpy
def load_photo(data):
    {body}
w.load_photo = load_photo
w.main({bounded.MEMORY}, {bounded.CPU_SECONDS})
"""
    real = subprocess.Popen
    monkeypatch.setattr(bounded.subprocess, "Popen", lambda command, **more: real([command[0], "-c", code], **more))


def test_a_photo_is_the_same_as_decoded_here(decoder: BoundedDecoder) -> None:
    for _ in range(2):  # the second by the same process
        image, here = decoder.load(PHOTO), load_photo(PHOTO)
        assert image.sha256 == here.sha256 and np.array_equal(image.pixels, here.pixels)
    assert len(decoder._running) == 1
    decoder.close()
    assert np.array_equal(decoder.load(PHOTO).pixels, here.pixels)


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"just some text", "holds text"), (b"", "is empty"), (bytes(20_000_001), "larger than 20 MB"),
     (PHOTO[:2000], "damaged"), (hostile.many_scans(side=500), "scans, too many"),
     (hostile.png(780_000, 64, 8, 2, 3), "780,000 pixels long")],
)  # fmt: skip
def test_refusals_keep_their_words(decoder: BoundedDecoder, data: bytes, words: str) -> None:
    with pytest.raises(PhotoError, match=words):
        decoder.load(data)


def test_a_file_that_takes_too_long_is_ended_and_the_next_is_read(
    decoder: BoundedDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(bounded, "WALL_SECONDS", 3.0)
        in_worker(patch, "time.sleep(600)")
        start = time.monotonic()
        with pytest.raises(PhotoError, match="too long to decode"):
            decoder.load(PHOTO)
        assert time.monotonic() - start < 20 and not decoder._running
    assert decoder.load(PHOTO).width


def test_the_system_ends_what_computes_without_end(decoder: BoundedDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "CPU_SECONDS", 0)
    in_worker(monkeypatch, "while True: pass")
    with pytest.raises(PhotoError, match="too long to decode"):
        decoder.load(PHOTO)


def test_a_file_that_takes_too_much_memory_is_refused_in_words(
    decoder: BoundedDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "MEMORY", 300_000_000)
    for data in (hostile.deep_rgba(), hostile.one_row_strips()):
        with pytest.raises(PhotoError, match="memory to decode|damaged"):
            decoder.load(data)
    assert decoder.load(PHOTO).width  # the same process goes on


def test_a_worker_that_dies_or_lies_is_replaced(decoder: BoundedDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    for body in ("os.abort()", "os._exit(0)", "os.kill(os.getpid(), 9)"):
        with monkeypatch.context() as patch:
            in_worker(patch, body)
            with pytest.raises(PhotoError, match="too long to decode"):
                decoder.load(PHOTO)
    with monkeypatch.context() as patch:
        in_worker(patch, "os.write(1, b'x' * 100); return type('I', (), {'pixels': numpy.zeros((70, 80, 3), 'uint8')})")
        assert decoder.load(PHOTO).pixels.shape == (70, 80, 3)  # what is printed does not come between the pixels
    decoder.close()
    with monkeypatch.context() as patch:
        in_worker(patch, "return type('I', (), {'pixels': numpy.zeros((60000, 1, 3), 'uint8')})")
        with pytest.raises(PhotoError):
            decoder.load(PHOTO)
    assert decoder.load(PHOTO).width


def test_a_worker_writes_no_file(decoder: BoundedDecoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_worker(monkeypatch, f"open({str(tmp_path / 'stolen')!r}, 'wb').write(data)")
    with pytest.raises(PhotoError):
        decoder.load(PHOTO)
    assert not (tmp_path / "stolen").exists() or (tmp_path / "stolen").stat().st_size == 0


def test_stopping_waits_for_no_decoder(decoder: BoundedDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
    in_worker(monkeypatch, "time.sleep(600)")
    problems: list[str] = []

    def load() -> None:
        try:
            decoder.load(PHOTO)
        except PhotoError as problem:
            problems.append(str(problem))

    thread = threading.Thread(target=load)
    thread.start()
    while not decoder._running:
        time.sleep(0.01)
    decoder.close()
    thread.join(5)
    assert problems == [bounded.STOPPING]


def test_visitors_wait_for_a_free_worker_and_are_told_when_none_comes(
    decoder: BoundedDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "WAIT_SECONDS", 0.05)
    decoder._free.get()
    with pytest.raises(PhotoError, match="Wait a few seconds"):
        decoder.load(PHOTO)


@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death is told by Linux alone")
def test_workers_end_with_a_program_that_is_killed() -> None:
    code = (
        "import time\nfrom skinclip.imaging import bounded\n"
        f"bounded.load_photo_bounded(open({str(sorted(EXAMPLES.glob('*.jpg'))[0])!r}, 'rb').read())\n"
        "print(next(iter(bounded._DECODER._running))._process.pid, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        worker = int(program.stdout.readline())
        program.send_signal(signal.SIGKILL)
    end = time.monotonic() + 10
    while Path(f"/proc/{worker}").exists() and "zombie" not in Path(f"/proc/{worker}/status").read_text():
        assert time.monotonic() < end, "the worker outlives its program"
        time.sleep(0.05)


def test_the_words_say_what_to_do() -> None:
    for words in (bounded.TOO_LONG, bounded.BUSY, bounded.STOPPING, decode_worker.TOO_COSTLY):
        assert "again" in words or "anew" in words


def test_a_worker_outlives_its_thread_and_is_replaced_where_it_was_killed(decoder: BoundedDecoder) -> None:
    thread = threading.Thread(target=decoder.load, args=(PHOTO,))
    thread.start()
    thread.join()
    time.sleep(0.2)
    assert decoder.load(PHOTO).width
    next(iter(decoder._running))._process.kill()
    time.sleep(0.2)
    assert decoder.load(PHOTO).width
