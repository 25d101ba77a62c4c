"""Mask file -> bool array: the one reader of masks, for training and evaluation alike.

A mask has two values, however it was saved: 0 and 1, 0 and 255, 16 bits, a palette, two colours, or an alpha channel
over one colour. The brighter value is the lesion. Masks saved with loss (JPEG, smoothed when scaled) are cut half way
between the two; a file with other values, such as a map of several labels, is refused, and so is an inverted one. A
mask is turned as its photo is.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from skinclip.data.cases import DataError
from skinclip.imaging import container
from skinclip.imaging.photo import DECODER_ERRORS, orientation_of, quiet_decoder, upright

_FORMATS = ("PNG", "TIFF", "BMP", "JPEG", "GIF", "WEBP")
_FULL = frozenset({1, 255, 257, 65535})  # of a mask that is one value throughout: the lesion fills it
_LABELS = 4  # a file of at most so many values, more than two, is a map of labels, not a smoothed mask
_SMOOTH_SHARE = 0.05  # of the pixels of a smoothed mask that may lie between the two values
_NEAR = 0.15  # of the range: a pixel this close to a value is of that value
_DARK_SHARE = 0.02  # of the pixels: a smaller hole in a lesion that fills the photo is one of its drawing
_LUMA = np.array([299, 587, 114])


def read_mask(path: Path) -> np.ndarray:
    """A mask file as bool [H, W]. Raises DataError where it cannot be decoded or is not two-valued."""
    try:
        data = path.read_bytes()
        orientation = 1
        if data.startswith(container.PNG_SIGNATURE):
            png = container.png_pixels(data)
            data, orientation = png.data, png.orientation
        with quiet_decoder(), Image.open(io.BytesIO(data), formats=_FORMATS) as file:
            values = _upright(_values(file), max(orientation, orientation_of(file)))
    except DECODER_ERRORS as error:
        raise DataError(f"{path} cannot be decoded; replace or remove the file") from error
    try:
        mask = _two_valued(values)
        _check_polarity(mask)
        return mask
    except ValueError as error:
        raise DataError(f"{path} {error}") from error


def _values(file: Image.Image) -> np.ndarray:
    """One value a pixel [H, W]: the alpha where there is only one colour, else the brightness."""
    if file.mode == "P" and (values := _palette_entries(file)) is not None:
        return values
    if file.has_transparency_data:
        rgba = np.asarray(file.convert("RGBA"))
        grey, alpha = _brightness(rgba[..., :3]), rgba[..., 3]
        if alpha.min() == alpha.max():
            return np.zeros_like(grey) if alpha.max() == 0 and grey.min() == grey.max() else grey
        visible = grey[alpha > 0]
        return alpha if visible.min() == visible.max() else grey * alpha
    if file.mode in ("L", "1", "I", "F") or file.mode.startswith("I;16"):
        return np.asarray(file).astype(np.float64 if file.mode == "F" else np.int64)
    return _brightness(np.asarray(file.convert("RGB")))


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """The values turned as the photo's pixels are."""
    if orientation == 1:
        return values
    return np.asarray(upright(Image.fromarray(values.astype(np.int32)), orientation)).astype(values.dtype)


def _palette_entries(file: Image.Image) -> np.ndarray | None:
    """The entries of a palette whose colours are all alike, as a label map without a palette of its own has."""
    entries = np.asarray(file)
    rgba = np.asarray(file.convert("RGBA")).reshape(-1, 4)
    return entries.astype(np.int64) if (rgba == rgba[0]).all() else None


def _brightness(rgb: np.ndarray) -> np.ndarray:
    """[H, W, 3] -> [H, W], in 0-255; two colours of one luminance differ by their strongest channel."""
    red, green, blue = (rgb[..., i].astype(np.int64) for i in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    luminance = np.asarray((rgb.astype(np.int64) @ _LUMA) // _LUMA.sum())
    return rgb.max(-1).astype(np.int64) if luminance.min() == luminance.max() else luminance


def _check_polarity(mask: np.ndarray) -> None:
    """Raises ValueError for a mask that is bright all along the photo's border and dark in a part inside."""
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if border.all() and 1 - mask.mean() > _DARK_SHARE:
        raise ValueError("seems to be inverted: bright all around, dark inside. Save the lesion as the brighter value")


def _has_flat_part(values: np.ndarray, between: np.ndarray) -> bool:
    """True where 3 x 3 pixels have one value of neither: a region of a third label, not a soft border."""
    if min(values.shape) < 3:
        return False
    windows = np.lib.stride_tricks.sliding_window_view(values, (3, 3))
    flat = windows.max((2, 3)) == windows.min((2, 3))
    return bool((flat & between[1:-1, 1:-1]).any())


def _two_valued(values: np.ndarray) -> np.ndarray:
    """True where the higher of two values is. Raises ValueError for one or more than two."""
    levels = np.unique(values)
    if len(levels) == 1:
        if levels[0] == 0:
            return np.zeros(values.shape, bool)
        if levels[0] in _FULL:
            return np.ones(values.shape, bool)
        raise ValueError(f"has the value {levels[0]} throughout; a mask has two values, such as 0 and 255")
    if len(levels) == 2:
        return np.asarray(values == levels[1])
    middle = (levels[0] + levels[-1]) / 2
    low, high = np.median(values[values <= middle]), np.median(values[values > middle])  # lossy files overshoot both
    neither = np.minimum(np.abs(values - low), np.abs(values - high)) > _NEAR * (high - low)
    if len(levels) <= _LABELS or neither.mean() > _SMOOTH_SHARE or _has_flat_part(values, neither):
        raise ValueError(f"has {len(levels)} values; a mask has two, such as 0 and 255. Save one mask per file")
    return np.asarray(values > (low + high) / 2)
