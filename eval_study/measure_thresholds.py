"""Prints the thresholds of `abcd_features`: quantiles of its measurements over real training photos and masks.

    python -m eval_study.measure_thresholds --data ROOT [--photos 400] [--seed 0]

ROOT holds one folder per data set; photos of split `train` that have a mask are used. Each line gives the
quantiles 5, 20, 33, 67, 80 and 95 % of one measurement over the photos in which it could be made:
`skinclip.imaging.abcd_features` takes its lower and upper thresholds from them and gives no finding in between.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence

import cv2
import numpy as np

from skinclip.data.cases import Case
from skinclip.data.readers import discover
from skinclip.imaging.abcd_features import measure_lesion, shades_of_grey, surrounding_skin
from skinclip.imaging.photo import load_photo

QUANTILES = (0.05, 0.2, 1 / 3, 2 / 3, 0.8, 0.95)
FIELDS = ("asymmetry", "border_irregularity", "colours")


def read_pair(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Photo uint8 [h, w, 3] and its mask bool [h, w], brought to the photo's size."""
    pixels = load_photo(case.image).pixels
    mask = cv2.imread(str(case.mask), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise ValueError(f"{case.mask} cannot be read as a mask")
    return pixels, cv2.resize(mask, pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR) > 127


def report(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
    """The median skin colour, and quantiles and share measured for each measurement, as text."""
    measured = [measure_lesion(*pair) for pair in pairs]
    around = [pixels[surrounding_skin(pixels, mask)] for pixels, mask in pairs]
    skin = np.median([shades_of_grey(values) for values in around if len(values)], axis=0)
    lines = [f"photos {len(pairs)}", "SKIN " + " ".join(f"{v:.0f}" for v in skin)]
    for field in FIELDS:
        values = [v for m in measured if (v := getattr(m, field)) is not None]
        limits = " ".join(f"{v:.3f}" for v in np.quantile(values, QUANTILES))
        lines.append(f"{field}: {limits} (measured in {len(values) / len(pairs):.0%})")
    return "\n".join(lines)


def main() -> None:
    """Prints quantiles of each measurement over training photos with a mask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with one subfolder per data set")
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    cases = [c for table in discover(args.data).values() for c in table.split("train") if c.mask is not None]
    if not cases:
        parser.error(f"no training photo with a mask in {args.data}")
    chosen = random.Random(args.seed).sample(cases, min(args.photos, len(cases)))
    print(report([read_pair(case) for case in chosen]))


if __name__ == "__main__":
    main()
