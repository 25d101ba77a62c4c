"""Measurements on drawn lesions whose asymmetry, border and colours are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from skinclip.imaging.abcd_features import (
    COLOURS,
    SKIN,
    Limits,
    Measurements,
    MeasureThresholds,
    colour_shares,
    effective_colours,
    measure_lesion,
    measured_findings,
)


def drawn(
    side: int = 160, axes: tuple[float, float] = (0.28, 0.28), angle: float = 0.0, centre=(0.5, 0.5)
) -> np.ndarray:
    """Bool [side, side] with an ellipse; lengths are shares of the side."""
    mask = np.zeros((side, side), np.uint8)
    middle = (round(centre[0] * side), round(centre[1] * side))
    cv2.ellipse(mask, middle, (round(axes[0] * side), round(axes[1] * side)), angle, 0, 360, 1, cv2.FILLED)
    return mask > 0


def painted(mask: np.ndarray, *colours: str, gain: float = 1.0) -> np.ndarray:
    """Skin with the lesion in vertical bands of the named colours, equally large; `gain` is the light."""
    pixels = np.empty((*mask.shape, 3), float)
    pixels[:] = SKIN
    cols = np.nonzero(mask)[1]
    edges = np.quantile(cols, np.linspace(0, 1, len(colours) + 1))
    edges[-1] += 1
    for name, left, right in zip(colours, edges[:-1], edges[1:], strict=True):
        columns = np.arange(mask.shape[1])
        pixels[mask & (columns >= left) & (columns < right)] = COLOURS[name]
    return np.clip(np.round(pixels * gain), 0, 255).astype(np.uint8)


def measure(mask: np.ndarray, *colours: str) -> Measurements:
    return measure_lesion(painted(mask, *(colours or ("light brown",))), mask)


def lobed(side: int = 160, lobes: int = 7, depth: float = 0.3) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.hypot(x, y) < 0.28 * side * (1 + depth * np.cos(lobes * np.arctan2(y, x)))


@pytest.mark.parametrize("angle", [0, 30, 77])
def test_ellipse_is_symmetric_and_regular_at_any_angle(angle: float) -> None:
    measured = measure(drawn(axes=(0.38, 0.2), angle=angle))
    assert measured.asymmetry is not None and measured.border_irregularity is not None
    assert measured.asymmetry < 0.03
    assert measured.border_irregularity < 0.05
    assert not measured.touches_border
    assert [key for key, _ in measured_findings(measured)][:2] == ["asymmetry:symmetric", "border:regular"]


def test_half_disc_is_asymmetric_about_one_axis_alone() -> None:
    mask = drawn(side=480)
    mask[:, :240] = False
    # Unit half disc, centroid at 4 / (3 pi): mirrored across it, the overlap is that of two circular segments.
    c = 4 / (3 * np.pi)
    x = np.linspace(0, 2 * c, 200_001)
    overlap = 2 * np.minimum(np.sqrt(1 - x**2), np.sqrt(1 - (2 * c - x) ** 2)).mean() * 2 * c
    expected = (1 - overlap / (np.pi / 2)) / 2
    assert measure(mask).asymmetry == pytest.approx(expected, abs=0.02)


def test_lobed_outline_is_irregular_and_plain_one_is_not() -> None:
    plain, wavy = measure(drawn()), measure(lobed())
    assert plain.border_irregularity is not None and wavy.border_irregularity is not None
    assert wavy.border_irregularity > 0.25 > 0.05 > plain.border_irregularity
    assert dict(measured_findings(wavy))["border:irregular"] == 1.0


def test_measurements_do_not_depend_on_resolution_or_place() -> None:
    def shape(side: int, centre: tuple[float, float]) -> np.ndarray:
        return drawn(side, (0.2, 0.13), 20, centre) | drawn(side, (0.1, 0.1), 0, (centre[0] + 0.12, centre[1] + 0.1))

    base = measure(shape(160, (0.45, 0.45)))
    for other in (measure(shape(640, (0.45, 0.45))), measure(shape(224, (0.6, 0.55)))):
        assert other.asymmetry == pytest.approx(base.asymmetry, abs=0.02)
        assert other.border_irregularity == pytest.approx(base.border_irregularity, abs=0.02)


def test_lesion_that_the_photo_cuts_off_has_no_measured_shape() -> None:
    measured = measure(drawn(centre=(0.2, 0.5)), "dark brown")
    assert measured.touches_border
    assert measured.asymmetry is None and measured.border_irregularity is None
    assert measured.colours == 1
    assert [key for key, _ in measured_findings(measured)] == ["colour:uniform"]


def test_no_lesion_no_measurement() -> None:
    skin = np.full((80, 90, 3), SKIN, np.uint8)
    empty = measure_lesion(skin, np.zeros((80, 90), bool))
    assert empty == Measurements(None, None, None, False)
    assert measured_findings(empty) == ()
    assert measure_lesion(skin, np.ones((80, 90), bool)).touches_border


def test_specks_and_holes_do_not_change_the_shape() -> None:
    mask = drawn()
    spoiled = mask.copy()
    spoiled[70:75, 78:84] = False
    spoiled[2:6, 2:6] = True
    assert measure(spoiled).asymmetry == measure(mask).asymmetry
    assert measure(spoiled).border_irregularity == measure(mask).border_irregularity


@pytest.mark.parametrize("gain", [0.75, 1.0, 1.15])
def test_colours_are_counted_in_any_light(gain: float) -> None:
    mask = drawn()
    colours = ("light brown", "dark brown", "blue-grey", "black")
    shares = colour_shares(painted(mask, *colours, gain=gain), mask)
    assert {name for name, share in shares.items() if share > 0.15} == set(colours)
    assert measure_lesion(painted(mask, *colours, gain=gain), mask).colours == pytest.approx(4, abs=0.1)


def test_each_colour_is_its_own_and_skin_is_none() -> None:
    mask = drawn()
    for name in COLOURS:
        assert colour_shares(painted(mask, name), mask)[name] > 0.99
    plain = np.empty((160, 160, 3), np.uint8)
    plain[:] = SKIN
    assert sum(colour_shares(plain, mask).values()) == 0
    assert measure_lesion(plain, mask).colours is None


def test_effective_number_of_colours() -> None:
    assert effective_colours({"red": 0.5, "black": 0.5}) == pytest.approx(2)
    assert effective_colours({"red": 0.3, "black": 0.3, "white": 0.029}) == pytest.approx(2)  # under 3 %
    assert effective_colours({"red": 0.9, "black": 0.1}) == pytest.approx(
        np.exp(-0.9 * np.log(0.9) - 0.1 * np.log(0.1))
    )
    assert effective_colours({"red": 0.0}) is None


def test_only_clear_measurements_become_findings() -> None:
    limits = MeasureThresholds(Limits(0.1, 0.2, 0.4, 0.6), Limits(0.1, 0.2, 0.4, 0.6), Limits(1, 2, 4, 5))

    def findings(asymmetry: float | None, border: float | None, colours: float | None):
        return measured_findings(Measurements(asymmetry, border, colours, False), limits)

    assert findings(0.3, 0.21, 3) == ()
    assert findings(0.2, 0.5, 5) == (
        ("asymmetry:symmetric", 0.5),
        ("border:irregular", pytest.approx(0.75)),
        ("colour:variegated", 1.0),
    )
    assert findings(None, 0.0, 2) == (("border:regular", 1.0), ("colour:uniform", 0.5))


def test_pixels_and_mask_must_belong_together() -> None:
    with pytest.raises(ValueError, match="got"):
        measure_lesion(np.zeros((10, 12, 3), np.uint8), np.zeros((12, 10), bool))
