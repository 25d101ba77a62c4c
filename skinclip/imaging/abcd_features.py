"""The A, B and C of the ABCD rule (Stolz et al. 1994), measured on a lesion's mask and its colours; nothing learnt.

A finding is made of a measurement only where it is clear: below a lower or above an upper threshold. In between, and
where the photo cuts the lesion off, there is none. The thresholds are quantiles of real photos
(`python -m eval_study.measure_thresholds --data ROOT` prints them).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

WORK_SIDE = 160  # px, longer side on which colours are measured
_CANVAS = 192  # px, side of the canvas on which the shape is measured
_LESION_SIDE = 72.0  # px, square root of the lesion's area on that canvas, so that size and resolution do not matter
_MIN_PIXELS = 40  # a lesion of fewer pixels has no shape to speak of
_MINKOWSKI = 6  # the norm of shades of grey (Finlayson & Trezzi 2004)
MIN_COLOUR_SHARE = 0.03  # a colour counts from this share of the lesion on

# sRGB of the six colours of the ABCD rule, and of plain skin, which is no colour of the lesion: the median over
# HAM10000 train photos of the skin around the lesion, as `shades_of_grey` sees it.
COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (236, 224, 222),
    "red": (180, 70, 80),
    "light brown": (176, 126, 104),
    "dark brown": (112, 70, 58),
    "blue-grey": (118, 112, 132),
    "black": (52, 38, 40),
}
SKIN: tuple[int, int, int] = (209, 158, 167)


@dataclass(frozen=True)
class Measurements:
    """None is "not measured": no lesion, or (asymmetry, border) a lesion that the photo cuts off.

    `asymmetry`: share of the lesion that does not fall on itself when mirrored, mean over both principal axes; 0-1.
    `border_irregularity`: share of the convex hull that is missing, plus the spread (standard deviation) of the
    outline's radius relative to the ellipse of the same second moments, so that length alone is not irregular; 0 is
    an ellipse.
    `colours`: effective number of the six ABCD colours among those that cover at least 3 % of the lesion, the
    exponential of the Shannon entropy of their shares: n equally large colours give n, small ones count for less.
    """

    asymmetry: float | None
    border_irregularity: float | None
    colours: float | None
    touches_border: bool


@dataclass(frozen=True)
class Limits:
    """Up to `low` a measurement is clearly low, from `high` on clearly high; `lowest`, `highest` earn a score of 1."""

    lowest: float
    low: float
    high: float
    highest: float


@dataclass(frozen=True)
class MeasureThresholds:
    """Limits beyond which a measurement is a finding: quantiles of 400 HAM10000 train photos and their reference masks.

    `lowest` and `highest` are the 5 % and 95 % quantiles. Shape is unclear in the middle third of photos; colour from
    the 20 % to the 80 % quantile, because "several" must mean more than two.
    """

    asymmetry: Limits = Limits(0.028, 0.050, 0.077, 0.121)
    border: Limits = Limits(0.050, 0.077, 0.113, 0.218)
    colour: Limits = Limits(1.0, 1.49, 2.55, 3.0)


def measure_lesion(pixels: np.ndarray, mask: np.ndarray) -> Measurements:
    """Measures the largest component of `mask`, its holes filled.

    Args:
        pixels: uint8 [h, w, 3] RGB.
        mask: bool [h, w], true on the lesion.

    Raises:
        ValueError: shapes that do not belong together.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.shape[:2] != mask.shape:
        raise ValueError(f"pixels [h, w, 3] and mask [h, w] expected, got {pixels.shape} and {mask.shape}")
    pixels, lesion = _shrink(np.ascontiguousarray(pixels), mask)
    lesion = _main_component(lesion)
    touches = bool(lesion[[0, -1]].any() or lesion[:, [0, -1]].any())
    if np.count_nonzero(lesion) < _MIN_PIXELS:
        return Measurements(None, None, None, touches)
    colours = effective_colours(colour_shares(pixels, lesion))
    if touches:
        return Measurements(None, None, colours, True)
    upright = _upright(lesion)
    return Measurements(_asymmetry(upright), _border_irregularity(upright), colours, False)


def measured_findings(
    measured: Measurements, thresholds: MeasureThresholds | None = None
) -> tuple[tuple[str, float], ...]:
    """The clear findings as (state key, score), at most one per criterion, in the order asymmetry, border, colour.

    The score is 0.5 at a threshold and rises in a straight line to 1 at the measurement that only 5 % of photos
    exceed.
    """
    limits = thresholds or MeasureThresholds()
    rows = (
        (measured.asymmetry, limits.asymmetry, "asymmetry:symmetric", "asymmetry:asymmetric"),
        (measured.border_irregularity, limits.border, "border:regular", "border:irregular"),
        (measured.colours, limits.colour, "colour:uniform", "colour:variegated"),
    )
    findings = []
    for value, limit, low_key, high_key in rows:
        if value is not None and value <= limit.low:
            findings.append((low_key, _score(limit.low - value, limit.low - limit.lowest)))
        elif value is not None and value >= limit.high:
            findings.append((high_key, _score(value - limit.high, limit.highest - limit.high)))
    return tuple(findings)


def _score(beyond: float, span: float) -> float:
    return 1.0 if span <= 0 else 0.5 + 0.5 * min(beyond / span, 1.0)


