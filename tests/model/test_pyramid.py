"""Evidence from the pyramid: sizes, groups of members, attention, directions, and the choice of a kind."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skinclip.core.config import EvidenceConfig, PerceptionConfig, from_dict
from skinclip.model.evidence import EvidenceFinder, log_mean_exp
from skinclip.model.finders import FINDERS, feature_width, make_evidence_finder
from skinclip.model.perception import VisualTokens
from skinclip.model.pyramid import PyramidEvidenceFinder

CONFIG = EvidenceConfig(kind="pyramid", coarse_width=10, fine_width=6)
WIDTHS, E, K = (4, 5, 7, 9), 16, 5


def finder(seed: int) -> PyramidEvidenceFinder:
    """One member's, with norms that do something."""
    torch.manual_seed(seed)
    found = PyramidEvidenceFinder(CONFIG, E, WIDTHS, K)
    for module in found.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    nn.init.normal_(found.bias)
    nn.init.uniform_(found.scale, 1, 3)
    return found.eval()


def levels(seed: int, b: int = 2) -> list[Tensor]:
    """Levels of a photo of 64 pixels, strides 4 to 32."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, w, 16 >> i, 16 >> i, generator=generator) for i, w in enumerate(WIDTHS)]


def seen_with(maps: list[Tensor]) -> VisualTokens:
    return VisualTokens(torch.zeros(len(maps[0]), 1, 1), (1, 1), torch.zeros(len(maps[0]), E), maps)


def test_mask_and_maps_have_a_quarter_of_the_photos_side() -> None:
    one = finder(0)
    evidence = one.find(seen_with(levels(1)), one.directions(torch.randn(K, E)))
    assert evidence.mask_logits.shape == (2, 16, 16) and evidence.lesion.shape == (2, 16, 16)
    assert evidence.maps.shape == (2, K, 16, 16) and evidence.scores.shape == (2, K)
    assert evidence.features.shape == (2, K, CONFIG.fine_width) and evidence.pooled.shape == (2, E)
    torch.testing.assert_close(evidence.mask_logits, one.segment(levels(1)))
    torch.testing.assert_close(evidence.pooled.norm(dim=-1), torch.ones(2))


def test_a_score_is_pooled_from_the_map_that_is_shown() -> None:
    one = finder(0)
    evidence = one.find(seen_with(levels(1)), one.directions(torch.randn(K, E)))
    torch.testing.assert_close(evidence.scores, log_mean_exp(evidence.maps, evidence.lesion, CONFIG.sharpness))


def test_a_map_is_the_scaled_similarity_with_a_direction() -> None:
    one, features = finder(3), torch.randn(1, CONFIG.fine_width, 4, 4)
    directions = one.directions(torch.randn(K, E))
    patch = F.normalize(one.to_text(features)[0, :, 1, 2], dim=0)
    expected = one.scale.exp() * (directions @ patch) + one.bias[0]
    torch.testing.assert_close(one.maps(features, directions)[0, :, 1, 2], expected)


def test_two_groups_are_two_members_apart() -> None:
    members = [finder(0), finder(1)]
    both = PyramidEvidenceFinder(CONFIG, 2 * E, [2 * w for w in WIDTHS], K, groups=2).eval()
    state = {}
    for name, own in both.state_dict().items():
        parts = [member.state_dict()[name] for member in members]
        joined = own if "to_pooled" in name else parts[0] if "num_batches" in name else torch.cat(parts)
        assert joined.shape == own.shape, name
        state[name] = joined
    both.load_state_dict(state)
    inputs, states = [levels(5), levels(6)], [torch.randn(K, E), torch.randn(K, E)]
    apart = [m.find(seen_with(x), m.directions(s)) for m, x, s in zip(members, inputs, states, strict=True)]
    together = [torch.cat(same, 1) for same in zip(*inputs, strict=True)]
    evidence = both.find(seen_with(together), both.directions(torch.cat(states, 1)))
    for name in ("mask_logits", "maps"):
        mean = (getattr(apart[0], name) + getattr(apart[1], name)) / 2
        torch.testing.assert_close(getattr(evidence, name), mean, atol=1e-5, rtol=1e-5)
    assert evidence.features.shape == (2, K, 2 * CONFIG.fine_width)


def test_attention_sums_to_one_and_is_the_gradient_of_the_score() -> None:
    one = finder(0)
    maps, lesion = torch.randn(2, K, 4, 4, requires_grad=True), torch.rand(2, 4, 4)
    attention = one.attention(maps, lesion)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, K))
    log_mean_exp(maps, lesion, CONFIG.sharpness).sum().backward()
    torch.testing.assert_close(attention, maps.grad.flatten(2))


def test_directions_are_equally_far_from_one_another_within_each_member() -> None:
    both = PyramidEvidenceFinder(CONFIG, 2 * E, [2 * w for w in WIDTHS], K, groups=2)
    alike = torch.randn(1, 2 * E) + 0.1 * torch.randn(K, 2 * E)  # as descriptions of criteria are
    for part in both.directions(alike).chunk(2, -1):
        cosines = part @ part.T
        torch.testing.assert_close(cosines.diagonal(), torch.ones(K), atol=1e-4, rtol=0)
        torch.testing.assert_close(cosines[~torch.eye(K, dtype=torch.bool)], torch.full((K * K - K,), -1 / (K - 1)))


def test_a_config_chooses_the_kind_and_an_unknown_one_is_refused() -> None:
    perception = SimpleNamespace(
        config=PerceptionConfig(members=2), width=8, embed_dim=2 * E, level_widths=[2 * w for w in WIDTHS]
    )
    pyramid = make_evidence_finder(CONFIG, perception, K)
    assert isinstance(pyramid, PyramidEvidenceFinder) and pyramid.groups == 2
    assert feature_width(CONFIG, perception.config) == 2 * CONFIG.fine_width
    adapter = make_evidence_finder(EvidenceConfig(), perception, K)
    assert isinstance(adapter, EvidenceFinder) and feature_width(EvidenceConfig(), perception.config) == 256
    for call in (
        lambda c: make_evidence_finder(c, perception, K),
        lambda c: feature_width(c, perception.config),
    ):
        with pytest.raises(ValueError, match=r"evidence\.kind.*'maps'.*adapter, pyramid"):
            call(dataclasses.replace(CONFIG, kind="maps"))
    assert list(FINDERS) == ["adapter", "pyramid"]


def test_a_config_of_an_earlier_version_reads_evidence_through_the_adapter() -> None:
    assert from_dict(EvidenceConfig, {"mask_width": 24, "adapter_width": 256}).kind == "adapter"
