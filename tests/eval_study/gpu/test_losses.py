"""The losses of the GPU training by hand, and the chances by which photos are drawn."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from timm.layers import DropPath

from eval_study.gpu.derm_clip import (
    STATES_OF,
    STATES_OF_ATTRIBUTE,
    GpuDermClip,
    by_criterion,
    contrast,
    criterion_loss,
    mask_loss,
    pool,
    region_loss,
)
from eval_study.gpu.photos import MISSING
from eval_study.gpu.train import (
    CRITERIA_SHARE,
    DRAWN_SHARE,
    draw_weights,
    drop_paths,
    mixed_photos,
    mixing_order,
    priors,
)
from eval_study.gpu.vocabulary import ALL_CRITERIA, CODES, STATES
from tests.eval_study.gpu.test_photos import one_photo

C, K, Q = len(CODES), len(STATES), len(ALL_CRITERIA)


def test_contrast_with_a_flat_prior_is_cross_entropy() -> None:
    logits, labels, flat = torch.randn(6, C), torch.randint(C, (6,)), torch.full((6, C), 1 / C)
    for smoothing in (0.0, 0.1):
        expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        torch.testing.assert_close(contrast(logits, labels, flat, smoothing), expected)
    unlabelled = torch.cat([labels, torch.tensor([MISSING])])
    more = torch.cat([logits, torch.randn(1, C)]), unlabelled, torch.full((7, C), 1 / C)
    torch.testing.assert_close(contrast(*more, 0.0), F.cross_entropy(logits, labels))
    assert contrast(logits, torch.full((6,), MISSING), flat, 0.0) == 0


def test_contrast_does_not_punish_classes_that_a_source_lacks() -> None:
    prior = torch.full((1, C), 1e-9)
    prior[0, :2] = 0.5
    logits = torch.zeros(1, C, requires_grad=True)
    contrast(logits, torch.tensor([0]), prior, 0.0).backward()
    assert logits.grad[0, 2:].abs().max() < 1e-8
    torch.testing.assert_close(logits.grad[0, :2], torch.tensor([-0.5, 0.5]))


def test_contrast_of_mixed_photos_is_the_mix() -> None:
    logits, flat = torch.randn(3, C), torch.full((3, C), 1 / C)
    one, other = torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5])
    share = torch.full((3,), 0.7)
    expected = 0.7 * F.cross_entropy(logits, one) + 0.3 * F.cross_entropy(logits, other)
    torch.testing.assert_close(contrast(logits, one, flat, 0.0, (other, share)), expected)
    other[0], share[0], other[1] = MISSING, 1.0, MISSING  # the second cannot be told: its other half is not labelled
    own = F.cross_entropy(logits[:1], one[:1])
    mixed = 0.7 * F.cross_entropy(logits[2:], one[2:]) + 0.3 * F.cross_entropy(logits[2:], other[2:])
    torch.testing.assert_close(contrast(logits, one, flat, 0.0, (other, share)), (own + mixed) / 2)


@pytest.mark.parametrize("chance", [0.0, 0.6, 1.0])
def test_photos_are_mixed_with_others_and_pairs_alike(chance: float) -> None:
    torch.manual_seed(0)
    n, pairs = 400, 50
    photos = torch.arange(n, dtype=torch.float).view(n, 1, 1, 1).expand(n, 3, 16, 16).contiguous()
    order = mixing_order(n, pairs, "cpu")
    assert sorted(order.tolist()) == list(range(n)) and set(order[: n - 2 * pairs].tolist()) == set(range(300))
    assert torch.equal(order[-2 * pairs : -pairs] + pairs, order[-pairs:])
    mixed, share = mixed_photos(photos, order, torch.full((n,), chance), pairs)
    assert (share < 1).float().mean() == pytest.approx(chance, abs=0.08) and share.min() >= 0
    assert torch.equal(share[-2 * pairs : -pairs], share[-pairs:])
    # what is left of a photo, on average over its places, is its share
    torch.testing.assert_close(mixed.mean((1, 2, 3)), torch.arange(n) * share + order * (1 - share), atol=1e-2, rtol=0)
    assert torch.equal(mixed[share == 1], photos[share == 1])
    if chance == 1.0:  # half are cut: each place shows one photo whole
        whole = torch.isin(mixed.flatten(1), photos[:, 0, 0, 0]).all(1).float().mean()
        assert whole > 0.3


def test_later_blocks_are_left_out_more_often() -> None:
    model = GpuDermClip("derm-clip-lite2")
    drop_paths(model.tower.image_trunk(), 0.2)
    chances = [m.drop_prob for m in model.modules() if isinstance(m, DropPath)]
    assert chances[0] == 0 and chances[-1] == pytest.approx(0.2) and chances == sorted(chances)


def test_criterion_loss_of_allowed_sets_by_hand() -> None:
    """-log of the share of the states that stay possible, weighted."""
    q = [c.code for c in ALL_CRITERIA].index("pigment_network")
    scores = torch.zeros(1, K)
    scores[0, STATES_OF[q]] = torch.tensor([math.log(2.0), math.log(3.0)])  # odds 1 absent : 2 typical : 3 atypical
    allowed, weight = torch.zeros(1, Q, 3, dtype=torch.bool), torch.zeros(1, Q)
    weight[0, q] = 1
    for states, share in (([2], 3 / 6), ([0], 1 / 6), ([1, 2], 5 / 6), ([0, 1, 2], 1.0)):
        allowed[:] = False
        allowed[0, q, states] = True
        assert criterion_loss(scores, allowed, weight).item() == pytest.approx(-math.log(share), abs=1e-6)
    veil = [c.code for c in ALL_CRITERIA].index("blue_whitish_veil")  # a criterion with one state, score 0
    allowed[:] = False
    allowed[0, q, 2] = allowed[0, veil, 1] = True
    weight[0, veil] = 0.25
    expected = (math.log(2) + 0.25 * math.log(2)) / 1.25
    assert criterion_loss(scores, allowed, weight).item() == pytest.approx(expected, abs=1e-6)
    assert criterion_loss(scores, allowed, torch.zeros(1, Q)) == 0
    assert by_criterion(scores)[0, veil, 2] == -math.inf


def test_pool_is_the_maximum_in_the_lesion_and_everywhere_without_one() -> None:
    maps, lesion = torch.full((1, 1, 20, 20), -30.0), torch.zeros(1, 20, 20)
    lesion[0, :4, :5] = 1
    maps[0, 0, 10, 10] = 8.0  # outside
    inside = pool(maps, lesion)[0, 0]
    assert inside < 0 and pool(maps, torch.zeros(1, 20, 20))[0, 0] == pytest.approx(8 - math.log(400) / 2, abs=1e-3)
    maps[0, 0, 1, 1] = 8.0
    assert pool(maps, lesion)[0, 0] == pytest.approx(8 - math.log(20) / 2, abs=1e-2)


def test_region_loss_is_nothing_for_perfect_maps_and_larger_otherwise() -> None:
    drawn = torch.zeros(2, 5, 8, 8)
    drawn[0, 0, 2:5, 2:5] = drawn[1, 4, :3, :3] = 1
    maps, lesion = torch.full((2, K, 8, 8), -40.0), torch.ones(2, 8, 8)
    for a, own in enumerate(STATES_OF_ATTRIBUTE):
        maps[:, own[0]] = torch.where(drawn[:, a] > 0, 40.0, -40.0)
    perfect = region_loss(maps, drawn, lesion)
    assert perfect.item() == pytest.approx(0, abs=1e-4)
    missed, moved = maps.clone(), maps.roll(3, -1)
    missed[0] = -40.0
    vague = torch.zeros_like(maps)
    assert all(region_loss(m, drawn, lesion) > perfect + 0.1 for m in (missed, moved, vague))


def test_an_unmarked_place_counts_less_than_a_marked_one() -> None:
    drawn, lesion = torch.zeros(1, 5, 8, 8), torch.ones(1, 8, 8)
    drawn[0, 0, :4] = 1
    own = STATES_OF_ATTRIBUTE[0][0]
    right = torch.full((1, K, 8, 8), -9.0)
    right[:, own, :4] = 9.0
    extra, lacking = right.clone(), right.clone()
    extra[:, own, 7, 7] = 9.0
    lacking[:, own, 0, 0] = -9.0
    good, more, less = (region_loss(m, drawn, lesion) for m in (right, extra, lacking))
    assert good < more < less


def test_mask_loss_is_nothing_for_a_perfect_mask() -> None:
    target = torch.zeros(1, 8, 8)
    target[0, 2:6, 2:6] = 1
    assert mask_loss((target - 0.5) * 80, target).item() == pytest.approx(0, abs=1e-5)
    assert mask_loss((0.5 - target) * 8, target) > 1


def many_photos() -> tuple:
    """Forty photos: 10 with drawn regions, 10 with sure criteria, 20 others, two of which are one lesion."""
    n = 40
    records = [
        {"source": "a", "lesion_id": str(max(i, 1)) + "x" * (i < 2), "kind": "d", "split": "train"} for i in range(n)
    ]
    rows = torch.full((n,), MISSING)
    rows[10:20] = torch.arange(10)
    weight = torch.zeros(n, Q)
    weight[20:30, 0] = 1
    regions = torch.zeros(10, 5, 256, 256, dtype=torch.uint8)
    regions[:, 0], regions[0, 2] = 255, 255  # every photo has network, one streaks as well
    diagnosis = torch.zeros(n, dtype=torch.long)
    diagnosis[30:] = 1
    diagnosis[39] = MISSING
    photos = dataclasses.replace(
        one_photo(),
        records=records,
        region_row=rows,
        regions=regions,
        weight=weight,
        diagnosis=diagnosis,
        group=torch.zeros(n, dtype=torch.long),
    )
    return photos, torch.arange(n)


def test_draw_weights_sum_to_one_and_give_the_shares_that_are_promised() -> None:
    photos, index = many_photos()
    weights = draw_weights(photos, index, power=0.5)
    assert weights.sum().item() == pytest.approx(1) and weights.min() > 0
    assert weights[10:20].sum().item() == pytest.approx(DRAWN_SHARE)
    assert weights[20:30].sum().item() == pytest.approx(CRITERIA_SHARE)
    assert weights[0] == weights[1] and (weights[0] * math.sqrt(2)).item() == pytest.approx(weights[2].item())
    assert (weights[30] / weights[2]).item() == pytest.approx(math.sqrt(30 / 9))  # the rarer diagnosis
    assert weights[10] > 1.5 * weights[11]  # rare streaks


def test_draw_weights_without_regions_or_criteria() -> None:
    photos, _ = many_photos()
    for index in (torch.arange(10), torch.arange(10, 20), torch.arange(0, 20)):
        weights = draw_weights(photos, index, power=0.3)
        assert weights.isfinite().all() and weights.sum().item() == pytest.approx(1)
    both = draw_weights(photos, torch.arange(20), power=0.3)
    assert both[10:].sum().item() == pytest.approx(DRAWN_SHARE / (1 - CRITERIA_SHARE))


def test_priors_are_the_shares_of_what_is_drawn() -> None:
    photos, index = many_photos()
    prior = priors(photos, index, torch.full((40,), 1 / 40, dtype=torch.double))
    assert prior.shape == (1, C) and prior.sum().item() == pytest.approx(1)
    assert (prior[0, 0] / prior[0, 1]).item() == pytest.approx(30 / 9, rel=0.01)
    assert prior[0, 5].item() == pytest.approx(1e-3, rel=0.02)
