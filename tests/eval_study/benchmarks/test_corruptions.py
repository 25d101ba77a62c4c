"""Corruptions: what each severity does, by hand where a hand can."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from eval_study.benchmarks import corruptions
from eval_study.benchmarks.corruptions import KINDS, SEVERITIES, corrupt
from skinclip.imaging.examples import draw


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return draw("melanoma", 5, (120, 160))


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_higher_severity_is_farther_from_the_photo(kind: str, photo: np.ndarray) -> None:
    made = [corrupt(photo, kind, severity, rng()) for severity in SEVERITIES]
    assert all(m.shape == photo.shape and m.dtype == np.uint8 for m in made)
    far = [float(np.abs(m.astype(float) - photo).mean()) for m in made]
    assert far[0] > 0 and all(a < b for a, b in itertools.pairwise(far))


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_same_chance_gives_the_same_photo(kind: str, photo: np.ndarray) -> None:
    before = photo.copy()
    assert np.array_equal(corrupt(photo, kind, 3, rng()), corrupt(photo, kind, 3, rng()))
    assert np.array_equal(photo, before)


@pytest.mark.parametrize("kind", ["gaussian_noise", "shot_noise", "motion_blur", "hair"])
def test_another_chance_gives_another_photo(kind: str, photo: np.ndarray) -> None:
    assert not np.array_equal(corrupt(photo, kind, 3, rng()), corrupt(photo, kind, 3, np.random.default_rng(8)))


def test_what_cannot_be_done_is_an_error(photo: np.ndarray) -> None:
    for severity in (0, 6, -1):
        with pytest.raises(ValueError, match="severity"):
            corrupt(photo, "jpeg", severity, rng())
    with pytest.raises(ValueError, match="unknown corruption 'rain'; known are gaussian_noise"):
        corrupt(photo, "rain", 1, rng())
    with pytest.raises(ValueError, match="uint8"):
        corrupt(photo / 255, "jpeg", 1, rng())


def test_light_and_colour_by_hand() -> None:
    grey = np.full((8, 8, 3), 100, np.uint8)
    assert (corrupt(grey, "darkness", 2, rng()) == 60).all()
    assert (corrupt(grey, "brightness", 1, rng()) == 126).all()  # 100 + 25.5, rounded to even
    red, green, blue = corrupt(grey, "white_balance", 5, rng())[0, 0]
    assert green == 100 and {int(red), int(blue)} == {135, 74}  # 100 e^0.3 and 100 e^-0.3
    halves = grey.copy()
    halves[:4] = 200
    assert set(np.unique(corrupt(halves, "contrast", 1, rng()))) == {130, 170}  # 150 +- 0.4 * 50


def test_blur_keeps_what_is_uniform_and_the_sum_of_a_point() -> None:
    for kind in ("defocus_blur", "motion_blur", "low_resolution"):
        assert (corrupt(np.full((64, 64, 3), 90, np.uint8), kind, 5, rng()) == 90).all()
    point = np.zeros((101, 101, 3))
    point[50, 50] = 1.0
    for change, size in ((corruptions.defocus_blur, 6.0), (corruptions.motion_blur, 15.0)):
        spread = change(point, size, rng())
        assert spread.sum() == pytest.approx(3.0) and spread.max() < 0.5


def test_blur_grows_with_the_photo() -> None:
    def reach(side: int) -> int:
        point = np.zeros((side, side, 3))
        point[side // 2, side // 2] = 1.0
        return int((corruptions.defocus_blur(point, 8.0, rng())[side // 2, :, 0] > 1e-9).sum())

    assert reach(448) == pytest.approx(2 * reach(224), abs=3) and reach(224) == pytest.approx(17, abs=2)


def test_noise_has_the_stated_size() -> None:
    grey = np.full((200, 200, 3), 0.5)
    assert corruptions.gaussian_noise(grey, 0.18, rng()).std() == pytest.approx(0.18, rel=0.02)
    assert corruptions.shot_noise(grey, 12, rng()).std() == pytest.approx((0.5 / 12) ** 0.5, rel=0.02)


def test_hairs_of_a_low_severity_are_among_those_of_a_high_one(photo: np.ndarray) -> None:
    bright = np.full((100, 100, 3), 220, np.uint8)
    few, many = (corrupt(bright, "hair", s, rng()).astype(int).sum(axis=2) < 600 for s in (1, 5))
    assert few.any() and not (few & ~many).any() and many.sum() > 2 * few.sum()


def test_vignette_leaves_the_middle() -> None:
    light = np.full((101, 101, 3), 200, np.uint8)
    dark = corrupt(light, "vignette", 3, rng())
    assert (dark[50, 50] == 200).all() and (dark[0, 0] == 80).all()  # 0.6 of the light lost
