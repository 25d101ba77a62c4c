"""Skin tone around the lesion: the individual typology angle (ITA) that a photo shows.

ITA = atan((L* - 50) / b*) in degrees (Chardon et al. 1991), over 55 for very light skin and below -30 for dark. It is
read from the median of the skin between the lesion's surroundings, which are often reddened or tanned otherwise, and a
distance in which it is still the same skin. Left out are the dark corners of a dermatoscope, hair, ruler marks and
glare (thin and unlike what lies around them), and what has no colour of skin: ink, gel, gloves, background.

A photo is no colorimeter: exposure, white balance and polarisation move the angle, so it says whether the skin looks
like that on the training photos, not which skin type somebody has. `eval_study.benchmarks` (skin_tone) measures how far
it agrees with people's labels: fairly on close-ups, not at all on dermoscopy, whose light and exposure hide the tone.
"""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 256  # longest side, in pixels, at which it is read
GAP, REACH = 0.03, 0.30  # of the photo's shorter side: skipped around the lesion, and how far skin is read
_THIN = 9  # pixels: kernel of hair and marks
_CONTRAST = 12  # grey levels by which hair and marks differ from what lies around them
_DARK = 50  # grey level below which a region that touches the border is no skin
MIN_SHARE = 0.01  # of the photo that must be skin


def individual_typology_angle(pixels: np.ndarray, lesion: np.ndarray) -> float:
    """ITA of the skin around the lesion in degrees, -90 to 90; NaN where too little skin is seen.

    Args:
        pixels: uint8 [H, W, 3], RGB.
        lesion: bool [H, W]; with nothing marked, all of the photo is looked at.
    """
    small, mask = _small(pixels, lesion)
    skin = _around(mask) & ~_frame(small) & ~_thin(small)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    light, a, b = lab[..., 0], lab[..., 1], lab[..., 2]
    skin &= (light > 8) & (light < 96) & (a > -4) & (b > -2)
    if skin.mean() < MIN_SHARE:
        return float("nan")
    usual = np.abs(light[skin] - np.median(light[skin])) <= 2 * max(_mad(light[skin]), 1.0)
    l_median, b_median = float(np.median(light[skin][usual])), float(np.median(b[skin][usual]))
    return float(np.degrees(np.arctan2(l_median - 50.0, max(b_median, 0.5))))


def _small(pixels: np.ndarray, lesion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Photo and mask at `SIDE` pixels or less."""
    height, width = pixels.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    mask = cv2.resize(lesion.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    return small, mask


def _around(mask: np.ndarray) -> np.ndarray:
    """bool [h, w]: the ring around the lesion; everything where there is none."""
    if not mask.any():
        return np.ones_like(mask)
    side = min(mask.shape)
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    return (distance > GAP * side) & (distance <= REACH * side)


def _frame(small: np.ndarray) -> np.ndarray:
    """bool [h, w]: dark regions that touch the border, with the shade around them."""
    dark = (small.max(axis=2) < _DARK).astype(np.uint8)
    _, labels = cv2.connectedComponents(dark)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    touching = np.isin(labels, border[border > 0]).astype(np.uint8)
    shade = max(3, round(0.06 * min(dark.shape))) | 1
    return cv2.dilate(touching, np.ones((shade, shade), np.uint8)) > 0


def _thin(small: np.ndarray) -> np.ndarray:
    """bool [h, w]: hair, ruler marks and glare, which are thin and darker or lighter than what lies around them."""
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_THIN, _THIN))
    hats = [cv2.morphologyEx(grey, how, kernel) for how in (cv2.MORPH_BLACKHAT, cv2.MORPH_TOPHAT)]
    marked = (np.maximum(*hats) > _CONTRAST).astype(np.uint8)
    return cv2.dilate(marked, np.ones((3, 3), np.uint8)) > 0


def _mad(values: np.ndarray) -> float:
    """Median absolute deviation from the median, scaled to a standard deviation."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))
