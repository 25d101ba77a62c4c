"""Manifests of drawn photos, and screenings of them in processes of their own, as a user starts them."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.dataset

from skinclip.imaging.examples import LOOKS, draw
from skinclip.imaging.photo import encode_jpeg
from tests.helpers.served import ROOT

GOOD = 12
HEADER = ("image", "age", "sex", "localization")


def write_photos(folder: Path, count: int = GOOD) -> list[tuple[str, str, str, str]]:
    """Writes `count` drawn photos and returns their rows of a manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(count):
        name = f"photo_{i:03d}.jpg"
        (folder / name).write_bytes(encode_jpeg(draw(list(LOOKS)[i % 5], i, (240, 200))))
        rows.append((name, str(30 + i), "male" if i % 2 else "female", "back"))
    return rows


def write_manifest(folder: Path) -> Path:
    """A manifest of GOOD photos, and of four rows that cannot be assessed for four reasons."""
    rows = write_photos(folder)
    (folder / "damaged.jpg").write_bytes(b"\xff\xd8\xff no photo")
    rows[3:3] = [("damaged.jpg", "", "", ""), ("missing.jpg", "", "", "")]
    rows[7:7] = [("photo_000.jpg", "200", "", ""), ("", "40", "", "")]
    path = folder / "photos.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return path


def command(manifest: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "skinclip", "screen", "--manifest", str(manifest), "--out", str(out), *options]


def start(manifest: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    """A screening in a process of its own."""
    words = command(manifest, out, *options)
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def screened(manifest: Path, out: Path, *options: str) -> str:
    """Screens to the end and returns what was printed."""
    done = subprocess.run(
        command(manifest, out, *options), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def rows_of(out: Path) -> list[dict]:
    """All results in the order of the manifest."""
    table: pa.Table = pyarrow.dataset.dataset(out / "results").to_table()
    return sorted(table.to_pylist(), key=lambda row: row["row"])


def workers_of(driver: int) -> list[psutil.Process]:
    """The processes below `driver` that hold a model."""
    below = psutil.Process(driver).children(recursive=True)
    return [process for process in below if "PartActor" in " ".join(process.cmdline())]
