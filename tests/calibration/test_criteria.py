import numpy as np
import pytest
import torch
from scipy.special import expit, logsumexp

from skinclip.calibration import criteria as module
from skinclip.calibration.criteria import CriteriaCalibration, fit_criteria
from skinclip.core.vocabulary import CRITERIA
from skinclip.model.criteria import STATE_COUNTS, criterion_log_probs

Q, K = len(STATE_COUNTS), sum(STATE_COUNTS)


def some_scores(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(-0.5, 1.5, (n, K))


def labels_drawn(scores: np.ndarray, seed: int = 1) -> np.ndarray:
    """States drawn from the probabilities that the scores stand for."""
    rng, labels = np.random.default_rng(seed), []
    for row in criterion_log_probs(torch.from_numpy(scores)):
        upper = row.exp().numpy().cumsum(1)
        labels.append((rng.random((len(scores), 1)) >= upper[:, :-1]).sum(1))
    return np.stack(labels, 1)


def test_identity_changes_no_probability():
    scores = some_scores(20)
    same = CriteriaCalibration.identity()
    assert same.is_identity
    for ours, theirs in zip(
        criterion_log_probs(torch.from_numpy(same.apply(scores))),
        criterion_log_probs(torch.from_numpy(scores)),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_presence_and_states_equal_hand_computed():
    c = CriteriaCalibration(np.full(Q, 2.0), np.full(Q, -1.0), np.full(Q, 0.5), np.zeros(K))
    scores = some_scores(3)
    row = criterion_log_probs(torch.from_numpy(c.apply(scores)))[0].exp().numpy()
    own = scores[:, : STATE_COUNTS[0]]
    present = expit(2 * logsumexp(own, axis=1) - 1)
    types = np.exp(0.5 * own) / np.exp(0.5 * own).sum(axis=1, keepdims=True)
    assert row[:, 0] == pytest.approx(1 - present) and row[:, 1:] == pytest.approx(present[:, None] * types)


def test_recovers_how_scores_are_off():
    true = some_scores(6_000)
    labels = labels_drawn(true)
    off = CriteriaCalibration(np.full(Q, 1.6), np.full(Q, 0.7), np.full(Q, 1.8), np.zeros(K))
    fitted = fit_criteria(off.apply(true), labels)
    assert fitted.slope == pytest.approx(np.full(Q, 1 / 1.6), rel=0.12)
    assert fitted.bias == pytest.approx(np.full(Q, -0.7 / 1.6), abs=0.12)
    several = np.array(STATE_COUNTS) > 1
    assert fitted.state_slope[several] == pytest.approx(np.full(several.sum(), 1 / 1.8), rel=0.15)
    assert fitted.state_slope[~several] == pytest.approx(1.0)


def test_few_labels_leave_scores_nearly_as_they_are():
    scores = some_scores(40)
    labels = labels_drawn(scores)
    few = np.where(np.arange(40)[:, None] < 12, labels, -1)
    assert fit_criteria(scores, np.where(labels > 0, -1, labels)).is_identity  # nothing is ever there
    gentle, strong = fit_criteria(scores, few), fit_criteria(np.tile(scores, (50, 1)), np.tile(labels, (50, 1)))
    assert np.abs(np.log(gentle.slope)).mean() < np.abs(np.log(strong.slope)).mean()


def test_is_fitted_one_by_one():
    scores = some_scores(400)
    labels = np.full((400, Q), -1)
    labels[:, 1] = labels_drawn(scores)[:, 1]
    fitted = fit_criteria(scores * 3, labels)
    assert fitted.slope[1] < 0.7 and (np.delete(fitted.slope, 1) == 1).all() and (np.delete(fitted.bias, 1) == 0).all()


def test_improves_the_log_loss_on_other_photos():
    true = some_scores(1_200)
    labels, off = labels_drawn(true), 2.5 * true + 0.8
    fitted = fit_criteria(off[:600], labels[:600])

    def loss(scores: np.ndarray) -> float:
        rows = criterion_log_probs(torch.from_numpy(scores))
        return -np.mean([r.numpy()[np.arange(600), labels[600:, q]].mean() for q, r in enumerate(rows)])

    assert loss(fitted.apply(off[600:])) < loss(off[600:]) - 0.1


def test_the_order_of_photos_by_presence_stays():
    scores = some_scores(300)
    fitted = fit_criteria(scores * 2, labels_drawn(scores))
    assert (fitted.slope > 0).all() and len(CRITERIA) == Q


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        (np.zeros((3, K)), np.zeros((3, Q + 1)), "labels have the shape"),
        (np.full((3, K), np.nan), np.zeros((3, Q)), "not finite"),
        (np.zeros((3, K + 1)), np.zeros((3, Q)), "scores must be"),
    ],
)
def test_says_why_it_cannot_fit(scores, labels, words):
    with pytest.raises(ValueError, match=words):
        fit_criteria(scores, labels.astype(int))


def test_gradients_are_those_of_the_losses(monkeypatch):
    from scipy.optimize import check_grad

    checked = []

    def check(loss, size):
        x = np.linspace(-0.3, 0.4, size)
        checked.append(check_grad(lambda v: loss(v)[0], lambda v: loss(v)[1], x))
        return np.zeros(size)

    monkeypatch.setattr(module, "_minimum", check)
    scores = some_scores(300)
    fit_criteria(scores, labels_drawn(scores))
    assert len(checked) >= Q and max(checked) < 1e-2 * 300
