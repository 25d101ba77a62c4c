"""Regions on drawn maps whose outlines are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from skinclip.core.assessment import Polygon
from skinclip.explain.regions import lesion_region, mask_polygons, region_from_map

FULL = np.ones((56, 56), bool)


def bump(x: float, y: float, width: float = 0.1, side: int = 14) -> np.ndarray:
    """A Gaussian map [side, side] with its top at (x, y), shares of the window."""
    centres = (np.arange(side) + 0.5) / side
    return np.exp(-((centres[None] - x) ** 2 + (centres[:, None] - y) ** 2) / (2 * width**2)).astype(np.float32)


def disc(x: float, y: float, radius: float, side: int = 56) -> np.ndarray:
    centres = (np.arange(side) + 0.5) / side
    return np.hypot(centres[None] - x, centres[:, None] - y) < radius


def area(polygons: tuple[Polygon, ...]) -> float:
    return sum(cv2.contourArea(np.array(p, np.float32)) for p in polygons)


def middle(polygons: tuple[Polygon, ...]) -> tuple[float, float]:
    m = cv2.moments(np.array(polygons[0], np.float32))
    return m["m10"] / m["m00"], m["m01"] / m["m00"]


def test_region_lies_where_the_map_is_high_at_its_true_size() -> None:
    region = region_from_map(bump(0.3, 0.6), FULL, (400, 400))
    assert region is not None and len(region.polygons) == 1
    assert middle(region.polygons) == (pytest.approx(120, abs=2), pytest.approx(240, abs=2))
    half_height = 0.1 * np.sqrt(2 * np.log(2)) * 400  # where the bump falls to half
    assert area(region.polygons) == pytest.approx(np.pi * half_height**2, rel=0.1)
    assert region.box == pytest.approx(
        (120 - half_height, 240 - half_height, 120 + half_height, 240 + half_height), abs=6
    )


def test_map_and_mask_edges_meet_the_photo_edges() -> None:
    """Pixel-centre conventions: the upper left quarter of a map covers the upper left quarter of the window."""
    evidence = np.zeros((16, 16), np.float32)
    evidence[:8, :8] = 1
    region = region_from_map(evidence, FULL, (320, 320))
    assert region is not None
    assert region.box == pytest.approx((0, 0, 160, 160), abs=2.1)
    lesion = lesion_region(FULL, (320, 640))
    assert lesion.box == pytest.approx((0, 0, 640, 320), abs=1.0)
    assert lesion.area_fraction == 1


def test_window_offset_and_shape_move_and_stretch_the_outlines() -> None:
    evidence, mask = bump(0.3, 0.6), disc(0.4, 0.5, 0.35)
    plain = region_from_map(evidence, mask, (100, 100))
    moved = region_from_map(evidence, mask, (200, 300), (50, 7))
    assert plain is not None and moved is not None
    for (x, y), (u, v) in zip(plain.polygons[0], moved.polygons[0], strict=True):
        assert (u, v) == (pytest.approx(50 + 3 * x, abs=0.25), pytest.approx(7 + 2 * y, abs=0.25))


@pytest.mark.parametrize("seed", range(8))
def test_region_stays_in_the_lesion_and_covers_at_most_its_share(seed: int) -> None:
    evidence = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(14, 14)).astype(np.float32), (0, 0), 1.5)
    mask = disc(0.45, 0.5, 0.3)
    for share in (0.4, 0.15):
        region = region_from_map(evidence, mask, (400, 400), max_share=share)
        assert region is not None
        assert 0 < area(region.polygons) <= share * np.pi * (0.3 * 400) ** 2 * 1.03
        points = np.concatenate([np.array(p) for p in region.polygons])
        assert np.hypot(points[:, 0] - 180, points[:, 1] - 200).max() < 120 + 6
        assert region.box == (*points.min(axis=0), *points.max(axis=0))


def test_evidence_outside_the_lesion_does_not_count() -> None:
    evidence = bump(0.7, 0.7) + 50 * bump(0.05, 0.05, 0.03)
    region = region_from_map(evidence, disc(0.7, 0.7, 0.25), (100, 100))
    assert region is not None
    assert middle(region.polygons) == (pytest.approx(70, abs=2), pytest.approx(70, abs=2))


def test_two_places_give_two_outlines_in_one_box_and_specks_none() -> None:
    evidence = np.maximum(bump(0.2, 0.2, 0.06, 28), bump(0.8, 0.8, 0.06, 28))
    region = region_from_map(evidence, FULL, (100, 100))
    assert region is not None and len(region.polygons) == 2
    assert region.box[0] < 20 < 80 < region.box[2]
    speck = np.maximum(bump(0.3, 0.3, 0.12, 56), bump(0.9, 0.9, 0.008, 56))
    region = region_from_map(speck, FULL, (100, 100))
    assert region is not None and len(region.polygons) == 1


def test_saturated_map_and_ring_still_respect_the_share() -> None:
    plateau = np.clip(4 * bump(0.5, 0.5, 0.25), 0, 1)
    ring = bump(0.5, 0.5, 0.3, 56) - bump(0.5, 0.5, 0.2, 56)  # filled, it covers more than its own area
    for evidence in (plateau, ring):
        region = region_from_map(evidence, FULL, (100, 100))
        assert region is not None
        assert 0 < area(region.polygons) <= 0.41 * 100 * 100


def test_nothing_is_pointed_at_without_lesion_or_contrast() -> None:
    assert region_from_map(bump(0.5, 0.5), np.zeros((56, 56), bool), (100, 100)) is None
    assert region_from_map(np.full((14, 14), 3.0), FULL, (100, 100)) is None
    assert region_from_map(np.full((14, 14), np.nan), FULL, (100, 100)) is None


@pytest.mark.parametrize("scale", [0.5, 2.0, 10.0])
def test_another_photo_size_scales_the_outlines(scale: float) -> None:
    evidence, mask = bump(0.35, 0.55), disc(0.4, 0.5, 0.3)
    base = region_from_map(evidence, mask, (400, 400))
    other = region_from_map(evidence, mask, (400 * scale, 400 * scale))
    assert base is not None and other is not None
    assert np.array(other.box) / scale == pytest.approx(np.array(base.box), abs=0.2)
    assert [len(p) for p in base.polygons] == [len(p) for p in other.polygons]
    lesion = lesion_region(mask, (400 * scale, 400 * scale))
    assert area(lesion.polygons) / scale**2 == pytest.approx(area(lesion_region(mask, (400, 400)).polygons), rel=0.01)


def test_scale_and_shift_of_the_map_do_not_change_the_region() -> None:
    evidence = bump(0.35, 0.55)
    assert region_from_map(evidence, FULL, (90, 90)) == region_from_map(8 * evidence - 2, FULL, (90, 90))


def test_lesion_keeps_large_parts_and_fills_holes() -> None:
    mask = disc(0.3, 0.3, 0.2) | disc(0.75, 0.75, 0.1) | disc(0.9, 0.1, 0.03)
    whole = lesion_region(mask, (200, 200))
    assert len(whole.polygons) == 2
    assert whole.area_fraction == pytest.approx(np.pi * (0.2**2 + 0.1**2), rel=0.03)
    assert area(whole.polygons) == pytest.approx(whole.area_fraction * 200**2, rel=0.05)
    holed = mask & ~disc(0.3, 0.3, 0.05)
    assert lesion_region(holed, (200, 200)) == whole


def test_float_lesion_is_cut_at_one_half() -> None:
    soft = np.clip(1 - bump(0.5, 0.5, 0.2, 56), 0, 1)
    inside = lesion_region(1 - soft, (100, 100))
    assert inside.area_fraction == pytest.approx(np.pi * 0.2**2 * 2 * np.log(2), rel=0.03)


def test_no_lesion() -> None:
    lesion = lesion_region(np.zeros((56, 56), bool), (200, 200))
    assert (lesion.box, lesion.polygons, lesion.area_fraction) == (None, (), 0.0)


def test_area_is_of_the_photo_and_outlines_stay_on_it() -> None:
    lesion = lesion_region(FULL, (100, 100), (50, 0), photo_size=(100, 200))
    assert lesion.area_fraction == 0.5
    assert lesion.box == pytest.approx((50, 0, 150, 100), abs=0.5)
    padded = lesion_region(FULL, (200, 200), (0, -50), photo_size=(100, 200))
    assert padded.box == pytest.approx((0, 0, 200, 100), abs=0.5)


def test_mask_polygons_of_a_rectangle_and_of_a_large_mask() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    (polygon,) = mask_polygons(mask)
    assert (min(polygon), max(polygon)) == (pytest.approx((20, 10), abs=0.6), pytest.approx((50, 30), abs=0.6))
    assert area((polygon,)) == pytest.approx(600, rel=0.05)
    large = np.zeros((900, 1200), bool)
    large[100:800, 300:900] = True
    assert area(mask_polygons(large)) == pytest.approx(700 * 600, rel=0.01)
    assert mask_polygons(np.zeros((5, 5), bool)) == ()
