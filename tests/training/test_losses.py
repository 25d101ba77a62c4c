"""Each part of CFA against numbers worked out by hand, its gradient, and its silence about missing labels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from skinclip.core import vocabulary
from skinclip.core.config import LossConfig
from skinclip.model.criteria import STATE_COUNTS, criterion_log_probs
from skinclip.training.losses import (
    MOST_STATES,
    AlignmentLoss,
    CalibrationLoss,
    CFAInputs,
    CFALoss,
    ConsistencyLoss,
    CriterionLoss,
    CriterionTargets,
    FocalLoss,
    OutsideMass,
    RegionTextContrast,
    class_balanced_weights,
    js,
    log_shares,
)

Q, K = len(STATE_COUNTS), sum(STATE_COUNTS)


def randn(*shape: int, seed: int = 0) -> Tensor:
    """Seeded float64 noise that asks for a gradient."""
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return noise.requires_grad_()


def logits_of(*rows: tuple[float, ...]) -> Tensor:
    """Logits whose softmax is exactly these probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log()


def assert_missing_rows_do_not_count(
    loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, labels: Tensor, missing: int | bool = -1
) -> None:
    """Appending unlabelled rows, even NaN ones, leaves value and gradient bit for bit as they were."""
    x = x.detach().requires_grad_()
    plain = loss(x, labels)
    (plain_gradient,) = torch.autograd.grad(plain, x)
    junk = torch.full_like(x[:2], math.nan)
    longer = torch.cat([x.detach(), junk]).requires_grad_()
    value = loss(longer, torch.cat([labels, torch.full_like(labels[:2], missing)]))
    (gradient,) = torch.autograd.grad(value, longer)
    assert torch.equal(value, plain)
    assert torch.equal(gradient, torch.cat([plain_gradient, torch.zeros_like(junk)]))


def assert_zero_in_graph(value: Tensor, x: Tensor) -> None:
    assert value.item() == 0
    (gradient,) = torch.autograd.grad(value, x)
    assert torch.equal(gradient, torch.zeros_like(x))


# --- focal -----------------------------------------------------------------------------------------------------------


def test_class_balanced_weights_by_hand():
    # beta 0.5: effective numbers 1 and 1.5 for one and two photos; inverses 1 and 2/3, mean 5/6.
    torch.testing.assert_close(class_balanced_weights([1, 2], 0.5), torch.tensor([1.2, 0.8]))
    assert torch.equal(class_balanced_weights([3, 900], 0.0), torch.ones(2))
    near_inverse = class_balanced_weights([100, 1000], 0.9999999)
    assert near_inverse[0] / near_inverse[1] == pytest.approx(10, rel=1e-3)
    torch.testing.assert_close(class_balanced_weights([1, 0, 2], 0.5), torch.tensor([1.2, 1.0, 0.8]))


@pytest.mark.parametrize(("counts", "beta"), [([1, 2], 1.0), ([-1, 2], 0.9), ([0, 0], 0.9), ([], 0.9)])
def test_class_balanced_weights_refuse(counts, beta):
    with pytest.raises(ValueError):
        class_balanced_weights(counts, beta)


def test_focal_by_hand():
    logits = logits_of((0.5, 0.25, 0.25), (0.1, 0.1, 0.8))
    target = torch.tensor([0, 2])
    easy, hard = -math.log(0.8), -math.log(0.5)
    assert FocalLoss(gamma=0)(logits, target).item() == pytest.approx((hard + easy) / 2)
    assert FocalLoss(gamma=2)(logits, target).item() == pytest.approx((0.25 * hard + 0.04 * easy) / 2)
    balanced = FocalLoss([1, 4, 2], beta=0.0, gamma=2)
    assert balanced(logits, target).item() == pytest.approx((0.25 * hard + 0.04 * easy) / 2)
    weighted = FocalLoss(gamma=2)(logits, target, torch.tensor([3.0, 1.0]))
    assert weighted.item() == pytest.approx((3 * 0.25 * hard + 0.04 * easy) / 4)


def test_focal_class_weights_and_smoothing_by_hand():
    logits = logits_of((0.5, 0.5), (0.75, 0.25))
    target = torch.tensor([0, 1])
    value = FocalLoss([1, 2], beta=0.5, gamma=1)(logits, target)
    assert value.item() == pytest.approx((1.2 * 0.5 * math.log(2) + 0.8 * 0.75 * math.log(4)) / 2)
    smooth = FocalLoss(gamma=0, label_smoothing=0.1)(logits, target)
    reference = torch.nn.functional.cross_entropy(logits, target, label_smoothing=0.1)
    torch.testing.assert_close(smooth, reference)


