from __future__ import annotations

import numpy as np
import pytest

from skinclip.imaging.photo import PhotoError, from_array, load_photo
from skinclip.imaging.reframe import Frame, reframed

PIXELS = np.arange(200 * 300 * 3, dtype=np.uint32).reshape(200, 300, 3).astype(np.uint8)


def test_a_quarter_turn_and_a_crop_move_pixels_and_change_none() -> None:
    part = load_photo(reframed(from_array(PIXELS), Frame(1, (0.5, 0.0, 1.0, 0.5)))).pixels
    turned = np.rot90(PIXELS, -1)  # clockwise: 300 rows, 200 columns
    np.testing.assert_array_equal(part, turned[0:150, 100:200])


def test_the_change_is_told_in_words() -> None:
    assert Frame(1, (0, 0, 1, 1)).in_words == "turned right"
    assert Frame(0, (0.1, 0.2, 0.7, 0.7)).in_words == "cropped to 60\u00a0% × 50\u00a0%"
    assert Frame(3, (0, 0, 0.5, 1)).in_words == "turned left, cropped to 50\u00a0% × 100\u00a0%"


@pytest.mark.parametrize(
    "asked", [{}, {"turns": 9, "box": [0, 0, 1, 1]}, {"turns": 0, "box": [0.5, 0, 0.4, 1]}, {"turns": "x", "box": None}]
)
def test_what_is_no_part_of_the_photo_is_refused(asked: dict) -> None:
    with pytest.raises(ValueError, match="Choose it again"):
        Frame.of(asked)


def test_too_small_a_part_is_refused() -> None:
    with pytest.raises(PhotoError, match="smaller than 64 pixels"):
        reframed(from_array(PIXELS), Frame(0, (0, 0, 0.1, 0.1)))
