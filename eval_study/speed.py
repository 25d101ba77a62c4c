"""How fast and how large: `python -m eval_study.speed [--photos 20] [--threads 2]`.

Prints the load time, the median time of a whole Assessment on drawn photos and what of it regions and rationale take,
that of each way to explain, photos a second in batches, peak resident memory, and how long the page takes from launch
until it is ready. Nothing here is a test: machines differ.
"""

from __future__ import annotations

import argparse
import json
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import urlopen

import torch

from skinclip.assess import Assessor
from skinclip.assessment import Context
from skinclip.examples import LOOKS, draw
from skinclip.explain.methods import METHODS, Subject
from skinclip.images import from_array

ROOT = Path(__file__).resolve().parents[1]


def page_ready() -> float:
    """Seconds from launch until the page is open, the model loaded and tried."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while time.perf_counter() - start < 120:
            try:
                urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2).close()
                return time.perf_counter() - start
            except OSError:  # nobody answers yet, or 503
                time.sleep(0.1)
        raise TimeoutError("the page was not ready within 120 s")
    finally:
        process.terminate()
        process.wait(20)


def seconds_of(made: Callable[[Any], object], photos: Sequence[Any]) -> list[float]:
    """What `made` takes for each photo."""
    times = []
    for photo in photos:
        start = time.perf_counter()
        made(photo)
        times.append(time.perf_counter() - start)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-page", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    assessor = Assessor.load("mini")
    loaded = time.perf_counter() - start
    kinds = sorted(LOOKS)
    photos = [from_array(draw(kinds[i % len(kinds)], i)) for i in range(args.photos)]
    assessor.assess(photos[0])
    times = seconds_of(lambda photo: assessor.assess(photo, Context(55, "male", "back")), photos)
    seen = seconds_of(lambda photo: assessor.see([photo], [Context(55, "male", "back")]), photos)
    subjects = [Subject.of(assessor, photo) for photo in photos]
    explained = {key: seconds_of(method.maps, subjects) for key, method in METHODS.items()}
    start = time.perf_counter()
    assessor.predict(photos, [Context()] * len(photos))
    batch = len(photos) / (time.perf_counter() - start)
    figures = {
        "load_s": round(loaded, 2),
        "assess_median_s": round(median(times), 2),
        "assess_max_s": round(max(times), 2),
        "regions_and_rationale_median_s": round(median(a - s for a, s in zip(times, seen, strict=True)), 2),
        "explained_median_s": {key: round(median(seconds), 3) for key, seconds in explained.items()},
        "predict_photos_per_s": round(batch, 1),
        "peak_resident_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "page_ready_s": None if args.no_page else round(page_ready(), 1),
        "threads": args.threads,
        "photos": args.photos,
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
