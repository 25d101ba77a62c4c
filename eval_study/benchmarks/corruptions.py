"""Common corruptions of photos, in five severities.

Kinds and parameters of noise, blur, JPEG, resolution, brightness and contrast are those of ImageNet-C (Hendrycks and
Dietterich 2019), made for photos of 224 px; sizes in pixels grow with the photo's shorter side. Cast, darkness, hair
and vignette are what dermatoscopes and phones add to that; their severities are ours, and stand in `KINDS`.

    corrupt(pixels, "jpeg", 3, np.random.default_rng(0))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

SEVERITIES = (1, 2, 3, 4, 5)
IMAGENET_C = "Hendrycks and Dietterich 2019"
_SIDE = 224  # pixels for which lengths are given

Change = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]  # [H, W, 3] in 0..1, parameter -> [H, W, 3]


@dataclass(frozen=True)
class Corruption:
    """One kind of corruption.

    Attributes:
        change: what is done to a photo [H, W, 3] in 0..1.
        levels: its parameter at severities 1 to 5.
        parameter: what that number is.
        source: whose parameters they are.
    """

    change: Change
    levels: tuple[float, float, float, float, float]
    parameter: str
    source: str = "ours"


def corrupt(pixels: np.ndarray, kind: str, severity: int, rng: np.random.Generator) -> np.ndarray:
    """`pixels`, RGB uint8 [H, W, 3], corrupted; the same for the same arguments and state of `rng`.

    Args:
        kind: a name of `KINDS`.
        severity: 1 to 5.

    Raises ValueError for another kind, severity or array.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown corruption {kind!r}; known are {', '.join(KINDS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity {severity} is not one of 1 to 5")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"expected RGB pixels as uint8 [H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
    corruption = KINDS[kind]
    changed = corruption.change(pixels.astype(np.float64) / 255, corruption.levels[severity - 1], rng)
    return np.round(np.clip(changed, 0, 1) * 255).astype(np.uint8)


# --- noise ------------------------------------------------------------------------------------------------------------


def gaussian_noise(photo: np.ndarray, sd: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of an amplifier: independent in every pixel and channel."""
    return photo + rng.normal(size=photo.shape) * sd


def shot_noise(photo: np.ndarray, photons: float, rng: np.random.Generator) -> np.ndarray:
    """Poisson noise of few photons: grows with the light."""
    return rng.poisson(photo * photons) / photons


# --- blur and resolution ----------------------------------------------------------------------------------------------


def defocus_blur(photo: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    """The average over a disk, as out of focus; its edge is anti-aliased."""
    radius = _length(photo, radius)
    reach = int(np.ceil(radius)) + 1
    across = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    return _filtered(photo, np.clip(radius + 0.5 - across, 0, 1))


def motion_blur(photo: np.ndarray, length: float, rng: np.random.Generator) -> np.ndarray:
    """The average along a line of random direction, most of it near its start (Gaussian, sigma half the length)."""
    length = _length(photo, length)
    angle = rng.uniform(0, 2 * np.pi)
    reach = int(np.ceil(length)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    steps = np.linspace(0, length, 8 * reach)
    x, y = reach + np.cos(angle) * steps, reach + np.sin(angle) * steps
    np.add.at(kernel, (np.round(y).astype(int), np.round(x).astype(int)), np.exp(-((steps / length) ** 2) * 2))
    return _filtered(photo, kernel)


def jpeg(photo: np.ndarray, quality: float, rng: np.random.Generator) -> np.ndarray:
    """Saved as JPEG and read again."""
    bgr = np.round(photo[:, :, ::-1] * 255).astype(np.uint8)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    if not done:
        raise ValueError(f"a photo of shape {photo.shape} cannot be written as JPEG")
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1] / 255


def low_resolution(photo: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Reduced to `share` of its sides by area averaging and enlarged again, smoothly as a viewer does.

    ImageNet-C enlarges to hard squares, of unequal sides where 1 / share is no whole number: 0.6 then harms more than
    0.5.
    """
    height, width = photo.shape[:2]
    small = (max(1, round(width * share)), max(1, round(height * share)))
    reduced = cv2.resize(photo, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(reduced, (width, height), interpolation=cv2.INTER_LINEAR)


# --- light and colour -------------------------------------------------------------------------------------------------


def brightness(photo: np.ndarray, added: float, rng: np.random.Generator) -> np.ndarray:
    """HSV value raised by `added`."""
    hsv = cv2.cvtColor(photo.astype(np.float32), cv2.COLOR_RGB2HSV)
    hsv[:, :, 2] = np.clip(hsv[:, :, 2] + added, 0, 1)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def darkness(photo: np.ndarray, kept: float, rng: np.random.Generator) -> np.ndarray:
    """All values times `kept`."""
    return photo * kept


def contrast(photo: np.ndarray, kept: float, rng: np.random.Generator) -> np.ndarray:
    """Distances from each channel's mean times `kept`."""
    mean = photo.mean(axis=(0, 1))
    return (photo - mean) * kept + mean


def white_balance(photo: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """A colour cast, warm or cold by the toss of a coin: red times a gain of exp(+-strength), blue divided by it."""
    gain = np.exp(strength * (1 if rng.random() < 0.5 else -1))
    return photo * np.array([gain, 1.0, 1 / gain])


# --- what lies on the skin or in front of it --------------------------------------------------------------------------


def hair(photo: np.ndarray, number: float, rng: np.random.Generator) -> np.ndarray:
    """`number` dark curved hairs; those of a lower severity are among those of a higher one."""
    height, width = photo.shape[:2]
    cover = np.zeros((height, width), np.uint8)
    for _ in range(int(number)):
        middle, angle = rng.uniform((0, 0), (width, height)), rng.uniform(0, np.pi)
        along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        half, bend = rng.uniform(0.25, 0.7) * max(height, width), rng.normal() * 0.12 * max(height, width)
        t = np.linspace(-1, 1, 40)[:, None]
        points = middle + t * half * along + (1 - t**2) * bend * across  # a parabola
        thickness = max(1, round(_length(photo, rng.uniform(0.8, 2.2))))
        bits = 4  # of a pixel, so that lines are smooth
        cv2.polylines(cover, [np.round(points * 2**bits).astype(np.int32)], False, 255, thickness, cv2.LINE_AA, bits)
    opacity = 0.85 * cover[:, :, None] / 255
    return photo * (1 - opacity) + opacity * np.array([0.13, 0.09, 0.07])  # dark brown


def vignette(photo: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Darker towards the corners, where a share `strength` of the light is lost."""
    height, width = photo.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return photo * (1 - strength * (x**2 + y**2) / 2)[:, :, None]


def _length(photo: np.ndarray, pixels: float) -> float:
    """A length given for photos of 224 px, in this photo's pixels."""
    return pixels * min(photo.shape[:2]) / _SIDE


def _filtered(photo: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return cv2.filter2D(photo, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)


KINDS: dict[str, Corruption] = {
    "gaussian_noise": Corruption(
        gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38), "standard deviation, of 0-1", IMAGENET_C
    ),
    "shot_noise": Corruption(shot_noise, (60, 25, 12, 5, 3), "photons at full light", IMAGENET_C),
    "defocus_blur": Corruption(defocus_blur, (3, 4, 6, 8, 10), "radius, px at 224", IMAGENET_C),
    "motion_blur": Corruption(
        motion_blur, (6, 10, 15, 20, 28), "length, px at 224", f"ours, in the manner of {IMAGENET_C}"
    ),
    "jpeg": Corruption(jpeg, (25, 18, 15, 10, 7), "quality", IMAGENET_C),
    "low_resolution": Corruption(
        low_resolution, (0.6, 0.5, 0.4, 0.3, 0.25), "share of the side kept", f"{IMAGENET_C}, enlarged smoothly"
    ),
    "brightness": Corruption(brightness, (0.1, 0.2, 0.3, 0.4, 0.5), "added to HSV value", IMAGENET_C),
    "darkness": Corruption(darkness, (0.8, 0.6, 0.45, 0.3, 0.2), "factor"),
    "contrast": Corruption(contrast, (0.4, 0.3, 0.2, 0.1, 0.05), "share kept", IMAGENET_C),
    "white_balance": Corruption(white_balance, (0.05, 0.1, 0.15, 0.22, 0.3), "log of the gain of red over green"),
    "hair": Corruption(hair, (2, 5, 10, 20, 40), "number of hairs"),
    "vignette": Corruption(vignette, (0.3, 0.45, 0.6, 0.75, 0.9), "share of light lost in the corners"),
}
