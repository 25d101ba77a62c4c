"""A photo turned by quarter turns and cropped, as a photo file of its own. Its pixels are not resampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from skinclip.core.formatting import per_cent
from skinclip.imaging.photo import MAX_FILE_MB, MIN_SIDE, LesionImage, PhotoError, encode_jpeg, encode_png

LOSSLESS_PIXELS = 4_000_000  # above, PNG would be larger than a photo file may be


@dataclass(frozen=True)
class Frame:
    """A part of a photo.

    Attributes:
        turns: quarter turns clockwise, 0 to 3, before the photo is cropped.
        box: x0, y0, x1, y1 of the part, as shares of the turned photo.
    """

    turns: int
    box: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        x0, y0, x1, y1 = self.box
        if self.turns not in range(4) or not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
            raise ValueError("This part of the photo cannot be used. Choose it again.")

    @classmethod
    def of(cls, asked: Mapping[str, Any]) -> Frame:
        """A frame from plain values. Raises ValueError for others."""
        try:
            x0, y0, x1, y1 = (float(v) for v in asked["box"])
            return cls(int(asked["turns"]), (x0, y0, x1, y1))
        except (KeyError, TypeError, ValueError) as problem:
            raise ValueError("This part of the photo cannot be used. Choose it again.") from problem

    @property
    def in_words(self) -> str:
        """The change in words, "turned right, cropped to 60 % × 50 %"."""
        turned = ("", "turned right", "turned round", "turned left")[self.turns]
        x0, y0, x1, y1 = self.box
        whole = (x0, y0, x1, y1) == (0, 0, 1, 1)
        cropped = "" if whole else f"cropped to {per_cent(x1 - x0)} × {per_cent(y1 - y0)}"
        return ", ".join(filter(None, (turned, cropped)))


@dataclass(frozen=True)
class Edit:
    """A change of a photo in the form.

    Attributes:
        whole: the photo file before.
        words: how it was turned and cropped since.
    """

    whole: bytes
    words: str

    @classmethod
    def of(cls, photo: bytes, frame: Frame, before: Edit | None = None) -> Edit:
        """The edit of a photo to a part of it, which may have been edited `before`."""
        if before is None:
            return cls(photo, frame.in_words)
        return cls(before.whole, f"{before.words}, then {frame.in_words}")


def reframed(image: LesionImage, frame: Frame) -> bytes:
    """The photo file of a part. Raises PhotoError where too little is left."""
    pixels = np.rot90(image.pixels, -frame.turns)
    height, width = pixels.shape[:2]
    x0, x1 = (round(v * width) for v in frame.box[::2])
    y0, y1 = (round(v * height) for v in frame.box[1::2])
    part = np.ascontiguousarray(pixels[y0:y1, x0:x1])
    if min(part.shape[:2]) < MIN_SIDE:
        raise PhotoError(f"The part is smaller than {MIN_SIDE} pixels. Choose a larger one.")
    if part.shape[0] * part.shape[1] <= LOSSLESS_PIXELS:
        return encode_png(part)
    data = encode_jpeg(part, 98)
    return data if len(data) <= MAX_FILE_MB * 1_000_000 else encode_jpeg(part, 90)
