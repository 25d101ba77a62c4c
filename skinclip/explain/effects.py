"""Regions weighed by what they do to the answer: one map of the whole explanation, from many regions.

As Score-CAM (Wang et al. 2020) weighs a network's activation maps by the scores of the photos they leave, with regions
that mean something in their place. The weight is measured on the model itself, so that a criterion on which the answer
does not hang counts for nothing, however clearly it is seen.
"""

from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

from skinclip.explain.faithfulness import Answer, top_region, without

SHARE = 0.25  # of the lesion, the highest places of a map; chosen on validation photos, as `methods.SMOOTH`


def effects(answer: Answer, photo: Tensor, regions: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """[M] what the answer loses without each region, and what it gains by that region alone, in log-odds.

    Args:
        photo: [1, 3, side, side].
        regions: [M, g, g] bool, inside the lesion.
        lesion: [g, g] bool; "alone" means that the rest of it is blurred.
    """
    out = np.stack([np.zeros_like(lesion), lesion, *regions, *(lesion & ~r for r in regions)])
    p = answer(without(photo, out)).astype(np.float64).clip(1e-6, 1 - 1e-6)
    odds = np.log(p / (1 - p))
    m = len(regions)
    return (odds[0] - odds[2 : 2 + m]) + (odds[2 + m :] - odds[1])


def weighed(answer: Answer, photo: Tensor, maps: np.ndarray, lesion: np.ndarray, smooth: float) -> np.ndarray:
    """float32 [g, g]: the highest places of each map, weighed by their effect and added up.

    The effects are taken against their mean, or a place would count for being in many maps. 0 outside the lesion and at
    its least place.

    Args:
        maps: [M, g, g], higher is more; only the order inside the lesion counts.
        lesion: [g, g] bool, not empty.
        smooth: standard deviation, in places of the grid, of the blur (inside the lesion) that takes the regions' edges
            off.
    """
    regions = np.stack([top_region(heat, lesion, SHARE) for heat in maps])
    weights = effects(answer, photo, regions, lesion)
    heat = np.tensordot(weights - weights.mean(), regions.astype(np.float64), 1)
    heat = _smoothed(heat, lesion, smooth)
    return np.where(lesion, heat - heat[lesion].min(), 0.0).astype(np.float32)


def _smoothed(heat: np.ndarray, lesion: np.ndarray, width: float) -> np.ndarray:
    """Blurred inside the lesion, as if there were nothing outside of it."""
    inside = lesion.astype(np.float64)
    total = cv2.GaussianBlur(heat * inside, (0, 0), width)
    return total / np.maximum(cv2.GaussianBlur(inside, (0, 0), width), 1e-6)