def test_logit_adjustment_by_hand():
    logits = torch.zeros(2, 2, dtype=torch.float64)
    # shares 1/4 and 3/4: at equal logits the adjusted softmax is the shares themselves
    value = FocalLoss([1, 3], beta=0.0, gamma=0, tau=1.0)(logits, torch.tensor([0, 1]))
    assert value.item() == pytest.approx(-(math.log(0.25) + math.log(0.75)) / 2, rel=1e-6)
    halfway = FocalLoss([1, 3], beta=0.0, gamma=0, tau=0.5)(logits, torch.tensor([0, 1]))
    a, b = 0.25**0.5, 0.75**0.5
    assert halfway.item() == pytest.approx(-(math.log(a / (a + b)) + math.log(b / (a + b))) / 2, rel=1e-6)
    torch.testing.assert_close(log_shares([0, 3]).exp(), torch.tensor([0.25, 0.75]))  # none counts as one
    x = randn(2, 2)
    assert torch.equal(FocalLoss([1, 3], beta=0.0).adjusted(x), x)
    with pytest.raises(ValueError, match="tau"):
        FocalLoss(tau=-1.0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_gradient(gamma):
    loss = FocalLoss([5, 20, 3], gamma=gamma, label_smoothing=0.1, tau=0.7).double()
    target = torch.tensor([0, 2, -1, 1])
    assert torch.autograd.gradcheck(lambda x: loss(x, target, torch.tensor([1.0, 2.0, 5.0, 0.5])), randn(4, 3))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.5])
def test_focal_gradient_is_finite_for_a_certain_photo(gamma):
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    FocalLoss(gamma=gamma)(logits, torch.tensor([0])).backward()
    assert torch.isfinite(logits.grad).all()


def test_focal_missing_labels():
    loss = FocalLoss([5, 20, 3]).double()
    assert_missing_rows_do_not_count(loss, randn(3, 3), torch.tensor([0, 2, 1]))
    x = randn(2, 3)
    none = torch.tensor([-1, -1])
    assert_zero_in_graph(loss(x, none), x)
    assert_zero_in_graph(loss(x, none, torch.ones(2)), x)


def test_focal_refuses():
    with pytest.raises(ValueError, match="gamma"):
        FocalLoss(gamma=-1)
    with pytest.raises(ValueError, match="label_smoothing"):
        FocalLoss(label_smoothing=1.0)
    with pytest.raises(ValueError, match=r"-1 \(missing\) to 2"):
        FocalLoss()(randn(1, 3), torch.tensor([3]))
    with pytest.raises(ValueError, match="integers"):
        FocalLoss()(randn(1, 3), torch.tensor([0.0]))
    with pytest.raises(ValueError, match="2 classes"):
        FocalLoss([1, 2])(randn(1, 3), torch.tensor([0]))
    with pytest.raises(ValueError, match="weight"):
        FocalLoss()(randn(2, 3), torch.tensor([0, 1]), torch.ones(3))


# --- alignment -------------------------------------------------------------------------------------------------------

# Two diagnoses, two descriptions each; lengths differ on purpose.
DESCRIPTIONS = torch.tensor([[[2.0, 0.0], [0.0, 3.0]], [[-1.0, 0.0], [0.0, -5.0]]], dtype=torch.float64)


def test_contrast_by_hand():
    embeddings = torch.tensor([[7.0, 0.0], [0.0, -0.1]], dtype=torch.float64)
    # Cosines of photo 0: 1, 0 | -1, 0; of photo 1: 0, -1 | 0, 1. Temperature 0.5 doubles them.
    everything = math.exp(2) + 1 + math.exp(-2) + 1
    expected = -math.log((math.exp(2) + 1) / everything)
    value = RegionTextContrast(0.5)(embeddings, DESCRIPTIONS, torch.tensor([0, 1]))
    assert value.item() == pytest.approx(expected)
    wrong = RegionTextContrast(0.5)(embeddings[:1], DESCRIPTIONS, torch.tensor([1]))
    assert wrong.item() == pytest.approx(-math.log((math.exp(-2) + 1) / everything))