def colour_shares(pixels: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """The share of the lesion nearest to each of `COLOURS` in CIELAB; what is left of 1 looks like plain skin.

    The illuminant is estimated by shades of grey on the skin around the lesion, and the photo scaled so that this skin
    gets the colour of `SKIN`. Skin of another tone is thereby mapped to the same reference: colours are counted
    relative to the patient's own skin.
    """
    inside = pixels[mask].astype(np.float32) / 255  # [n, 3]
    corrected = np.clip(inside * _gains(pixels, mask), 0, 1)
    names = (*COLOURS, "skin")
    lab = cv2.cvtColor(corrected[None], cv2.COLOR_RGB2Lab)[0]  # [n, 3]
    centres = np.array([*COLOURS.values(), SKIN], np.float32)[None] / 255
    reference = cv2.cvtColor(centres, cv2.COLOR_RGB2Lab)[0]  # [7, 3]
    # |a - b|^2 less the |a|^2 that all centres share
    distance = (reference**2).sum(1) - 2 * lab @ reference.T  # [n, 7]
    shares = np.bincount(distance.argmin(1), minlength=len(names)) / max(len(inside), 1)
    return {name: float(share) for name, share in zip(names, shares, strict=True) if name != "skin"}


def effective_colours(shares: dict[str, float]) -> float | None:
    """The effective number of colours of `colour_shares`, 1-6; None where all of the lesion looks like skin."""
    kept = np.array([share for share in shares.values() if share >= MIN_COLOUR_SHARE])
    if not kept.size:
        return None
    kept /= kept.sum()
    return float(np.exp(-(kept * np.log(kept)).sum()))


def _gains(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Factors [3] that turn the surrounding skin into `SKIN`."""
    skin = pixels[surrounding_skin(pixels, mask)]
    if len(skin) < _MIN_PIXELS:
        return np.ones(3, np.float32)
    return np.clip(np.array(SKIN, np.float32) / shades_of_grey(skin), 0.6, 1.7)


def surrounding_skin(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Bool [h, w]: outside the lesion and its fading rim, without the black corners of a dermatoscope."""
    reach = max(3, round(0.04 * max(mask.shape)))
    rim = cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1,) * 2))
    return (rim == 0) & (pixels.max(axis=2) > 60)


def shades_of_grey(values: np.ndarray) -> np.ndarray:
    """The Minkowski mean [3] of RGB values [n, 3], robust to a share of dark pixels (hair) as the mean is not."""
    return ((values.astype(np.float32) / 255) ** _MINKOWSKI).mean(axis=0) ** (1 / _MINKOWSKI) * 255


def _shrink(pixels: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with a longer side of at most `WORK_SIDE`."""
    scale = WORK_SIDE / max(mask.shape)
    grey = mask.astype(np.uint8) * 255
    if scale >= 1:
        return pixels, grey > 127
    size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return pixels, cv2.resize(grey, size, interpolation=cv2.INTER_AREA) > 127


def _main_component(mask: np.ndarray) -> np.ndarray:
    """The largest component of a mask, holes filled; bool, the same shape."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    if outlines:
        cv2.drawContours(filled, [max(outlines, key=lambda o: (cv2.contourArea(o), len(o)))], -1, 1, cv2.FILLED)
    return filled > 0


def _upright(mask: np.ndarray) -> np.ndarray:
    """The lesion on a square canvas: centroid in the middle, principal axes along the sides, of a fixed size."""
    m = cv2.moments(mask.astype(np.uint8), binaryImage=True)
    cx, cy = m["m10"] / m["m00"], m["m01"] / m["m00"]
    angle = 0.5 * np.arctan2(2 * m["mu11"], m["mu20"] - m["mu02"])
    rows, cols = np.nonzero(mask)
    reach = np.hypot(cols - cx, rows - cy).max() + 1  # a long lesion is drawn smaller rather than cut off
    scale = min(_LESION_SIDE / np.sqrt(m["m00"]), (_CANVAS / 2 - 2) / reach)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    middle = (_CANVAS - 1) / 2
    turn = np.array([[cos, sin, middle - cos * cx - sin * cy], [-sin, cos, middle + sin * cx - cos * cy]])
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7)
    return cv2.warpAffine(soft, turn, (_CANVAS, _CANVAS), flags=cv2.INTER_LINEAR) > 0.5


def _asymmetry(upright: np.ndarray) -> float:
    area = np.count_nonzero(upright)
    return float(np.mean([1 - np.count_nonzero(upright & np.flip(upright, axis)) / area for axis in (0, 1)]))


def _border_irregularity(upright: np.ndarray) -> float:
    outlines, _ = cv2.findContours(upright.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=cv2.contourArea)
    hull = cv2.contourArea(cv2.convexHull(outline))
    missing = 1 - cv2.contourArea(outline) / hull if hull > 0 else 0.0
    m = cv2.moments(outline)
    if m["m00"] <= 0 or m["mu20"] <= 0 or m["mu02"] <= 0:
        return float(missing)
    x = (outline[:, 0, 0] - m["m10"] / m["m00"]) / np.sqrt(m["mu20"] / m["m00"])
    y = (outline[:, 0, 1] - m["m01"] / m["m00"]) / np.sqrt(m["mu02"] / m["m00"])
    radius = np.hypot(x, y) / 2  # 1 on the ellipse of the same moments
    return float(missing + radius.std())
