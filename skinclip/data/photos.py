"""Photos and masks of many cases as arrays in memory, decoded once and kept in a cache file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from skinclip.data.cases import Case, DataError

NO_MASK = 255  # value of a mask that the data set does not give


def load_photos(
    cases: Sequence[Case], size: int, crop: str = "square", cache_dir: Path | None = None, progress: bool = False
) -> np.ndarray:
    """RGB photos of `cases`, uint8 [n, size, size, 3].

    Args:
        crop: "square" takes the largest centred square, "squash" the whole photo.
        cache_dir: where the array is kept for the next call with the same photos, size and crop.

    Raises DataError naming a photo that cannot be decoded.
    """

    def one(case: Case) -> np.ndarray:
        pixels = cv2.imread(str(case.image), cv2.IMREAD_COLOR_RGB)
        if pixels is None:
            raise DataError(f"{case.image} cannot be decoded; replace or remove the file")
        return _fit(pixels, size, crop, cv2.INTER_AREA)

    return _cached("photos", cases, (size, size, 3), crop, cache_dir, progress, one)


def load_masks(
    cases: Sequence[Case], size: int, crop: str = "square", cache_dir: Path | None = None, progress: bool = False
) -> np.ndarray:
    """Lesion masks of `cases`, uint8 [n, size, size], 0 or 1, NO_MASK throughout where there is none."""

    def one(case: Case) -> np.ndarray:
        if case.mask is None:
            return np.full((size, size), NO_MASK, np.uint8)
        mask = cv2.imread(str(case.mask), cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise DataError(f"{case.mask} cannot be decoded; replace or remove the file")
        return (_fit(mask, size, crop, cv2.INTER_AREA) > 127).astype(np.uint8)

    return _cached("masks", cases, (size, size), crop, cache_dir, progress, one)


def _fit(pixels: np.ndarray, size: int, crop: str, interpolation: int) -> np.ndarray:
    if crop == "square":
        height, width = pixels.shape[:2]
        side = min(height, width)
        y, x = (height - side) // 2, (width - side) // 2
        pixels = pixels[y : y + side, x : x + side]
    return cv2.resize(pixels, (size, size), interpolation=interpolation)


def _cached(
    kind: str,
    cases: Sequence[Case],
    shape: tuple[int, ...],
    crop: str,
    cache_dir: Path | None,
    progress: bool,
    one: Callable[[Case], np.ndarray],
) -> np.ndarray:
    if cache_dir is None:
        return _read_all(kind, cases, shape, progress, one)
    names = "\n".join(f"{c.source}/{c.image_id}/{c.image}" for c in cases)
    digest = hashlib.sha256(f"{names}|{shape}|{crop}".encode()).hexdigest()[:16]
    path = cache_dir / f"{kind}-{digest}.npy"
    if path.exists():
        return np.load(path)
    array = _read_all(kind, cases, shape, progress, one)
    cache_dir.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npy")
    np.save(part, array)
    part.replace(path)
    return array


def _read_all(
    kind: str, cases: Sequence[Case], shape: tuple[int, ...], progress: bool, one: Callable[[Case], np.ndarray]
) -> np.ndarray:
    out = np.empty((len(cases), *shape), np.uint8)
    for i, case in enumerate(tqdm(cases, desc=f"reading {kind}", disable=not progress, mininterval=5)):
        out[i] = one(case)
    return out