def test_contrast_gradient_and_missing_labels():
    loss = RegionTextContrast(0.5)
    target = torch.tensor([0, -1, 2])
    assert torch.autograd.gradcheck(lambda v, d: loss(v, d, target), (randn(3, 4), randn(3, 2, 4, seed=1)))
    descriptions = randn(3, 2, 4, seed=1).detach()
    assert_missing_rows_do_not_count(lambda v, y: loss(v, descriptions, y), randn(3, 4), torch.tensor([0, 1, 2]))
    x = randn(2, 4)
    assert_zero_in_graph(loss(x, descriptions, torch.tensor([-1, -1])), x)


def test_contrast_refuses():
    with pytest.raises(ValueError, match="temperature"):
        RegionTextContrast(0)
    with pytest.raises(ValueError, match="descriptions"):
        RegionTextContrast()(randn(2, 3), DESCRIPTIONS, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="labels must lie"):
        RegionTextContrast()(randn(1, 2), DESCRIPTIONS, torch.tensor([2]))
    with pytest.raises(ValueError, match="target"):
        RegionTextContrast()(randn(1, 2), DESCRIPTIONS, torch.tensor([1, 1]))


def test_criterion_log_probs_follow_the_clinical_order():
    scores = torch.zeros(1, K)
    key = "streaks:irregular"
    scores[0, [s.key for s in vocabulary.EVIDENCE_STATES].index(key)] = math.log(2)
    log_probs = criterion_log_probs(scores)
    assert [p.shape[1] for p in log_probs] == [len(c.labels) for c in vocabulary.CRITERIA]
    q = vocabulary.CRITERION_CODES.index("streaks")
    assert vocabulary.CRITERIA[q].labels == ("absent", "regular", "irregular")
    torch.testing.assert_close(log_probs[q].exp(), torch.tensor([[0.25, 0.25, 0.5]]))
    for p in log_probs:
        torch.testing.assert_close(p.exp().sum(dim=1), torch.ones(1))


def test_criteria_by_hand():
    labels = torch.full((2, Q), -1)
    labels[0, 0] = 2  # pigment network: atypical, of three states
    labels[0, 3] = 0  # regression structures: absent, of two
    labels[1, 5] = 1  # blue-whitish veil: present, of two
    scores = torch.zeros(2, K, dtype=torch.float64)
    scores[0, 1] = math.log(2)  # atypical: 2 / (1 + 1 + 2)
    veil = sum(STATE_COUNTS[:5])
    scores[1, veil] = math.log(3)  # present: 3 / (1 + 3)
    losses = [math.log(2), math.log(2), math.log(4 / 3)]
    assert CriterionLoss()(scores, labels).item() == pytest.approx(sum(losses) / 3)
    weights = [[1.0] * (1 + n) for n in STATE_COUNTS]
    weights[5] = [0.5, 1.5]
    weighted = CriterionLoss(weights)(scores, labels)
    assert weighted.item() == pytest.approx((2 * math.log(2) + 1.5 * math.log(4 / 3)) / 3)


def test_criteria_gradient_and_missing_labels():
    labels = torch.tensor([[0, 1, 2, 1, -1, 0, 2, 1, -1], [2, -1, 0, 0, 1, 1, 0, 0, 1]])
    loss = CriterionLoss([[0.5] * n + [1.5] for n in STATE_COUNTS])
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), randn(2, K))
    assert_missing_rows_do_not_count(loss, randn(2, K), labels)
    x = randn(2, K)
    assert_zero_in_graph(loss(x, torch.full((2, Q), -1)), x)
    # One missing pair within a photo: the scores of that criterion get no gradient.
    (gradient,) = torch.autograd.grad(loss(x, labels), x)
    first = sum(STATE_COUNTS[:4])
    assert torch.equal(gradient[0, first : first + STATE_COUNTS[4]], torch.zeros(2, dtype=torch.float64))


def test_a_label_that_leaves_two_states_asks_for_either():
    """By hand: -log(p1 + p2) of one criterion, and a label counts by its weight."""
    q = vocabulary.CRITERION_CODES.index("streaks")
    possible, weight = torch.zeros(2, Q, MOST_STATES, dtype=torch.bool), torch.zeros(2, Q)
    possible[0, q, 1:], weight[0, q] = True, 1.0  # there, in whichever state
    possible[1, q, :2], weight[1, q] = True, 0.3  # not marked as irregular
    scores = torch.zeros(2, K, dtype=torch.float64)
    first = sum(STATE_COUNTS[:q])
    scores[:, first], scores[:, first + 1] = math.log(2), math.log(3)  # p = 1/6, 2/6, 3/6
    wanted = (-math.log(5 / 6) - 0.3 * math.log(3 / 6)) / 1.3
    assert CriterionLoss()(scores, CriterionTargets(possible, weight)).item() == pytest.approx(wanted)


