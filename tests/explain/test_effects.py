"""A map made of regions, against an answer that is known to hang on one spot."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skinclip.explain.effects import effects, weighed
from skinclip.explain.saliency import blurred

LESION = np.zeros((16, 16), bool)
LESION[2:14, 2:14] = True
PHOTO = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def corner(row: int, column: int) -> np.ndarray:
    region = np.zeros((16, 16), bool)
    region[row : row + 4, column : column + 4] = True
    return region


def answer(photos: Tensor) -> np.ndarray:
    """Falls from 0.8 to 0.2 with the structure of the corner at (3, 3)."""
    spot = (..., slice(14, 26), slice(14, 26))
    left = (photos - blurred(PHOTO))[spot].abs().mean((1, 2, 3)) / (PHOTO - blurred(PHOTO))[spot].abs().mean()
    return (0.2 + 0.6 * left).numpy()


def test_only_the_region_on_which_the_answer_hangs_has_an_effect() -> None:
    found = effects(answer, PHOTO, np.stack([corner(3, 3), corner(9, 9)]), LESION)
    # by hand: it goes from 0.8 to 0.2 without the corner and from 0.2 to 0.8 by the corner alone
    assert abs(found[0] - 4 * np.log(4)) < 0.3 and abs(found[1]) < 1e-3


def test_maps_are_weighed_by_their_effect() -> None:
    rows, columns = np.mgrid[:16, :16]
    near = [-np.hypot(rows - y, columns - x) for y, x in ((10.5, 10.5), (4.5, 4.5))]
    heat = weighed(answer, PHOTO, np.stack([near[0] * 5.0, near[1]]), LESION, smooth=0.8)
    assert heat.dtype == np.float32 and not heat[~LESION].any()
    assert heat[corner(3, 3)].min() > 0.7 * heat.max() and heat[corner(9, 9)].max() < 0.2 * heat.max()
