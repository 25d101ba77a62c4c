"""Measures the photo quality gate on real photos: `python -m eval_study.quality_thresholds --data ROOT`.

ROOT holds one folder per data set, each with a `manifest.csv` (columns `image`, `split`, optional `mask`). For each set
the command prints how the gate's measures are distributed over good photos and over spoilt copies of them (blurred,
darkened, blacked out, over-exposed), and which share of each passes. The thresholds in `skinclip/imaging/photo.py` lie
in the gaps of that table. Only splits in which choosing is allowed are read, so no test photo is.
"""

from __future__ import annotations

import argparse
import csv
import functools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from skinclip.imaging.photo import border_share, from_array, load_photo, photo_quality, quality_measures

# The smartphone set has a single split; it only ever checks that the gate does not refuse ordinary clinical photos.
SPLITS = {"ham10000": "valid", "isic2017": "valid", "pad_ufes": "shift"}
QUANTILES = (0.0, 0.01, 0.5, 0.99, 1.0)
Spoiler = Callable[[np.ndarray], np.ndarray]


def blurred(share: float) -> Spoiler:
    """Gaussian blur; `share` is sigma as a share of the shorter side."""
    return lambda pixels: cv2.GaussianBlur(pixels, (0, 0), share * min(pixels.shape[:2]))


def enlarged(pixels: np.ndarray) -> np.ndarray:
    """The photo as a large sensor would give it: many more pixels, none of them sharper, and noise in each."""
    big = cv2.resize(pixels, (900, 900), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    return np.clip(big + _sensor_noise(), 0, 255).astype(np.uint8)


@functools.cache
def _sensor_noise() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 6, (900, 900, 3)).astype(np.float32)


def black_ring(pixels: np.ndarray) -> np.ndarray:
    """The photo as seen through a round black field stop."""
    height, width = pixels.shape[:2]
    circle = np.zeros((height, width, 1), np.uint8)
    cv2.circle(circle, (width // 2, height // 2), round(0.55 * min(height, width)), 1, thickness=-1)
    return pixels * circle.reshape(height, width, 1)


# The first three must pass and those from "blur 6 %" on must fail; 2 and 3 % show where the limit lies.
COPIES: dict[str, Spoiler] = {
    "original": lambda pixels: pixels,
    "black ring": black_ring,
    "enlarged": enlarged,
    "blur 2 %": blurred(0.02),
    "blur 3 %": blurred(0.03),
    "blur 6 %": blurred(0.06),
    "blur 6 %, ring": lambda pixels: black_ring(blurred(0.06)(pixels)),
    "blur 6 %, enlarged": lambda pixels: enlarged(blurred(0.06)(pixels)),
    "a tenth of light": lambda pixels: (pixels * 0.1).astype(np.uint8),
    "blacked out": np.zeros_like,
    "over-exposed": lambda pixels: np.clip(pixels.astype(np.int32) * 3, 0, 255).astype(np.uint8),
}


def photos(root: Path, name: str, limit: int) -> list[Path]:
    """A seeded sample of a set's photos."""
    with (root / name / "manifest.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == SPLITS[name]]
    random.Random(0).shuffle(rows)
    return [root / name / row["image"] for row in rows[:limit]]


def rows(root: Path, limit: int) -> Iterator[tuple[str, str, list[dict[str, float]], float]]:
    """Set, copy, the measures of each photo, and the share that passes the gate."""
    for name in SPLITS:
        if not (root / name / "manifest.csv").exists():
            continue
        originals = [load_photo(path).pixels for path in photos(root, name, limit)]
        for copy, spoil in COPIES.items():
            measured, passed = [], 0
            for pixels in originals:  # one copy at a time: enlarged ones would fill the memory
                image = from_array(spoil(pixels))
                measured.append(quality_measures(image.pixels))
                passed += not photo_quality(image)
            yield name, copy, measured, passed / len(originals)


def lesion_rows(root: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Area and border share of HAM10000's own lesion masks."""
    with (root / "ham10000" / "manifest.csv").open(newline="") as stream:
        paths = [root / "ham10000" / row["mask"] for row in csv.DictReader(stream) if row["split"] == "valid"]
    masks = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 127 for path in paths]
    yield "lesion area", np.array([mask.mean() for mask in masks])
    yield "lesion on border", np.array([border_share(mask) for mask in masks])


def main(argv: list[str] | None = None) -> None:
    """Prints quantiles of the photo quality measures of each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one subfolder per data set")
    parser.add_argument("--limit", type=int, default=10_000, help="photos per set at most")
    args = parser.parse_args(argv)
    if not any((args.data / name / "manifest.csv").exists() for name in SPLITS):
        parser.error(f"{args.data} has none of: {', '.join(SPLITS)} (each with a manifest.csv)")
    heads = " ".join(f"{f'{q:.0%}':>9}" for q in QUANTILES)
    print(f"{'set':10} {'copy':20} {'passes':>7}  {'measure':14} {heads}")
    for name, copy, measures, passed in rows(args.data, args.limit):
        for number, measure in enumerate(measures[0]):
            values = np.quantile([m[measure] for m in measures], QUANTILES)
            lead = f"{name:10} {copy:20} {passed:7.1%}" if number == 0 else " " * 39
            print(f"{lead}  {measure:14} " + " ".join(f"{value:9.3f}" for value in values), flush=True)
    if (args.data / "ham10000" / "manifest.csv").exists():
        for measure, values in lesion_rows(args.data):
            print(f"{'ham10000':10} {measure:45} " + " ".join(f"{v:9.4f}" for v in np.quantile(values, QUANTILES)))


if __name__ == "__main__":
    main()