def test_sure_labels_are_a_special_case_of_possible_states():
    labels = torch.tensor([[0, 1, 2, 1, -1, 0, 2, 1, -1], [2, -1, 0, 0, 1, 1, 0, 0, 1]])
    scores = randn(2, K)
    one, other = CriterionLoss()(scores, labels), CriterionLoss()(scores, CriterionTargets.of(labels))
    assert torch.equal(one, other)
    log_probs = criterion_log_probs(scores)
    wanted = [-log_probs[q][i, labels[i, q]] for i in range(2) for q in range(Q) if labels[i, q] >= 0]
    assert one.item() == pytest.approx(torch.stack(wanted).mean().item())


def test_a_possible_state_has_a_gradient_and_a_weight_of_0_has_none():
    possible = torch.ones(2, Q, MOST_STATES, dtype=torch.bool)
    possible[..., 0] = False
    weight = torch.ones(2, Q)
    weight[1] = 0
    targets, scores = CriterionTargets(possible, weight), randn(2, K)
    assert torch.autograd.gradcheck(lambda x: CriterionLoss()(x, targets), scores)
    (gradient,) = torch.autograd.grad(CriterionLoss()(scores, targets), scores)
    assert (gradient[0] < 0).all() and (gradient[1] == 0).all()


def test_targets_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="must leave a state possible"):
        CriterionTargets(torch.zeros(1, Q, MOST_STATES, dtype=torch.bool), torch.ones(1, Q))
    with pytest.raises(ValueError, match="need possible"):
        CriterionTargets(torch.zeros(1, Q, 2, dtype=torch.bool), torch.zeros(1, Q))
    assert len(CriterionTargets.of(torch.full((3, Q), -1))[torch.tensor([0, 2])].weight) == 2


def test_criteria_refuse():
    with pytest.raises(ValueError, match="scores"):
        criterion_log_probs(torch.zeros(2, K + 1))
    with pytest.raises(ValueError, match="labels"):
        CriterionLoss()(torch.zeros(2, K), torch.zeros(2, Q + 1, dtype=torch.long))
    with pytest.raises(ValueError, match="class_weights"):
        CriterionLoss([[1.0, 1.0]])
    labels = torch.zeros(1, Q, dtype=torch.long)
    labels[0, 3] = 2  # regression structures have one present state only
    with pytest.raises(ValueError, match="labels must lie"):
        CriterionLoss()(torch.zeros(1, K), labels)


def half_lesion(n: int = 1) -> Tensor:
    """[n, 2, 2]: the left column is lesion."""
    return torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64).expand(n, 2, 2)


def test_outside_mass_by_hand():
    maps = torch.tensor([[[[0.5, 0.3], [0.1, 0.1]], [[0.8, 0.0], [0.0, 0.0]]]], dtype=torch.float64)
    # Outside of map 0: 0.3 + 0.1 of 1.0; of map 1: nothing of 0.8; each cell carries 0.05 more.
    expected = (0.5 / 1.2 + 0.1 / 1.0) / 2
    assert OutsideMass(0.05)(maps, half_lesion()).item() == pytest.approx(expected)
    soft = torch.full((1, 2, 2), 0.75, dtype=torch.float64)
    assert OutsideMass(0.05)(maps, soft).item() == pytest.approx(0.25)


