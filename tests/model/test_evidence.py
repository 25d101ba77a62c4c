from __future__ import annotations

import math

import torch

from skinclip.model.evidence import lesion_weights, log_mean_exp, symmetric_orthogonalize


def test_log_mean_exp_by_hand() -> None:
    maps = torch.tensor([[[[0.0, 1.0], [2.0, 100.0]]]])
    weights = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])  # the last patch is outside the lesion
    expected = math.log((1 + math.exp(1.0) + math.exp(2.0)) / 3)
    # outside counts for a millionth: e^100 would still show, so compare with a map that is quiet outside
    maps[..., 1, 1] = 0.0
    assert abs(log_mean_exp(maps, weights, 1.0).item() - expected) < 1e-4


def test_a_larger_lesion_does_not_score_higher() -> None:
    small, large = torch.zeros(1, 8, 8), torch.ones(1, 8, 8)
    small[:, 2:4, 2:4] = 1
    maps = torch.full((1, 1, 8, 8), 0.7)
    torch.testing.assert_close(log_mean_exp(maps, small, 4.0), log_mean_exp(maps, large, 4.0))


def test_the_score_depends_on_the_map_inside_the_lesion_alone(tiny_model) -> None:
    lesion = torch.zeros(1, 20, 20)
    lesion[:, 5:12, 5:12] = 1
    maps = torch.randn(1, 3, 20, 20)
    other = torch.where(lesion.bool().unsqueeze(1), maps, maps + torch.rand_like(maps))
    torch.testing.assert_close(log_mean_exp(maps, lesion, 2.0), log_mean_exp(other, lesion, 2.0), atol=1e-3, rtol=1e-3)


def test_no_lesion_found_means_the_whole_photo() -> None:
    assert torch.equal(lesion_weights(torch.full((1, 80, 80), -20.0), (20, 20)), torch.ones(1, 20, 20))


def test_sizes_and_score_from_its_own_map(tiny_model) -> None:
    with torch.no_grad():
        seen = tiny_model.perceive(torch.rand(2, 3, 160, 160))
        evidence = tiny_model.find_evidence(seen)
    assert min(evidence.maps.shape[-2:]) >= 14
    assert min(evidence.mask_logits.shape[-2:]) >= 56
    again = log_mean_exp(evidence.maps, evidence.lesion, tiny_model.config.evidence.sharpness)
    torch.testing.assert_close(evidence.scores, again)


def test_alike_descriptions_get_directions_equally_far_apart() -> None:
    torch.manual_seed(0)
    alike = torch.nn.functional.normalize(torch.randn(1, 32) + 0.2 * torch.randn(5, 32), dim=-1)
    assert (alike @ alike.T).min() > 0.3  # much alike before
    apart = symmetric_orthogonalize(alike)
    cosines = apart @ apart.T
    expected = torch.full((5, 5), -1 / 4)  # the corners of a simplex of five
    expected.fill_diagonal_(1)
    torch.testing.assert_close(cosines, expected, atol=1e-5, rtol=0)
    # each direction still belongs to its own description more than to any other
    assert ((alike - alike.mean(0)) @ apart.T).argmax(1).tolist() == list(range(5))
