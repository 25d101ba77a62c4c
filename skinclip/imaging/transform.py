"""From a photo's pixels to the model's square window and back."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """A square of the photo: left, top and side in photo pixels."""

    x: int
    y: int
    side: int

    def crop(self, pixels: np.ndarray) -> np.ndarray:
        """The window's part [side, side, ...] of a photo [H, W, ...]; a view, not a copy."""
        return pixels[self.y : self.y + self.side, self.x : self.x + self.side]

    def place(self, values: np.ndarray, height: int, width: int) -> np.ndarray:
        """The window's values [side, side] on a photo [height, width], zero elsewhere."""
        whole = np.zeros((height, width), values.dtype)
        self.crop(whole)[:] = values
        return whole


@dataclass(frozen=True)
class PhotoTransform:
    """Cuts a window out of a photo and brings it to the model's input size."""

    image_size: int

    def centred(self, height: int, width: int, centre: tuple[float, float] | None = None) -> Window:
        """The largest square of the photo, around `centre` (x, y) as far as the photo reaches, else in its middle."""
        side = min(height, width)
        x, y = centre or (width / 2, height / 2)
        left = int(np.clip(round(x - side / 2), 0, width - side))
        top = int(np.clip(round(y - side / 2), 0, height - side))
        return Window(left, top, side)

    def __call__(self, pixels: np.ndarray, window: Window | None = None) -> Tensor:
        """uint8 [H, W, 3] -> float [3, image_size, image_size] in 0..1."""
        return self.squash((window or self.centred(*pixels.shape[:2])).crop(pixels))

    def squash(self, pixels: np.ndarray) -> Tensor:
        """The whole photo at the input size, its aspect ratio given up, to find the lesion in; as `__call__`."""
        # Area averaging when shrinking: anything else aliases fine structures such as the pigment network.
        shrink = min(pixels.shape[:2]) >= self.image_size
        resized = cv2.resize(
            pixels, (self.image_size, self.image_size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        )
        return torch.from_numpy(resized).permute(2, 0, 1).float() / 255