def test_outside_mass_does_not_reward_an_empty_map():
    loss, lesion = OutsideMass(), half_lesion()
    empty = torch.zeros(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    inside = torch.tensor([[[[0.9, 0.0], [0.9, 0.0]]]], dtype=torch.float64)
    assert loss(empty, lesion).item() == pytest.approx(0.5)
    assert loss(torch.full_like(empty, 0.7), lesion).item() == pytest.approx(0.5)
    assert loss(inside, lesion) < 0.05
    # Fading a good map away makes the loss rise steadily, up to that of a uniform map and without a jump.
    faded = [loss(inside * f, lesion).item() for f in (1.0, 0.1, 0.01, 1e-3, 1e-6, 0.0)]
    assert faded == sorted(faded)
    assert faded[-2] == pytest.approx(0.5, abs=1e-4)
    # From an empty map the way down is mass inside the lesion, not outside.
    (gradient,) = torch.autograd.grad(loss(empty, lesion), empty)
    assert (gradient[..., 0] < 0).all() and (gradient[..., 1] > 0).all()
    assert torch.isfinite(gradient).all()


def test_outside_mass_gradient_and_missing_masks():
    loss = OutsideMass(0.05)
    lesion = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    has_mask = torch.tensor([True, False, True])
    assert torch.autograd.gradcheck(lambda x: loss(x.sigmoid(), lesion, has_mask), randn(3, 2, 2, 2))

    def padded(maps: Tensor, mask: Tensor) -> Tensor:
        junk = torch.full((len(maps) - 3, 2, 2), math.nan, dtype=torch.float64)
        return loss(maps, torch.cat([lesion, junk]), mask)

    assert_missing_rows_do_not_count(padded, randn(3, 2, 2, 2).sigmoid(), torch.ones(3, dtype=torch.bool), False)
    x = randn(3, 2, 2, 2)
    assert_zero_in_graph(loss(x.sigmoid(), lesion, torch.zeros(3, dtype=torch.bool)), x)


def test_outside_mass_sends_no_gradient_into_a_predicted_lesion():
    lesion = torch.full((1, 2, 2), 0.5, requires_grad=True)
    maps = torch.rand(1, 1, 2, 2, requires_grad=True)
    OutsideMass()(maps, lesion).backward()
    assert lesion.grad is None and maps.grad is not None


def test_outside_mass_refuses():
    with pytest.raises(ValueError, match="eps"):
        OutsideMass(0)
    with pytest.raises(ValueError, match="same grid"):
        OutsideMass()(torch.zeros(1, 1, 2, 2), torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="mask must be bool"):
        OutsideMass()(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2), torch.ones(1))


def alignment_tensors() -> dict[str, tuple[Tensor, Tensor]]:
    return {
        "contrast": (randn(2, 2), DESCRIPTIONS),
        "criteria": (randn(2, K), torch.zeros(2, Q, dtype=torch.long)),
        "outside": (randn(2, 3, 2, 2).sigmoid(), half_lesion(2)),
    }


def test_alignment_names_and_weighs_its_parts():
    target, given = torch.tensor([0, 1]), alignment_tensors()
    parts = AlignmentLoss(1.0, 2.0, 3.0)(target, **given)
    assert set(parts) == {"contrast", "criteria", "outside", "alignment"}
    expected = parts["contrast"] + 2 * parts["criteria"] + 3 * parts["outside"]
    torch.testing.assert_close(parts["alignment"], expected)
    torch.testing.assert_close(parts["contrast"], RegionTextContrast()(*given["contrast"], target))


def test_alignment_gradient():
    loss, given, target = AlignmentLoss(temperature=0.5), alignment_tensors(), torch.tensor([0, -1])

    def total(embeddings: Tensor, scores: Tensor, maps: Tensor) -> Tensor:
        changed = {"contrast": embeddings, "criteria": scores, "outside": maps.sigmoid()}
        return loss(target, **{name: (first, given[name][1]) for name, first in changed.items()})["alignment"]

    assert torch.autograd.gradcheck(total, (randn(2, 2), randn(2, K), randn(2, 3, 2, 2)))


def test_alignment_leaves_out_what_is_not_given_but_not_half_of_a_pair():
    target, given = torch.tensor([0, 1]), alignment_tensors()
    assert AlignmentLoss()(target) == {}
    assert set(AlignmentLoss()(target, criteria=given["criteria"])) == {"criteria", "alignment"}
    with pytest.raises(ValueError, match="lesion is missing"):
        AlignmentLoss()(target, outside=(given["outside"][0], None))
    no_outside = AlignmentLoss(w_outside=0)
    assert set(no_outside(target, **given)) == {"contrast", "criteria", "alignment"}


# --- calibration -----------------------------------------------------------------------------------------------------


def test_calibration_by_hand():
    loss = CalibrationLoss(2, queue_size=4).double()
    first, second = logits_of((0.8, 0.2)), logits_of((0.6, 0.4), (0.3, 0.7))
    # A batch of one: mean p = (.8, .2) against labels (1, 0).
    assert loss(first, torch.tensor([0])).item() == pytest.approx(0.2)
    # Pooled with it: mean p = (1.7, 1.3) / 3 against (2, 1) / 3.
    assert loss(second, torch.tensor([1, 0])).item() == pytest.approx(0.1)


