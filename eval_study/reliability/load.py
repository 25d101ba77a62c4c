"""Clinicians assess and readers rate at once: is anything lost, mixed up or slow, and does memory grow.

    python -m eval_study.reliability.load --minutes 30 --out eval_study/results/reliability
    python -m eval_study.reliability.load --minutes 2 --clinicians 8 --readers 10 --cases 12 --out build/load

The page and a study are processes of their own on two cores. 30 clinicians add a photo, press Assess, read the answer
for a while and begin again; every photo is one of a kind, and its hash must stand in the answer, and no other's. 50
readers go through whole sessions, from consent to the end, again and again. A page that says that it is full is honest,
not in error; it is counted. Memory is resident, of each server, once a second; growth compares the last tenth with the
tenth that follows the warm-up (the first fifth).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import psutil

from eval_study.reliability.machine import machine
from eval_study.reliability.visitor import PageBusy, PageFault, Visitor
from eval_study.trust_study import sessions
from eval_study.trust_study.serving import await_ready, free_port
from skinclip.imaging.examples import LOOKS, draw
from skinclip.imaging.photo import encode_jpeg

ROOT = Path(__file__).resolve().parents[2]
NAME = "load.json"
HASH = re.compile(r"\b[0-9a-f]{64}\b")
MOST_GROWTH = 0.05


@dataclass
class Assessed:
    """The record of all clinicians."""

    seconds: list[float] = field(default_factory=list)
    full: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    mixed_up: int = 0
    photos: set[str] = field(default_factory=set)


class PhotoMaker:
    """Photos that are each one of a kind, made quickly: a drawn lesion with another grain each time."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.drawn = [draw(look, seed + i, (640, 480)) for i, look in enumerate(LOOKS)]

    def photo(self) -> bytes:
        """A JPEG file that nobody has sent before."""
        pixels = self.drawn[int(self.rng.integers(len(self.drawn)))].astype(np.int16)
        grain = self.rng.integers(-4, 5, pixels.shape, dtype=np.int16)
        return encode_jpeg(np.clip(pixels + grain, 0, 255).astype(np.uint8), 90)


def clinician(port: int, number: int, until: float, think: float, record: Assessed) -> None:
    """One clinician until `until`, who reloads the page after an error."""
    rng, photos = random.Random(number), PhotoMaker(number)
    visitor: Visitor | None = None
    time.sleep(rng.uniform(0, think))
    while time.monotonic() < until:
        photo = photos.photo()
        code = hashlib.sha256(photo).hexdigest()
        record.photos.add(code)
        start = time.monotonic()
        try:
            visitor = visitor or Visitor("127.0.0.1", port)
            _check(visitor.assess(photo), code, record)
            record.seconds.append(time.monotonic() - start)
        except PageBusy:
            record.full += 1
        except (PageFault, OSError, KeyError, StopIteration, ValueError) as error:
            record.errors[f"{type(error).__name__}: {error}"[:200]] += 1
            visitor = None
        time.sleep(rng.uniform(0, 2 * think))


def _check(shown: str, code: str, record: Assessed) -> None:
    """The photo's own hash stands in its answer, and that of no other photo."""
    hashes = set(HASH.findall(shown))
    if code not in hashes or hashes & (record.photos - {code}):
        record.mixed_up += 1


def readers(until: float, count: int, cases: int, think: float, scratch: Path) -> list[dict[str, Any]]:
    """Whole studies one after the other until `until`."""
    done = []
    for round_ in range(10_000):
        folder = sessions.made_up_study(scratch / f"study-{round_}", cases)
        done.append(sessions.served(folder, readers=count, think=think, seed=round_))
        if time.monotonic() > until:
            return done
    return done


