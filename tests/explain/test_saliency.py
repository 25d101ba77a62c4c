from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skinclip.core.assessment import Context
from skinclip.explain import saliency
from skinclip.explain.saliency import Cam, Network
from tests.helpers.tiny_hub import OWN_SIDE


class Corner(nn.Module):
    """A network whose first logit is the mean of the photo's upper left corner, and whose second is its negative."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Conv2d(3, 4, 4, stride=4)

    def forward(self, photos: Tensor) -> Tensor:
        self.stage(photos)
        corner = photos[..., :16, :16].mean((1, 2, 3))
        return torch.stack([corner, -corner], 1)


class Twins(nn.Module):
    """Two members that see the red and the green channel; the logit is 2 mean(red) - 1 mean(green)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 1, 1, bias=False), nn.Conv2d(3, 1, 1, bias=False)
        for conv, channel in ((self.first, 0), (self.second, 1)):
            conv.weight.data = torch.eye(3)[channel].view(1, 3, 1, 1)

    def forward(self, photos: Tensor) -> Tensor:
        return (2 * self.first(photos).mean((2, 3)) - self.second(photos).mean((2, 3))).expand(-1, 2)


@pytest.fixture
def own(tiny_model) -> Network:
    return saliency.own_network(saliency.DiagnosisPath(tiny_model, tiny_model.reasoner.writer.write([Context()])))


@pytest.fixture
def photo() -> Tensor:
    return torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(5))


def by_hand(network: Network, photo: Tensor, target: int, stage: int) -> tuple[Tensor, Tensor]:
    """Maps of a stage and the gradient of a logit with respect to them."""
    kept: list[Tensor] = []
    hook = network.stages[stage].register_forward_hook(lambda module, args, output: kept.append(output))
    logits = network.logits(photo.clone().requires_grad_(True))
    hook.remove()
    return kept[0], torch.autograd.grad(logits[0, target], kept[0])[0]


@pytest.mark.parametrize("stage", [-1, -3])
def test_grad_cam_equals_its_definition_and_is_not_zero(own, photo, stage: int) -> None:
    """ReLU of the maps weighted by the mean gradient of the logit (Selvaraju et al. 2017)."""
    highest = 0.0
    for target in range(7):
        maps, gradient = by_hand(own, photo, target, stage)
        expected = F.relu((gradient.mean((2, 3), keepdim=True) * maps).sum(1))[0].detach().numpy()
        given = saliency.grad_cam(own, photo, target, Cam(stage))
        np.testing.assert_allclose(given, expected, atol=1e-6, rtol=1e-3)
        highest = max(highest, float(given.max()))
    assert highest > 0


