"""Each measure against cases whose answer is known by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from skinclip.explain.faithfulness import (
    best_iou,
    energy,
    perturbation_curves,
    pointing,
    random_region,
    rank_correlation,
    removal_effect,
    ssim,
    top_region,
    without,
)
from skinclip.explain.saliency import blurred

LESION = np.zeros((16, 16), bool)
LESION[4:12, 4:12] = True
SPOT = np.zeros((16, 16), bool)
SPOT[4:8, 4:8] = True  # a quarter of the lesion
PHOTO = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def answer(photos: Tensor) -> np.ndarray:
    """How much of the photo's structure in the spot is left: 1 for all of it, 0 for none."""
    structure = (photos - blurred(PHOTO))[..., 18:30, 18:30].abs().mean((1, 2, 3))
    whole = (PHOTO - blurred(PHOTO))[..., 18:30, 18:30].abs().mean()
    return (structure / whole).numpy()


def test_where_a_map_lies() -> None:
    heat = np.zeros((16, 16))
    heat[4:8, 4:8], heat[0, 0] = 1.0, 4.0
    assert energy(heat, LESION) == pytest.approx(16 / 20) and np.isnan(energy(np.zeros((16, 16)), LESION))
    assert not pointing(heat, LESION)
    heat[0, 0] = 0.5
    assert pointing(heat, LESION)
    assert best_iou(LESION.astype(float), LESION) == 1
    assert best_iou(heat, LESION) == 16 / 64  # above one half the spot alone is left
    assert energy(np.ones((16, 16)), LESION) == pytest.approx(0.25)


def test_the_order_decides_deletion_and_insertion() -> None:
    right, wrong = SPOT.astype(float), 1.0 - SPOT
    good, bad = perturbation_curves(answer, PHOTO, right, LESION), perturbation_curves(answer, PHOTO, wrong, LESION)
    assert good.deletion < 0.25 < 0.7 < bad.deletion
    assert good.insertion > 0.75 > 0.3 > bad.insertion
    # by hand: a quarter of the lesion goes in two of eight steps, the answer with it: 1, 1/2, 0, 0, ...
    assert good.deletion == pytest.approx(1 / 8, abs=0.03)


def test_only_the_order_inside_the_lesion_counts() -> None:
    heat = SPOT.astype(float)
    outside = np.where(LESION, 0.3 * heat, 9.0)
    one, other = perturbation_curves(answer, PHOTO, heat, LESION), perturbation_curves(answer, PHOTO, outside, LESION)
    assert np.array_equal(one.deleting, other.deleting) and np.array_equal(one.inserting, other.inserting)
    assert one.deleting[0] == one.inserting[-1] == pytest.approx(1)  # the whole photo


def test_the_top_region_has_the_share_asked_for_and_stays_inside() -> None:
    region = top_region(np.where(LESION, SPOT.astype(float), 9.0), LESION, 0.25)
    assert np.array_equal(region, SPOT)
    assert top_region(np.zeros((16, 16)), LESION, 0.0).sum() == 1


def test_removing_the_spot_moves_the_answer_more_than_chance() -> None:
    found = removal_effect(answer, PHOTO, SPOT, LESION, np.random.default_rng(0))
    assert found.drop > 0.9 and found.random < 0.6 and found.more_than_random
    far = np.zeros((16, 16), bool)
    far[9:12, 6:12] = True
    assert not removal_effect(answer, PHOTO, far, LESION, np.random.default_rng(0)).more_than_random


def test_random_regions_have_the_area_asked_for_and_stay_inside() -> None:
    region = random_region(LESION, 20, np.random.default_rng(1))
    assert region.sum() == 20 and not (region & ~LESION).any()


def test_without_nothing_the_photo_is_as_it_was() -> None:
    assert torch.equal(without(PHOTO, np.zeros((1, 16, 16), bool)), PHOTO)
    torch.testing.assert_close(without(PHOTO, np.ones((1, 16, 16), bool)), blurred(PHOTO))


def test_alike_maps() -> None:
    heat = np.random.default_rng(0).random((16, 16))
    assert rank_correlation(heat, heat**3) == pytest.approx(1) and rank_correlation(heat, -heat) == pytest.approx(-1)
    assert np.isnan(rank_correlation(heat, np.zeros((16, 16))))
    assert ssim(heat, heat) == pytest.approx(1) and ssim(heat, 1 - heat) < 0.2
