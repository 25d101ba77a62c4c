"""Photos and masks of many cases as arrays, decoded once and kept in a cache file.

Photos are decoded by `imaging.photo.load` and resized as at inference, so that training sees what an Assessment sees.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from skinclip.core.whole_files import whole_file
from skinclip.data.cases import Case, DataError
from skinclip.data.masks import read_mask
from skinclip.imaging.photo import PhotoError, load_photo

NO_MASK = 255  # value of a mask that the data set does not give
CROPS = ("square", "squash")
_VERSION = 2  # of decoding and resizing: an array cached by another version is not used


@dataclass(frozen=True)
class _Content:
    """Contents of an array: its kind, the shape of one entry, the crop, and how the file of each case is decoded."""

    kind: str
    shape: tuple[int, ...]
    crop: str
    files: Sequence[Path | None]
    decode: Callable[[Case], np.ndarray]


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
        try:
            return _fit(load_photo(case.image).pixels, size, crop)
        except PhotoError as error:
            raise DataError(f"{case.image}: {error}") from error

    content = _Content("photos", (size, size, 3), crop, [case.image for case in cases], one)
    return _cached(content, cases, cache_dir, progress)


def load_masks(
    cases: Sequence[Case], size: int, crop: str = "square", cache_dir: Path | None = None, progress: bool = False
) -> np.ndarray:
    """Lesion masks of `cases`, uint8 [n, size, size], 0 or 1, NO_MASK throughout where there is none."""

    def one(case: Case) -> np.ndarray:
        if case.mask is None:
            return np.full((size, size), NO_MASK, np.uint8)
        return (_fit(read_mask(case.mask).astype(np.uint8) * 255, size, crop) > 127).astype(np.uint8)

    content = _Content("masks", (size, size), crop, [case.mask for case in cases], one)
    return _cached(content, cases, cache_dir, progress)


def _fit(pixels: np.ndarray, size: int, crop: str) -> np.ndarray:
    if crop == "square":
        height, width = pixels.shape[:2]
        side = min(height, width)
        y, x = (height - side) // 2, (width - side) // 2
        pixels = pixels[y : y + side, x : x + side]
    shrink = min(pixels.shape[:2]) > size
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)


def _cached(content: _Content, cases: Sequence[Case], cache_dir: Path | None, progress: bool) -> np.ndarray:
    if content.crop not in CROPS:
        raise ValueError(f"crop {content.crop!r}; expected one of {', '.join(CROPS)}")
    if cache_dir is None or not cases:
        return _read_all(content, cases, np.empty((len(cases), *content.shape), np.uint8), progress)
    names = "\n".join(f"{c.source}/{c.image_id}/{f}/{bytes_in(f)}" for c, f in zip(cases, content.files, strict=True))
    digest = hashlib.sha256(f"{_VERSION}|{names}|{content.shape}|{content.crop}".encode()).hexdigest()[:16]
    path = cache_dir / f"{content.kind}-{digest}.npy"
    if not path.exists():
        _write_all(path, content, cases, progress)
    # Mapped, not read: thousands of large photos need not fit into memory, and processes share the pages they read.
    return np.load(path, mmap_mode="c")


def bytes_in(file: Path | None) -> int:
    """Size of a file, 0 where there is none: a file replaced by another of its name makes a new cache entry."""
    return file.stat().st_size if file is not None and file.exists() else 0


def _write_all(path: Path, content: _Content, cases: Sequence[Case], progress: bool) -> None:
    """Decodes into a file beside `path` that takes its place when it is whole; a photo that fails leaves nothing."""
    with whole_file(path, alone=True) as part:
        array = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(len(cases), *content.shape))
        _read_all(content, cases, array, progress)
        array.flush()


def _read_all(content: _Content, cases: Sequence[Case], out: np.ndarray, progress: bool) -> np.ndarray:
    """Fills `out` [n, ...] and returns it."""
    for i, case in enumerate(tqdm(cases, desc=f"reading {content.kind}", disable=not progress, mininterval=5)):
        out[i] = content.decode(case)
    return out