def test_layer_cam_equals_its_definition(own, photo) -> None:
    """Each place weighted by its own positive gradient (Jiang et al. 2021)."""
    maps, gradient = by_hand(own, photo, 2, -2)
    expected = (gradient.relu() * maps).sum(1).relu()[0].detach().numpy()
    np.testing.assert_allclose(saliency.layer_cam(own, photo, 2, Cam(-2)), expected, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("relu", [True, False])
def test_grad_cam_of_an_ensemble_adds_its_members_before_anything_is_cut_off(relu: bool) -> None:
    twins = Twins()
    network = Network(twins, [twins.first], [(twins.second,)])
    photo = torch.zeros(1, 3, 2, 2)
    photo[0, 0] = torch.tensor([[1.0, 0.0], [1.0, 0.0]])  # red
    photo[0, 1] = torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # green
    by_hand = np.array([[2.0, -1.0], [1.0, 0.0]]) / 4  # the mean gradients are 2 / 4 and -1 / 4
    expected = by_hand.clip(0) if relu else by_hand
    np.testing.assert_allclose(saliency.grad_cam(network, photo, 0, Cam(relu=relu)), expected, atol=1e-7)
    alone = saliency.grad_cam(Network(twins, [twins.first]), photo, 0, Cam(relu=relu))
    np.testing.assert_allclose(alone, np.array([[2.0, 0.0], [2.0, 0.0]]) / 4, atol=1e-7)


def test_mirrored_photos_have_mirrored_maps(own, photo) -> None:
    cam = Cam(-2, relu=False, mirrors=True)
    for method in (saliency.grad_cam, saliency.layer_cam):
        upright, mirrored = method(own, photo, 1, cam), method(own, photo.flip(3), 1, cam)
        np.testing.assert_allclose(mirrored, upright[:, ::-1], atol=1e-5 * max(1.0, float(np.abs(upright).max())))


def test_integrated_gradients_and_occlusion_find_the_place_and_add_up(photo) -> None:
    network = Network(Corner(), [])
    found = saliency.integrated_gradients(network, photo, 0)
    drop = network.logits(photo)[0, 0] - network.logits(saliency.blurred(photo))[0, 0]
    assert found.sum() == pytest.approx(float(drop), abs=1e-4)  # completeness
    assert np.abs(found[16:]).max() < 1e-7 and np.abs(found[:, 16:]).max() < 1e-7
    bright = torch.zeros(1, 3, 160, 160)
    bright[..., :16, :16] = 1
    covered = saliency.occlusion(network, bright, 0)
    assert covered[:16, :16].min() > 0 and np.abs(covered[60:, 60:]).max() < 1e-6
    np.testing.assert_allclose(saliency.occlusion(network, bright, 1), -covered, atol=1e-6)


def test_blur_keeps_colour_and_takes_structure(photo) -> None:
    soft = saliency.blurred(photo)
    assert soft.shape == photo.shape and soft.std() < 0.1 * photo.std()
    torch.testing.assert_close(soft.mean((2, 3)), photo.mean((2, 3)), atol=0.02, rtol=0)
    plain = torch.full((1, 3, 48, 48), 0.3)
    torch.testing.assert_close(saliency.blurred(plain), plain)


@pytest.fixture(scope="module")
def of_tokens(big_assessor) -> Network:
    """The diagnosis of a big preset, whose tower is a vision transformer."""
    model = big_assessor.model
    return saliency.own_network(saliency.DiagnosisPath(model, model.reasoner.writer.write([Context()])))


def test_the_maps_of_a_tower_of_tokens_are_its_levels_and_change_nothing(big_assessor, of_tokens) -> None:
    photos = torch.rand(2, 3, OWN_SIDE, OWN_SIDE)
    kept: list[Tensor] = []
    hooks = [m.register_forward_hook(lambda module, args, output: kept.append(output)) for m in of_tokens.stages]
    with torch.no_grad():
        logits = of_tokens.logits(photos)
        seen = big_assessor.model.perceive(photos)
        assert torch.equal(logits, of_tokens.logits.path(photos))
    for hook in hooks:
        hook.remove()
    for maps, level in zip(kept, seen.levels, strict=False):
        torch.testing.assert_close(maps, level)
    assert not any(block._forward_hooks for block in of_tokens.logits.blocks)


@pytest.mark.parametrize("stage", [-1, -2])
def test_grad_cam_of_a_tower_of_tokens_equals_its_definition_and_is_not_zero(of_tokens, stage: int) -> None:
    photo = torch.rand(1, 3, OWN_SIDE, OWN_SIDE)
    maps, gradient = by_hand(of_tokens, photo, 0, stage)
    expected = (gradient.mean((2, 3), keepdim=True) * maps).sum(1)[0].detach().numpy()
    given = saliency.grad_cam(of_tokens, photo, 0, Cam(stage, relu=False))
    assert given.shape == (16, 16) and np.abs(expected).max() > 0
    np.testing.assert_allclose(given, expected, atol=1e-8, rtol=1e-3)
    assert saliency.layer_cam(of_tokens, photo, 0, Cam(stage)).shape == (16, 16)


def test_a_big_preset_computes_its_layers_again_for_the_same_gradients(big_assessor, monkeypatch) -> None:
    model = big_assessor.model
    layers = model.reasoner.base.model.language_model.layers
    path = saliency.DiagnosisPath(model, model.reasoner.writer.write([Context()]))
    run: list[int] = []
    hooks = [layers[0].self_attn.register_forward_hook(lambda *_: run.append(1))]
    grads = []
    try:
        for sparing in (True, False):
            if not sparing:
                monkeypatch.setattr(model.reasoner, "recomputing", nullcontext)
            pixels = torch.rand(1, 3, model.config.photo_side, model.config.photo_side, generator=seeded())
            pixels.requires_grad_()
            path(pixels)[0, 2].backward()
            grads.append(pixels.grad)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(run) == 2 + 1
    assert grads[0].abs().sum() > 0
    torch.testing.assert_close(grads[0], grads[1])
    assert all("forward" not in vars(layer) for layer in layers)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(4)