def test_calibration_temperature():
    logits = torch.tensor([[math.log(9), 0.0]])  # (.9, .1); at temperature 2 (.75, .25)
    assert CalibrationLoss(2, temperature=2.0)(logits, torch.tensor([0])).item() == pytest.approx(0.25)


def test_calibration_gradient_of_the_batch_alone():
    target = torch.tensor([0, 2, -1, 1])
    assert torch.autograd.gradcheck(lambda x: CalibrationLoss(3, 8).double()(x, target), randn(4, 3))
    assert torch.autograd.gradcheck(lambda x: CalibrationLoss(3, 8).double()(x, target[:1]), randn(1, 3))


def test_calibration_gradient_does_not_fade_as_the_queue_fills():
    loss = CalibrationLoss(3, queue_size=6).double()
    loss(randn(6, 3, seed=3), torch.tensor([0, 1, 2, 0, 1, 1]))
    loss.eval()
    x, target = randn(2, 3), torch.tensor([2, 0])
    (gradient,) = torch.autograd.grad(loss(x, target), x)
    numeric = torch.zeros_like(x)
    for i in range(x.numel()):
        step = torch.zeros(x.numel(), dtype=torch.float64)
        step[i] = 1e-6
        step = step.view_as(x)
        numeric.view(-1)[i] = (loss(x + step, target) - loss(x - step, target)) / 2e-6
    # The pooled value moves by batch / (batch + queue) = 2 / 8 of the batch's own gradient.
    torch.testing.assert_close(gradient, numeric * 4, atol=1e-7, rtol=1e-6)


def test_calibration_queue_forgets_the_oldest_and_moves_in_training_only():
    loss = CalibrationLoss(2, queue_size=3)
    probabilities = ((0.9, 0.1), (0.8, 0.2), (0.7, 0.3), (0.6, 0.4))
    for row in probabilities[:2]:
        loss(logits_of(row), torch.tensor([0]))
    assert loss.queue_target.tolist() == [-1, 0, 0]
    loss.eval()(logits_of((0.5, 0.5)), torch.tensor([1]))
    assert loss.queue_target.tolist() == [-1, 0, 0]
    loss.train()(logits_of(*probabilities[2:]), torch.tensor([1, -1]))
    assert loss.queue_target.tolist() == [0, 0, 1]
    torch.testing.assert_close(loss.queue_probs[:, 0], torch.tensor([0.9, 0.8, 0.7]))
    loss(logits_of(*probabilities, (0.2, 0.8)), torch.tensor([0, 0, 1, 1, 0]))  # more than the queue holds
    torch.testing.assert_close(loss.queue_probs[:, 0], torch.tensor([0.7, 0.6, 0.2]))


def test_calibration_without_a_queue():
    loss = CalibrationLoss(2, queue_size=0)
    for _ in range(2):
        assert loss(logits_of((0.8, 0.2)), torch.tensor([0])).item() == pytest.approx(0.2)


def test_calibration_resumes_exactly():
    batches = [(randn(3, 4, seed=i), torch.tensor([i % 4, -1, 2])) for i in range(6)]
    straight = CalibrationLoss(4, queue_size=5)
    for batch in batches[:3]:
        straight(*batch)
    resumed = CalibrationLoss(4, queue_size=5)
    resumed.load_state_dict(straight.state_dict())
    for batch in batches[3:]:
        assert torch.equal(straight(*batch), resumed(*batch))
    assert torch.equal(straight.queue_probs, resumed.queue_probs)


def test_calibration_missing_labels_and_mask():
    def fresh(x: Tensor, target: Tensor) -> Tensor:
        return CalibrationLoss(3, 8).double()(x, target)

    assert_missing_rows_do_not_count(fresh, randn(3, 3), torch.tensor([0, 2, 1]))
    x, target = randn(3, 3), torch.tensor([0, 2, 1])
    mask = torch.tensor([True, False, True])
    torch.testing.assert_close(CalibrationLoss(3)(x, target, mask), CalibrationLoss(3)(x[mask], target[mask]))
    loss = CalibrationLoss(3)
    assert_zero_in_graph(loss(x, target, torch.zeros(3, dtype=torch.bool)), x)
    assert (loss.queue_target == -1).all()


