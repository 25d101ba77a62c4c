"""Windows and views of packed photos against OpenCV's crops."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from eval_study.gpu.photos import (
    MISSING,
    Photos,
    boxes,
    drawn_window,
    grid,
    lesion_window,
    recoloured,
    sample,
    whole_window,
)


def one_photo(aspect: float = 1.0, box: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Photos:
    """A photo of smooth noise."""
    rng = np.random.default_rng(0)
    noise = cv2.resize(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8), (256, 256))
    pixels = torch.from_numpy(noise).permute(2, 0, 1).unsqueeze(0)
    none = torch.tensor([MISSING])
    empty = torch.zeros(1, 256, 256, dtype=torch.uint8)
    return Photos(
        [{"source": "made", "lesion_id": "l", "kind": "dermoscopy", "split": "train"}],
        pixels,
        empty,
        torch.tensor([False]),
        torch.zeros(0, 5, 256, 256, dtype=torch.uint8),
        none,
        none,
        torch.zeros(1, 9, 3, dtype=torch.bool),
        torch.zeros(1, 9),
        torch.tensor([aspect]),
        torch.tensor([box]),
        torch.tensor([0]),
        none,
        ["made/dermoscopy"],
    )


def view(photos: Photos, window: Tensor, side: int) -> np.ndarray:
    index = torch.tensor([0])
    drawn = sample(photos.pixels, grid(photos, index, window, side, turn=False))
    return drawn[0].permute(1, 2, 0).numpy() * 255


@pytest.mark.parametrize("side", [256, 160])
def test_the_whole_photo_is_its_resized_self(side: int) -> None:
    photos = one_photo()
    expected = cv2.resize(photos.pixels[0].permute(1, 2, 0).numpy(), (side, side), interpolation=cv2.INTER_LINEAR)
    given = view(photos, whole_window(photos, torch.tensor([0])), side)
    assert np.abs(given - expected).max() <= 1.0


@pytest.mark.parametrize("side", [128, 200, 96])
def test_a_window_is_the_crop(side: int) -> None:
    photos = one_photo()
    crop = photos.pixels[0].permute(1, 2, 0).numpy()[32:160, 64:192]
    given = view(photos, torch.tensor([[0.5, 0.375, 0.5]]), side)
    expected = cv2.resize(crop, (side, side), interpolation=cv2.INTER_LINEAR)
    inner = slice(2, -2)  # OpenCV repeats the crop's own edge, the view goes on into the photo
    assert np.abs(given - expected)[inner, inner].max() <= 1.0


def test_a_wide_photo_is_drawn_undistorted() -> None:
    photos = one_photo(aspect=4 / 3)
    assert whole_window(photos, torch.tensor([0])).tolist() == [[pytest.approx(2 / 3), 0.5, 1.0]]
    given = view(photos, whole_window(photos, torch.tensor([0])), 256)
    wide = cv2.resize(photos.pixels[0].permute(1, 2, 0).numpy(), (341, 256), interpolation=cv2.INTER_LINEAR)
    shifted = wide[:, 42:298].astype(float)  # the centred square, within half a pixel
    assert np.abs(given - shifted).mean() < 6 < np.abs(given - photos.pixels[0].permute(1, 2, 0).numpy()).mean()


def test_the_second_look_is_the_lesion_with_a_margin() -> None:
    mask = torch.zeros(1, 256, 256, dtype=torch.uint8)
    mask[0, 64:128, 64:192] = 255
    box = boxes(mask, torch.tensor([1.0]))
    assert box.tolist() == [[0.5, 0.375, 0.5]]
    photos, index = one_photo(box=tuple(box[0].tolist())), torch.tensor([0])
    assert lesion_window(photos, index, box).tolist() == [[0.5, 0.375, pytest.approx(0.675)]]
    nothing = torch.zeros(1, 3)
    assert torch.equal(lesion_window(photos, index, nothing), whole_window(photos, index))
    filled = torch.full((1, 256, 256), 255, dtype=torch.uint8)
    assert boxes(filled, torch.tensor([1.0]))[0, 2] == 0  # a mask that fills the photo shows no place


def test_random_windows_stay_near_the_photo_and_colours_in_range() -> None:
    photos = one_photo(box=(0.5, 0.5, 0.3))
    windows = drawn_window(photos, torch.zeros(500, dtype=torch.long))
    assert windows[:, 2].min() >= 0.22 and windows[:, 2].max() <= 1.1 + 1e-6
    assert windows[:, :2].min() > 0.3 and windows[:, :2].max() < 0.7
    assert (windows[:, 2] < 0.6).float().mean() == pytest.approx(0.55, abs=0.08)  # about half are the lesion
    again = recoloured(torch.rand(6, 3, 32, 32))
    assert again.min() >= 0 and again.max() <= 1