@contextlib.contextmanager
def served_page() -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The model's page on two cores."""
    port = free_port()
    command = [sys.executable, "app.py", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        psutil.Process(process.pid).cpu_affinity(_two_cores())
        await_ready(port, process)
        yield port, process
    finally:
        process.terminate()
        process.wait(60)


class MemoryWatch(threading.Thread):
    """Samples the resident memory of this process's servers once a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.samples: dict[str, list[tuple[float, float]]] = {"page": [], "study": []}
        self.stopped = threading.Event()

    def run(self) -> None:
        """Samples until `stopped` is set."""
        while not self.stopped.wait(1):
            for process in psutil.Process().children():
                with contextlib.suppress(psutil.Error):  # it has ended
                    self._sample(process)

    def _sample(self, process: psutil.Process) -> None:
        words = process.cmdline()
        if "app.py" in words:
            server = "study" if "--study" in words else "page"
            self.samples[server].append((time.monotonic(), process.memory_info().rss / 1e6))

    def growth(self) -> dict[str, Any]:
        """Memory of the page in MB: after the warm-up, at the end, at most, and its growth."""
        sizes = [size for _, size in self.samples["page"]]
        if len(sizes) < 10:
            return {"samples": len(sizes)}
        tenth = max(1, len(sizes) // 10)
        after, end = median(sizes[2 * tenth : 3 * tenth]), median(sizes[-tenth:])
        study = [size for _, size in self.samples["study"]] or [0.0]
        return {
            "samples": len(sizes),
            "page_mb_after_warm_up": round(after),
            "page_mb_at_the_end": round(end),
            "page_mb_at_most": round(max(sizes)),
            "page_growth": round(end / after - 1, 4),
            "study_mb_at_most": round(max(study)),
        }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """The whole measurement."""
    start, record, watch = machine(), Assessed(), MemoryWatch()
    psutil.Process().cpu_affinity(_two_cores())  # the servers inherit it
    with tempfile.TemporaryDirectory() as scratch, served_page() as (port, _), ThreadPoolExecutor(100) as pool:
        watch.start()
        until = time.monotonic() + 60 * args.minutes
        rating: Future[list[dict[str, Any]]] | None = None
        if args.readers:
            rating = pool.submit(readers, until, args.readers, args.cases, args.reader_pause, Path(scratch))
        _all_clinicians(pool, args, port, until, record)
        watch.stopped.set()
        rated = rating.result() if rating else []
    return {
        "about": start,
        "minutes": args.minutes,
        "clinicians": {"number": args.clinicians, "mean_pause_s": args.clinician_pause, **summary(record)},
        "readers": {"number": args.readers, "mean_pause_s": args.reader_pause, "rounds": rated},
        "memory": watch.growth(),
        "failures": failures(record, rated, watch.growth()),
    }


def _all_clinicians(
    pool: ThreadPoolExecutor, args: argparse.Namespace, port: int, until: float, record: Assessed
) -> None:
    pause = args.clinician_pause
    for one in [pool.submit(clinician, port, i, until, pause, record) for i in range(args.clinicians)]:
        one.result()


def _percentiles(seconds: list[float]) -> tuple[float, float]:
    """The median and the 95th percentile; NaN of fewer than two."""
    if len(seconds) < 2:
        return float("nan"), float("nan")
    times = quantiles(seconds, n=20)
    return times[9], times[18]


def summary(record: Assessed) -> dict[str, Any]:
    """The figures of the clinicians."""
    half, most = _percentiles(record.seconds)
    return {
        "assessed": len(record.seconds),
        "queue_full": record.full,
        "mixed_up": record.mixed_up,
        "errors": dict(record.errors),
        "seconds_p50": round(half, 2),
        "seconds_p95": round(most, 2),
        "seconds_at_most": round(max(record.seconds, default=float("nan")), 2),
    }


def failures(record: Assessed, rated: Sequence[dict[str, Any]], memory: dict[str, Any]) -> list[str]:
    """Sentences for what must not be; none where all held."""
    found = [f"{n} times {what}" for what, n in record.errors.items()]
    if record.mixed_up:
        found.append(f"{record.mixed_up} answers were not of their photo")
    if not record.seconds:
        found.append("nothing was assessed")
    for one in rated:
        found += [f"{one[name]} answers of readers {name}" for name in ("lost", "doubled", "misplaced") if one[name]]
        found += one["problems"]
    if memory.get("page_growth", 0) > MOST_GROWTH:
        found.append(f"memory grew by {memory['page_growth']:.1%} after the warm-up")
    return found


def _two_cores() -> list[int]:
    return sorted(psutil.Process().cpu_affinity())[:2]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clinicians", type=int, default=30)
    parser.add_argument("--clinician-pause", type=float, default=20, help="mean seconds between assessments")
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--reader-pause", type=float, default=5, help="mean seconds between submits")
    parser.add_argument("--cases", type=int, default=20, help="cases of the study")
    parser.add_argument("--out", type=Path, required=True)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and writes `load.json`; returns 1 where something failed."""
    args = _parser().parse_args(argv)
    result = measure(args)
    result["command"] = f"python -m eval_study.reliability.load {' '.join(sys.argv[1:] if argv is None else argv)}"
    args.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=2)
    (args.out / NAME).write_text(text + "\n")
    print(text)
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