@pytest.mark.parametrize("wrong", [{"n_classes": 0}, {"queue_size": -1}, {"temperature": 0}])
def test_calibration_refuses(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CalibrationLoss(**({"n_classes": 3} | wrong))
    with pytest.raises(ValueError, match="logits must be"):
        CalibrationLoss(3)(randn(1, 4), torch.tensor([0]))


# --- consistency -----------------------------------------------------------------------------------------------------


def test_js_bounds_and_hand_value():
    x = randn(4, 3)
    torch.testing.assert_close(js(x, x + 7), torch.zeros(4, dtype=torch.float64))  # same probabilities
    disjoint = js(torch.tensor([[500.0, 0.0]]), torch.tensor([[0.0, 500.0]]))
    assert disjoint.item() == pytest.approx(math.log(2))
    # (1, 0)-like against (.5, .5): mean (.75, .25).
    expected = 0.5 * math.log(1 / 0.75) + 0.5 * (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))
    assert js(torch.tensor([[500.0, 0.0]]), torch.zeros(1, 2)).item() == pytest.approx(expected)
    torch.testing.assert_close(js(x, x.flip(0)), js(x.flip(0), x))
    assert (js(x, x.flip(0)) <= math.log(2)).all()
    with pytest.raises(ValueError, match="one shape"):
        js(randn(2, 3), randn(2, 4))


def test_consistency_names_and_weighs_its_parts():
    a, b, spelled = randn(3, 4), randn(3, 4, seed=1), randn(3, 4, seed=2)
    has_spelled = torch.tensor([True, False, True])
    parts = ConsistencyLoss(2.0, 3.0)(a, b, spelled, has_spelled=has_spelled)
    torch.testing.assert_close(parts["views"], js(a, b).mean())
    torch.testing.assert_close(parts["spelled"], js(a, spelled)[has_spelled].mean())
    torch.testing.assert_close(parts["consistency"], 2 * parts["views"] + 3 * parts["spelled"])
    assert ConsistencyLoss()(a) == {}
    assert set(ConsistencyLoss(w_views=0)(a, b, spelled)) == {"spelled", "consistency"}


def test_consistency_gradient_stops_at_the_diagnosis_head():
    a, b, spelled = randn(3, 4), randn(3, 4, seed=1), randn(3, 4, seed=2)
    loss = ConsistencyLoss()
    assert torch.autograd.gradcheck(lambda x, y: loss(x, y)["consistency"], (a, b))
    assert torch.autograd.gradcheck(lambda s: loss(a, spelled=s)["consistency"], spelled)
    head, text = torch.autograd.grad(loss(a, spelled=spelled)["consistency"], (a, spelled), allow_unused=True)
    assert head is None and text.abs().sum() > 0


def test_consistency_masked_photos_do_not_count():
    a = randn(5, 4).detach()
    everything = torch.ones(3, dtype=torch.bool)

    def views(b: Tensor, mask: Tensor) -> Tensor:
        return ConsistencyLoss()(a[: len(b)], b, has_second_view=mask)["consistency"]

    def spelled(s: Tensor, mask: Tensor) -> Tensor:
        return ConsistencyLoss()(a[: len(s)], spelled=s, has_spelled=mask)["consistency"]

    for loss in (views, spelled):
        assert_missing_rows_do_not_count(loss, randn(3, 4, seed=1), everything, False)
        x = randn(3, 4)
        assert_zero_in_graph(loss(x, ~everything), x)


# --- CFA -------------------------------------------------------------------------------------------------------------


def cfa_inputs() -> CFAInputs:
    """Three photos, four diagnoses, everything given; photo 2 has no diagnosis."""
    return CFAInputs(
        logits=randn(3, 4),
        target=torch.tensor([0, 3, -1]),
        logits_second_view=randn(3, 4, seed=1),
        spelled_logits=randn(3, 4, seed=2),
        has_spelled=torch.tensor([True, False, True]),
        embeddings=randn(3, 5, seed=3),
        descriptions=randn(4, 2, 5, seed=4),
        criterion_scores=randn(3, K, seed=5),
        criterion_labels=torch.full((3, Q), -1).index_fill(0, torch.tensor([2]), 1),
        maps=randn(3, K, 2, 2, seed=6).sigmoid(),
        lesion=half_lesion(3),
        has_mask=torch.tensor([True, True, False]),
        language_loss=torch.tensor(0.7, dtype=torch.float64, requires_grad=True),
        confidence_mask=torch.tensor([True, False, True]),
    )


ALL_PARTS = {
    "focal",
    "contrast",
    "criteria",
    "outside",
    "alignment",
    "calibration",
    "views",
    "spelled",
    "consistency",
    "language",
    "total",
}


