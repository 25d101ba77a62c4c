"""Throughput of `skinclip screen` against its workers, and what a million and a billion photos would take on paper.

    python -m eval_study.reliability.screening --photos 120 --workers 1 2 --out eval_study/results/reliability

Drawn photos of 1024 x 768 are screened by this command's own process and by Ray workers. The rate counts from the end
of each run's first part to that of its last: starting processes and loading the model is reported apart. The paper part
multiplies the rate of one worker; what a core costs is an assumption that `--core-hour` sets.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from eval_study.reliability.machine import machine
from skinclip.imaging.examples import LOOKS, draw
from skinclip.imaging.photo import encode_jpeg

SIZE = (1024, 768)
NAME = "screening.json"
VOLUMES = (1_000_000, 1_000_000_000)


def write_photos(folder: Path, count: int) -> Path:
    """Draws photos, writes their manifest and returns its path."""
    looks = list(LOOKS)
    names = [f"photo_{i:05d}.jpg" for i in range(count)]
    for i, name in enumerate(names):
        (folder / name).write_bytes(encode_jpeg(draw(looks[i % len(looks)], i, SIZE)))
    manifest = folder / "photos.csv"
    manifest.write_text("image,age\n" + "".join(f"{name},{20 + i % 60}\n" for i, name in enumerate(names)))
    return manifest


def measure(manifest: Path, out: Path, part: int, options: Sequence[str]) -> dict[str, Any]:
    """Screens once and returns its rate, seconds and bytes. Raises RuntimeError where the command fails."""
    words = ["screen", "--manifest", str(manifest), "--out", str(out), "--part", str(part), *options]
    began = time.time()
    done = subprocess.run([sys.executable, "-m", "skinclip", *words], capture_output=True, text=True, check=False)
    ended = time.time()
    if done.returncode:
        raise RuntimeError(f"the screening failed: {done.stderr[-2000:]}")
    files = sorted((out / "results").glob("part-*.parquet"), key=lambda path: path.stat().st_mtime)
    rows = [pq.read_metadata(path).num_rows for path in files]
    first, last = files[0].stat().st_mtime, files[-1].stat().st_mtime
    return {
        "photos_per_second": round(sum(rows[1:]) / (last - first), 3),
        "seconds_to_the_first_part": round(first - began, 1),
        "seconds": round(ended - began, 1),
        "bytes_per_row": round(sum(path.stat().st_size for path in files) / sum(rows)),
    }


def on_paper(rate: float, photo_bytes: float, row_bytes: float, core_hour: float) -> list[dict[str, Any]]:
    """Core hours, money and bytes of VOLUMES photos at `rate` photos per second and core."""
    return [
        {
            "photos": photos,
            "core_hours": round(photos / rate / 3600),
            "cost": round(photos / rate / 3600 * core_hour),
            "days_on_1000_cores": round(photos / rate / 86400 / 1000, 2),
            "photos_tb": round(photos * photo_bytes / 1e12, 2),
            "results_tb": round(photos * row_bytes / 1e12, 3),
        }
        for photos in VOLUMES
    ]


def report(photos: int, workers: Sequence[int], part: int, core_hour: float) -> dict[str, Any]:
    """The whole measurement."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        manifest = write_photos(folder, photos)
        size = sum(path.stat().st_size for path in folder.glob("*.jpg")) / photos
        start = machine()
        runs: dict[str, dict[str, Any]] = {}
        for detail in ("full", "quick"):
            options = ["--quick"] if detail == "quick" else []
            runs[f"{detail}, one process"] = measure(manifest, folder / f"{detail}-0", part, options)
            for n in workers:
                out, more = folder / f"{detail}-{n}", ["--workers", str(n), *options]
                runs[f"{detail}, Ray, workers {n}"] = measure(manifest, out, part, more)
    paper = {
        detail: on_paper(run["photos_per_second"], size, run["bytes_per_row"], core_hour)
        for detail in ("full", "quick")
        for run in [runs[f"{detail}, one process"]]
    }
    about = {"photos": photos, "size": SIZE, "part": part, "seed": "photo i is drawn with seed i", **start}
    return {"about": about, "core_hour": core_hour, "photo_bytes": round(size), "runs": runs, "on_paper": paper}


def main() -> None:
    """Measures, prints and writes `screening.json`."""
    args = _parser().parse_args()
    result = report(args.photos, args.workers, args.part, args.core_hour)
    result["command"] = f"python -m eval_study.reliability.screening {' '.join(sys.argv[1:])}"
    args.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=2)
    (args.out / NAME).write_text(text + "\n")
    print(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=120)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--part", type=int, default=6)
    parser.add_argument("--core-hour", type=float, default=0.04, help="price of a core for an hour (assumed)")
    parser.add_argument("--out", type=Path, required=True)
    return parser


if __name__ == "__main__":
    main()
