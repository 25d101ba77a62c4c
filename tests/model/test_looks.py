"""Two looks at a lesion: where the second one goes, what a change inside it does to the first, two photos together."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from skinclip.core.assessment import Context
from skinclip.core.config import EvidenceConfig, ModelConfig, PerceptionConfig
from skinclip.imaging.photo import LesionImage, from_array
from skinclip.imaging.transform import PhotoTransform
from skinclip.model import inference
from skinclip.model.inference import forward_batch, forward_changed, look
from skinclip.model.looks import LEAST_SIDE, MARGIN, LookBehind, RelativeWindows, lesion_windows_of
from skinclip.model.skinclip_vl import SkinClipVL, new_model

SIDE = 64
TWO = PerceptionConfig(
    "ensemble", "derm-clip-mini", None, 2, SIDE, levels=(1, 2, 3, 4), token_levels=(2, 3, 4), flips=False, looks=2
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_config: ModelConfig) -> SkinClipVL:
    """Two untrained towers that take a look each."""
    torch.manual_seed(3)
    pyramid = EvidenceConfig(kind="pyramid", coarse_width=8, fine_width=8)
    config = dataclasses.replace(tiny_config, perception=TWO, evidence=pyramid)
    return new_model(config, tmp_path_factory.mktemp("two")).eval()


def blob(mask: tuple[slice, slice], side: int = 40) -> torch.Tensor:
    logits = torch.full((1, side, side), -5.0)
    logits[(0, *mask)] = 5.0
    return logits


def spot(side: int, centre: tuple[int, int], radius: int, seed: int = 0) -> LesionImage:
    """A dark spot on light skin."""
    y, x = np.mgrid[:side, :side]
    pixels = np.full((side, side, 3), (205, 170, 150), np.float64)
    pixels[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2] = (80, 50, 40)
    pixels += np.random.default_rng(seed).normal(0, 3, pixels.shape)
    return from_array(pixels.clip(0, 255).astype(np.uint8))


def test_the_second_look_holds_the_lesion_with_a_margin() -> None:
    places = lesion_windows_of(blob((slice(10, 22), slice(20, 28))))
    assert float(places.side[0]) == pytest.approx(12 / 40 * MARGIN)
    assert places.centre[0].tolist() == pytest.approx([24 / 40, 16 / 40])


def test_a_small_lesion_is_not_looked_at_pixel_by_pixel() -> None:
    places = lesion_windows_of(blob((slice(1, 5), slice(36, 40))))
    side = float(places.side[0])
    assert side == LEAST_SIDE
    low, high = places.centre[0] - side / 2, places.centre[0] + side / 2
    assert (low >= -1e-6).all() and (high <= 1 + 1e-6).all(), "the window reaches past the photo"


@pytest.mark.parametrize("mask", [(slice(0, 1), slice(0, 1)), (slice(0, 40), slice(0, 40))])
def test_without_a_lesion_the_whole_photo_is_looked_at_again(mask: tuple[slice, slice]) -> None:
    places = lesion_windows_of(blob(mask))
    assert float(places.side[0]) == 1.0 and places.centre[0].tolist() == [0.5, 0.5]


def test_a_window_is_cut_where_it_lies() -> None:
    photos = torch.rand(1, 3, 80, 80)
    places = RelativeWindows(torch.tensor([[0.25, 0.5]]), torch.tensor([0.5]))
    torch.testing.assert_close(places.cut(photos, 40), photos[:, :, 20:60, 0:40], atol=1e-5, rtol=0)


def test_a_change_in_the_window_is_carried_over_to_the_first_look() -> None:
    photo, place = torch.rand(1, 3, 80, 80), RelativeWindows(torch.tensor([[0.25, 0.5]]), torch.tensor([0.5]))
    window = F.interpolate(photo[:, :, 20:60, 0:40], (80, 80), mode="bilinear", align_corners=False)
    behind = LookBehind(photo, window, place)
    torch.testing.assert_close(behind.with_windows(window), photo)
    changed = window.clone()
    changed[:, :, 0:40, 40:80] += 0.5  # the upper right quarter of the window
    difference = (behind.with_windows(torch.cat([changed, window])) - photo)[:, 0]
    assert not difference[1].any()
    where = difference[0].abs() > 0.25
    assert where[20:40, 20:40].all() and int(where.sum()) == 400


def test_members_see_their_own_look(model: SkinClipVL, monkeypatch: pytest.MonkeyPatch) -> None:
    image, transform = spot(200, (60, 120), 25), PhotoTransform(SIDE)
    found = RelativeWindows(torch.tensor([[0.3, 0.6]]), torch.tensor([0.4]))
    monkeypatch.setattr(inference, "lesion_windows_of", lambda logits: found)
    seen = look(model, transform, [image])
    window = seen.windows[0]
    assert (window.x, window.y, window.side) == (20, 80, 80)
    half = model.perception.embed_dim // 2
    whole, near = transform(image.pixels).unsqueeze(0), transform(image.pixels, window).unsqueeze(0)
    with torch.inference_mode():
        own = [model.perceive(whole, look=0), model.perceive(near)]
    for part, expected in zip(seen.tokens.embedding.split(half, 1), own, strict=True):
        torch.testing.assert_close(part * 2**0.5, expected.embedding, atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.tokens.tokens, own[1].tokens)
    torch.testing.assert_close(seen.tokens.style, torch.cat([o.style for o in own], 1))


def test_an_unchanged_window_gives_the_same_answer(model: SkinClipVL) -> None:
    image, transform = spot(SIDE, (30, 30), 12), PhotoTransform(SIDE)
    output = forward_batch(model, transform, [image], [Context()])
    window = output.windows[0]
    same = forward_changed(model, transform, [window.crop(image.pixels)] * 2, Context(), output.behind)
    torch.testing.assert_close(same.logits, output.logits.expand(2, -1), atol=1e-4, rtol=0)
    dark = forward_changed(model, transform, [window.crop(image.pixels) // 3], Context(), output.behind)
    assert not torch.allclose(dark.logits, output.logits, atol=1e-4)


def test_a_batch_gives_what_its_photos_give_alone(model: SkinClipVL) -> None:
    images = [spot(SIDE, (30, 30), 12), spot(90, (50, 40), 20, seed=1)]
    transform, nobody = PhotoTransform(SIDE), [Context()] * 2
    both = forward_batch(model, transform, images, nobody, [None, images[0]])
    for i, other in enumerate((None, images[0])):
        alone = forward_batch(model, transform, [images[i]], [Context()], [other])
        torch.testing.assert_close(alone.logits, both.logits[i : i + 1], atol=1e-4, rtol=0)
    assert both.behind is None and alone.behind is not None and alone.behind.beside is not None


def test_a_second_photo_changes_the_answer_but_not_the_places(model: SkinClipVL) -> None:
    image, other, transform = spot(SIDE, (30, 30), 12), spot(SIDE, (20, 40), 18, seed=2), PhotoTransform(SIDE)
    alone = forward_batch(model, transform, [image], [Context()])
    beside = forward_batch(model, transform, [image], [Context()], [other])
    assert beside.windows == alone.windows
    torch.testing.assert_close(beside.evidence.maps, alone.evidence.maps)
    torch.testing.assert_close(beside.style, alone.style)  # whether the photo is like others is asked of it alone
    assert not torch.allclose(beside.logits, alone.logits, atol=1e-4)
    swapped = forward_batch(model, transform, [other], [Context()], [image])
    torch.testing.assert_close(swapped.tokens.embedding, beside.tokens.embedding, atol=1e-5, rtol=0)


def test_looks_and_members_go_together() -> None:
    with pytest.raises(ValueError, match="one for each of 2 looks"):
        PerceptionConfig(members=3, looks=2)


def test_the_checkpoint_is_the_model(model: SkinClipVL, tmp_path: Path) -> None:
    from skinclip.model.checkpoint import load_model, save_model

    save_model(model, tmp_path)
    image, transform = spot(SIDE, (30, 30), 12), PhotoTransform(SIDE)
    again = load_model(tmp_path).eval()
    one = forward_batch(model, transform, [image], [Context()])
    two = forward_batch(again, transform, [image], [Context()])
    torch.testing.assert_close(one.logits, two.logits)
    torch.testing.assert_close(one.evidence.maps, two.evidence.maps)