def test_cfa_is_the_weighted_sum_of_its_parts():
    config = LossConfig(w_align=0.1, w_cal=0.2, w_con=0.3, w_lang=0.4)
    parts = CFALoss(config, class_counts=[9, 5, 2, 40], n_classes=4)(cfa_inputs())
    assert set(parts) == ALL_PARTS
    weighed = {"focal": 1.0, "alignment": 0.1, "calibration": 0.2, "consistency": 0.3, "language": 0.4}
    torch.testing.assert_close(parts["total"], sum(w * parts[name] for name, w in weighed.items()))
    assert all(value.ndim == 0 for value in parts.values())
    # Confidence is learnt on photo 0 alone: labelled and never seen by stage 0.
    x = cfa_inputs()
    # Its confidence is that at the prior of the training photos, as in the focal part.
    at_prior = x.logits[:1] + log_shares([9, 5, 2, 40])
    torch.testing.assert_close(parts["calibration"], CalibrationLoss(4)(at_prior, x.target[:1]))


def test_cfa_gradient():
    given = cfa_inputs()

    def total(logits: Tensor, second: Tensor, embeddings: Tensor, scores: Tensor, language: Tensor) -> Tensor:
        x = dataclasses.replace(
            given,
            logits=logits,
            logits_second_view=second,
            spelled_logits=None,  # its stopped gradient has a test of its own
            embeddings=embeddings,
            criterion_scores=scores,
            language_loss=language,
        )
        return CFALoss(LossConfig(contrast_temperature=0.5), n_classes=4).double()(x)["total"]

    names = ("logits", "logits_second_view", "embeddings", "criterion_scores", "language_loss")
    assert torch.autograd.gradcheck(total, tuple(getattr(given, name) for name in names))


class Explode(nn.Module):
    def forward(self, *args: object) -> Tensor:
        raise AssertionError("a part of weight 0 was computed")


@pytest.mark.parametrize(
    ("weight", "module", "gone"),
    [
        ("w_align", "alignment", {"alignment", "contrast", "criteria", "outside"}),
        ("w_cal", "calibration", {"calibration"}),
        ("w_con", "consistency", {"consistency", "views", "spelled"}),
        ("w_lang", None, {"language"}),
        ("w_contrast", "alignment.contrast", {"contrast"}),
        ("w_criteria", "alignment.criteria", {"criteria"}),
        ("w_outside", "alignment.outside", {"outside"}),
        ("w_views", None, {"views"}),
        ("w_spelled", None, {"spelled"}),
    ],
)
def test_cfa_skips_a_part_of_weight_zero(weight, module, gone):
    loss = CFALoss(LossConfig(**{weight: 0.0}), n_classes=4)
    if module is not None:
        loss.set_submodule(module, Explode())
    assert set(loss(cfa_inputs())) == ALL_PARTS - gone


def test_cfa_leaves_out_what_a_batch_does_not_give():
    x = cfa_inputs()
    parts = CFALoss(n_classes=4)(CFAInputs(logits=x.logits, target=x.target))
    assert set(parts) == {"focal", "calibration", "total"}
    with pytest.raises(ValueError, match="descriptions is missing"):
        CFALoss(n_classes=4)(CFAInputs(logits=x.logits, target=x.target, embeddings=x.embeddings))
    with pytest.raises(ValueError, match="scalar"):
        CFALoss(n_classes=4)(CFAInputs(logits=x.logits, target=x.target, language_loss=torch.zeros(2)))


def test_cfa_computes_half_precision_in_float32():
    x, y = cfa_inputs(), cfa_inputs()
    for field in dataclasses.fields(CFAInputs):
        value = getattr(x, field.name)
        if isinstance(value, Tensor) and value.is_floating_point():
            half = value.detach().bfloat16()
            setattr(x, field.name, half)
            setattr(y, field.name, half.float())
    in_half, in_full = (CFALoss(LossConfig(w_lang=0), n_classes=4)(z) for z in (x, y))
    for name, value in in_full.items():
        assert value.dtype == torch.float32
        assert torch.equal(in_half[name], value)


def test_cfa_checkpoints_its_queue_only_and_learns_nothing_itself():
    loss = CFALoss(class_counts=[1] * len(vocabulary.DIAGNOSES))
    assert set(loss.state_dict()) == {"calibration.queue_probs", "calibration.queue_target"}
    assert not list(loss.parameters())


def test_loss_config_refuses_negative_weights():
    with pytest.raises(ValueError, match="w_align"):
        LossConfig(w_align=-0.1)
