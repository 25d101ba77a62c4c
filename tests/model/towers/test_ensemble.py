"""An ensemble of towers: its parts, its weights, and a whole model on it, from photo to checkpoint and Grad-CAM."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from skinclip.core.assessment import Context
from skinclip.core.config import EvidenceConfig, ModelConfig, PerceptionConfig
from skinclip.explain.saliency import Cam, DiagnosisPath, grad_cam, layer_cam, own_network
from skinclip.model.checkpoint import load_model, save_model
from skinclip.model.perception import Perception
from skinclip.model.skinclip_vl import SkinClipVL, new_model
from skinclip.model.towers import EnsembleTower, ImageTextTower, make_tower

PAIR = PerceptionConfig(family="ensemble", members=2, image_size=64, levels=(1, 2, 3, 4), token_levels=(2, 3, 4))


@pytest.fixture(scope="module")
def model(tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> SkinClipVL:
    """A whole model on two random members, its evidence read from their pyramids."""
    torch.manual_seed(2)
    evidence = EvidenceConfig(kind="pyramid", coarse_width=12, fine_width=8)
    config = dataclasses.replace(tiny_config, perception=PAIR, evidence=evidence)
    return new_model(config, tmp_path_factory.mktemp("pair")).eval()


@pytest.fixture(scope="module")
def tower(model: SkinClipVL) -> EnsembleTower:
    assert isinstance(model.perception.tower, EnsembleTower)
    return model.perception.tower


@torch.no_grad()
def test_similarity_is_the_mean_of_the_members_and_levels_lie_side_by_side(model, tower) -> None:
    photos, texts = torch.rand(2, 3, 64, 64), ["a melanoma", "a nevus"]
    assert isinstance(tower, ImageTextTower)
    seen = model.perception(photos)
    similarity = seen.embedding @ model.perception.embed_texts(texts).T
    own, parts = [], []
    for member in tower.members:
        single = Perception(dataclasses.replace(PAIR, family="open_clip", members=1))
        single.tower.load_weights(member.weights())
        alone = single.eval()(photos)
        own.append(alone.embedding @ single.embed_texts(texts).T)
        parts.append(alone.levels)
    torch.testing.assert_close(similarity, (own[0] + own[1]) / 2, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(own[0], own[1], atol=1e-3)
    for level, *same in zip(seen.levels, *parts, strict=True):
        torch.testing.assert_close(level, torch.cat(same, 1), atol=1e-5, rtol=1e-4)


def test_weights_go_back_where_they_came_from(tower) -> None:
    weights = {k: v.clone() for k, v in tower.weights().items()}
    assert {k.split(".")[0] for k in weights} == {"0", "1"}
    tower.load_weights(weights)
    assert all(torch.equal(v, weights[k]) for k, v in tower.weights().items())
    with pytest.raises(RuntimeError, match="2 members; 2\\.logit_scale belongs to none"):
        tower.load_weights(weights | {"2.logit_scale": torch.ones(())})
    with pytest.raises(RuntimeError, match="logit_scale"):
        tower.load_weights({k: v for k, v in weights.items() if k != "1.logit_scale"})


def test_what_an_ensemble_cannot_do_is_said(tower) -> None:
    with pytest.raises(ValueError, match="2 members or more, got 1"):
        make_tower(dataclasses.replace(PAIR, members=1))
    with pytest.raises(NotImplementedError, match="one by one"):
        tower.image_trunk()


def test_a_checkpoint_gives_the_same_evidence_and_answer(model, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    again, photos = load_model(tmp_path), torch.rand(1, 3, 64, 64)
    prompts = model.reasoner.writer.write([Context()])
    with torch.no_grad():
        found = [m.find_evidence(m.perceive(photos)) for m in (model, again)]
        answers = [m.reason(prompts, m.perceive(photos), e).logits for m, e in zip((model, again), found, strict=True)]
    assert found[0].maps.shape[2:] == (16, 16) and found[0].features.shape[-1] == 2 * 8
    torch.testing.assert_close(found[0].maps, found[1].maps, rtol=0, atol=1e-5)
    torch.testing.assert_close(*answers, rtol=0, atol=1e-5)


def test_state_embeddings_hold_the_directions_of_each_member(model) -> None:
    for part in model.state_embeddings.chunk(2, -1):
        torch.testing.assert_close(part.norm(dim=-1), torch.ones(len(part)), atol=1e-4, rtol=0)


def test_class_activation_maps_are_the_sum_over_the_members(model, tower) -> None:
    """Those of all channels side by side: no member is left out, and none is scaled by itself."""
    network, stage, target = own_network(DiagnosisPath(model, model.reasoner.writer.write([Context()]))), -2, 1
    stages = [member.attribution_stages().modules[stage] for member in tower.members]
    assert network.at(stage) == stages
    photo, kept = torch.rand(1, 3, 64, 64), []
    hooks = [m.register_forward_hook(lambda module, args, output: kept.append(output)) for m in stages]
    logit = network.logits(photo.clone().requires_grad_(True))[0, target]
    for hook in hooks:
        hook.remove()
    gradients = torch.autograd.grad(logit, kept)
    channels, weights = torch.cat(kept, 1), torch.cat(gradients, 1)
    usual = F.relu((weights.mean((2, 3), keepdim=True) * channels).sum(1))[0].detach().numpy()
    given = grad_cam(network, photo, target, Cam(stage))
    np.testing.assert_allclose(given, usual, atol=1e-6, rtol=1e-3)
    by_place = F.relu((weights.relu() * channels).sum(1))[0].detach().numpy()
    np.testing.assert_allclose(layer_cam(network, photo, target, Cam(stage)), by_place, atol=1e-6, rtol=1e-3)
    assert all(g.abs().max() > 0 for g in gradients)
