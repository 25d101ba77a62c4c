from __future__ import annotations

import numpy as np
import pytest

from skinclip.core import assessment as record
from skinclip.core.vocabulary import CRITERIA, DIAGNOSES
from skinclip.imaging.overlay import REGION_COLOURS, colour_of, heatmap_overlay, hex_colour, ink_of, region_overlay


def box(x0: float, y0: float, x1: float, y1: float) -> record.Polygon:
    return ((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def make(width: int, height: int, regions: list[record.Polygon], lesion: record.Polygon | None) -> record.Assessment:
    polygons = (lesion,) if lesion else ()
    findings = tuple(
        record.Finding(
            f"r{i + 1}",
            CRITERIA[i % len(CRITERIA)].code,
            CRITERIA[i % len(CRITERIA)].states[0].code,
            0.5,
            record.Region((0, 0, 1, 1), (p,)),
        )
        for i, p in enumerate(regions)
    )
    return record.Assessment(
        model=record.ModelInfo("mini", "0", "0"),
        photo=record.PhotoInfo(width, height, "0", record.Quality(True)),
        context=record.Context(),
        diagnosis=tuple(record.DiagnosisProbability(d.code, d.name, 1 / len(DIAGNOSES)) for d in DIAGNOSES),
        prediction_set=record.PredictionSet(0.9, ()),
        malignancy=record.Malignancy(0.1, 0.2, False),
        shift=record.Shift(0.5, True),
        lesion=record.Lesion(None, polygons, 0.1),
        findings=findings,
        criteria={},
        rationale="",
        abstained=False,
    )


def count(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == np.array(colour)).all(-1).sum())


@pytest.fixture
def grey() -> np.ndarray:
    return np.full((240, 320, 3), 90, np.uint8)


def test_each_finding_is_drawn_in_its_colour_and_alone_when_asked(grey: np.ndarray) -> None:
    both = make(320, 240, [box(60, 60, 120, 120), box(180, 120, 240, 180)], box(30, 30, 280, 210))
    every, first = region_overlay(grey, both), region_overlay(grey, both, "r1")
    assert count(every, colour_of(0)) > 100 and count(every, colour_of(1)) > 100
    assert count(first, colour_of(0)) > 100 and count(first, colour_of(1)) == 0
    assert count(region_overlay(grey, both, "none"), colour_of(0)) == 0
    assert not np.array_equal(every[90, 90], grey[90, 90])  # lightly filled
    assert (grey == 90).all()  # the photo itself is not drawn on


def test_a_finding_about_the_lesion_as_a_whole_is_a_number_until_chosen(grey: np.ndarray) -> None:
    whole = box(60, 50, 260, 190)
    one = make(320, 240, [whole], whole)
    every, alone = region_overlay(grey, one), region_overlay(grey, one, "r1")
    assert 0 < count(every, colour_of(0)) < count(alone, colour_of(0))
    assert np.array_equal(alone[110, 160], grey[110, 160])  # its colours are part of what it shows: no tint


def test_a_scaled_copy_of_the_photo_is_drawn_in_its_own_pixels(grey: np.ndarray) -> None:
    large = make(3200, 2400, [box(600, 600, 1200, 1200)], None)
    small = make(320, 240, [box(60, 60, 120, 120)], None)
    assert np.array_equal(region_overlay(grey, large), region_overlay(grey, small))


@pytest.mark.parametrize("size", [(70, 64), (320, 240), (2000, 1500)])
def test_badges_stay_apart_and_inside_at_any_size(size: tuple[int, int]) -> None:
    from skinclip.imaging import overlay

    outline = np.array([(0, 0), (size[0], 0), (size[0], size[1]), (0, size[1])], float)
    radius = max(8, round(min(size) / 28))
    taken: list[np.ndarray] = []
    for _ in range(6):
        taken.append(overlay._free_place(overlay._places([outline], bottom=False), taken, radius, *size))
    places = np.array(taken)
    assert (places >= radius).all() and (places <= np.array(size) - radius).all()
    gaps = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)) + 1e9 * np.eye(6)
    assert gaps.min() >= 2 * radius


def test_nothing_found_is_the_photo_itself(grey: np.ndarray) -> None:
    assert np.array_equal(region_overlay(grey, make(320, 240, [], None)), grey)


def test_degenerate_outlines_do_not_fail(grey: np.ndarray) -> None:
    point = ((5.0, 5.0),) * 3
    assert region_overlay(grey, make(320, 240, [point, ((1.0, 1.0), (2.0, 2.0))], point)).shape == grey.shape


def test_colours_repeat_after_the_last_and_their_ink_contrasts() -> None:
    assert colour_of(len(REGION_COLOURS)) == colour_of(0)
    assert len(set(REGION_COLOURS)) == len(REGION_COLOURS)
    assert hex_colour(0) == "#56b4e9"
    assert ink_of(1) == (0, 0, 0) and ink_of(7) == (255, 255, 255)  # on yellow, on black


def test_heat_map_leaves_cold_places_alone() -> None:
    pixels = np.full((20, 20, 3), 100, np.uint8)
    heat = np.zeros((10, 10), np.float32)  # a coarser map is stretched over the photo
    heat[:5] = 1
    out = heatmap_overlay(pixels, heat)
    assert out.shape == pixels.shape and out.dtype == np.uint8
    assert np.array_equal(out[15:], pixels[15:]) and not np.array_equal(out[:5], pixels[:5])


def test_heat_map_at_full_strength_is_the_colour_map() -> None:
    out = heatmap_overlay(np.zeros((4, 4, 3), np.uint8), np.ones((4, 4)), alpha=1.0)
    assert np.abs(out[0, 0].astype(int) - [252, 255, 164]).max() <= 1  # the bright end of inferno
