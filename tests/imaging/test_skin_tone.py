import cv2
import numpy as np
import pytest

from skinclip.imaging.examples import draw_with_mask
from skinclip.imaging.skin_tone import individual_typology_angle

SIZE = (300, 400)
LIGHT, MEDIUM, DARK = (226, 190, 170), (190, 145, 115), (95, 65, 50)


def expected(colour: tuple[int, int, int]) -> float:
    light, _, b = cv2.cvtColor(np.float32([[colour]]) / 255, cv2.COLOR_RGB2LAB)[0, 0]
    return float(np.degrees(np.arctan2(light - 50, b)))


def drawn(skin: tuple[int, int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A brown lesion with a red halo on grainy skin, and its mask."""
    rng = np.random.default_rng(seed)
    photo = np.clip(np.array(skin) + rng.normal(0, 4, (*SIZE, 1)), 0, 255).astype(np.uint8)
    mask = np.zeros(SIZE, np.uint8)
    cv2.ellipse(mask, (200, 150), (70, 50), 0, 0, 360, 1, -1)
    halo = cv2.dilate(mask, np.ones((9, 9), np.uint8)) > 0
    photo[halo] = (photo[halo] * np.array([1.0, 0.75, 0.75])).astype(np.uint8)
    photo[mask > 0] = (70, 45, 35)
    return photo, mask > 0


@pytest.mark.parametrize("skin", [LIGHT, MEDIUM, DARK])
def test_equals_the_angle_of_the_skins_colour(skin):
    photo, mask = drawn(skin)
    assert individual_typology_angle(photo, mask) == pytest.approx(expected(skin), abs=2.5)


def test_falls_as_skin_gets_darker():
    angles = [individual_typology_angle(*drawn(skin)) for skin in (LIGHT, MEDIUM, DARK)]
    assert angles[0] > 50 > angles[1] > 10 > -30 > angles[2] - 30 and angles == sorted(angles, reverse=True)


def with_hair(photo: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    for _ in range(25):
        ends = rng.integers(0, 300, (2, 2))
        cv2.line(photo, tuple(map(int, ends[0])), tuple(map(int, ends[1] + 80)), (30, 20, 15), 2)
    return photo


def with_dark_corners(photo: np.ndarray) -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    distance = np.hypot(rows - 150, columns - 200)
    shade = np.clip((165 - distance) / 12, 0, 1)[..., None]
    return (photo * shade).astype(np.uint8)


def with_ruler(photo: np.ndarray) -> np.ndarray:
    for x in range(10, 390, 8):
        cv2.line(photo, (x, 240), (x, 240 + (14 if x % 40 == 10 else 8)), (10, 10, 10), 1)
    return photo


def with_glare(photo: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(2)
    for _ in range(60):
        centre = tuple(int(v) for v in (rng.integers(0, 400), rng.integers(0, 300)))
        cv2.circle(photo, centre, int(rng.integers(1, 4)), (255, 255, 255), -1)
    return photo


def with_ink(photo: np.ndarray) -> np.ndarray:
    cv2.circle(photo, (60, 60), 30, (60, 60, 170), -1)
    cv2.line(photo, (300, 20), (390, 200), (70, 50, 160), 12)
    return photo


@pytest.mark.parametrize("skin", [LIGHT, MEDIUM, DARK])
@pytest.mark.parametrize("spoil", [with_hair, with_dark_corners, with_ruler, with_glare, with_ink])
def test_what_is_no_skin_hardly_moves_it(skin, spoil):
    photo, mask = drawn(skin)
    assert individual_typology_angle(spoil(photo.copy()), mask) == pytest.approx(expected(skin), abs=4)


def test_size_and_aspect_do_not_matter():
    photo, mask = drawn(MEDIUM)
    large = cv2.resize(photo, (1600, 1200)), cv2.resize(mask.astype(np.uint8), (1600, 1200)) > 0
    assert individual_typology_angle(*large) == pytest.approx(individual_typology_angle(photo, mask), abs=1.5)


def test_without_skin_it_is_unknown():
    photo, _ = drawn(LIGHT)
    assert np.isnan(individual_typology_angle(photo, np.ones(SIZE, bool)))
    assert np.isnan(individual_typology_angle(np.zeros_like(photo), np.zeros(SIZE, bool)))
    assert np.isfinite(individual_typology_angle(*draw_with_mask("nevus", 3, (200, 200))))
