"""Photos and masks as arrays: crop, scale, missing masks, cache."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skinclip.data.cases import Case, DataError
from skinclip.data.photos import NO_MASK, load_masks, load_photos


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """A photo of 128 x 64 pixels, red in the left quarter, green in the middle half, blue in the right quarter."""
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:, :32, 0] = pixels[:, 32:96, 1] = pixels[:, 96:, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask = np.zeros((64, 128), np.uint8)
    mask[:32, 32:64] = 255  # the upper left quarter of the centred square
    Image.fromarray(mask).save(tmp_path / "a_mask.png")
    return Case(tmp_path / "a.png", "a", "made_up", "a", mask=tmp_path / "a_mask.png")


def test_square_takes_the_centre_and_squash_the_whole(case: Case) -> None:
    square = load_photos([case, case], 16)
    assert square.shape == (2, 16, 16, 3)
    assert square.dtype == np.uint8
    assert (square == [0, 255, 0]).all()
    squashed = load_photos([case], 16, crop="squash")[0]
    assert (squashed[:, :4] == [255, 0, 0]).all()
    assert (squashed[:, 4:12] == [0, 255, 0]).all()
    assert (squashed[:, 12:] == [0, 0, 255]).all()


def test_masks_follow_the_photo(case: Case) -> None:
    square = load_masks([case, dataclasses.replace(case, mask=None)], 8)
    assert square.dtype == np.uint8
    assert square[0].tolist() == [[1] * 4 + [0] * 4] * 4 + [[0] * 8] * 4
    assert (square[1] == NO_MASK).all()
    squashed = load_masks([case], 8, crop="squash")[0]
    assert squashed.tolist() == [[0, 0, 1, 1, 0, 0, 0, 0]] * 4 + [[0] * 8] * 4


def test_masks_of_0_and_1(case: Case) -> None:
    expected = load_masks([case], 8)
    Image.fromarray(np.asarray(Image.open(case.mask)) // 255).save(case.mask)
    assert np.array_equal(load_masks([case], 8), expected)


def test_enlarging_is_smooth(case: Case) -> None:
    """The same interpolation as at inference: small photos must not show blocks in training alone."""
    Image.fromarray(np.tile(np.arange(0, 256, 4, np.uint8), (64, 1))).convert("RGB").save(case.image)
    row = load_photos([case], 256)[0, 0, :, 0].astype(int)
    assert np.diff(row).max() <= 2


def test_cache_is_used_and_renewed(case: Case, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = load_photos([case], 16, cache_dir=cache)
    assert len(list(cache.iterdir())) == 1
    data = case.image.read_bytes()
    case.image.write_bytes(bytes(len(data)))  # unreadable, of the same length: only the cache can answer
    assert np.array_equal(load_photos([case], 16, cache_dir=cache), first)
    for changes in ({"crop": "squash"}, {"size": 32}):
        with pytest.raises(DataError):
            load_photos([case], **({"size": 16, "cache_dir": cache} | changes))
    case.image.write_bytes(data + b" ")  # another file of that name
    load_photos([case], 16, cache_dir=cache)
    load_masks([case], 16, cache_dir=cache)
    assert len(list(cache.iterdir())) == 3


def test_bad_files_are_named(case: Case) -> None:
    case.image.write_bytes(case.image.read_bytes()[:60])
    with pytest.raises(DataError, match=r"a\.png"):
        load_photos([case], 16)
    assert case.mask is not None
    case.mask.write_bytes(b"no mask")
    with pytest.raises(DataError, match=r"a_mask\.png cannot be decoded"):
        load_masks([case], 16)
    with pytest.raises(ValueError, match="crop 'circle'"):
        load_photos([case], 16, crop="circle")


def test_no_cases() -> None:
    assert load_photos([], 8).shape == (0, 8, 8, 3)
    assert load_masks([], 8).shape == (0, 8, 8)
