"""Calibrated criteria: a logistic fit for each criterion, from its evidence scores to probabilities to rely on.

The maps of different criteria are trained on very unequal numbers of photos, so their scores are off in different
ways. Two questions are fitted apart, as a finding is cited: is the criterion there (slope and bias on its log-odds of
presence; Platt 1999), and of which type (temperature and bias among its states). Few photos are labelled, so each fit
is drawn towards leaving the scores as they are.

`CriteriaCalibration.apply` turns evidence scores into calibrated scores of the same form, in one place
(`CalibratedModel`): thresholds, probabilities and findings are read from those, as if the model had given them.
The model itself, which reads the evidence too, never sees them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_softmax, logsumexp

from skinclip.model.criteria import STATE_COUNTS

# Standard deviations of the log of a slope and of a bias around "as it is"; chosen by log loss over folds of Derm7pt
# valid among 0.25, 0.5 and 1.
_LOG_SLOPE_SD, _BIAS_SD = 0.5, 0.5
_STATES_LOG_SLOPE_SD, _STATES_BIAS_SD = 0.5, 0.5
MIN_PHOTOS = 10  # labelled photos with, and as many without, from which presence is fitted; of a state likewise


@dataclass(frozen=True)
class CriteriaCalibration:
    """`slope` [Q] and `bias` [Q] of each criterion's log-odds of presence, `state_slope` [Q] (one over a temperature)
    and `state_bias` [K] of its states among themselves."""

    slope: np.ndarray
    bias: np.ndarray
    state_slope: np.ndarray
    state_bias: np.ndarray

    @classmethod
    def identity(cls) -> CriteriaCalibration:
        """The scores as they are."""
        q, k = len(STATE_COUNTS), sum(STATE_COUNTS)
        return cls(np.ones(q), np.zeros(q), np.ones(q), np.zeros(k))

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated scores [n, K], float64, of evidence `scores` [n, K]: "absent" keeps the logit 0."""
        parts, bias = _by_criterion(np.asarray(scores, dtype=np.float64)), _by_criterion(self.state_bias[None])
        calibrated = []
        for q, (own, shift) in enumerate(zip(parts, bias, strict=True)):
            presence = self.slope[q] * logsumexp(own, axis=1, keepdims=True) + self.bias[q]
            calibrated.append(presence + log_softmax(self.state_slope[q] * own + shift, axis=1))
        return np.concatenate(calibrated, axis=1)

    @property
    def is_identity(self) -> bool:
        """Says that `apply` would change nothing."""
        same = np.concatenate([self.slope, self.state_slope])
        return bool((same == 1).all() and not self.bias.any() and not self.state_bias.any())


def fit_criteria(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> CriteriaCalibration:
    """The calibration of least penalised log loss; a criterion with too few labelled photos stays as it is.

    Args:
        scores: [n, K] evidence scores, in the order of `vocabulary.EVIDENCE_STATES`.
        labels: [n, Q] number of each criterion's state, 0 for absent, -1 where not labelled.
        weights: [n] of the photos; None: all the same.

    Raises ValueError for other shapes, or where a score is not finite.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if labels.shape != (len(scores), len(STATE_COUNTS)):
        raise ValueError(f"labels have the shape {labels.shape}, expected {(len(scores), len(STATE_COUNTS))}")
    if not np.isfinite(scores).all():
        raise ValueError("an evidence score is not finite; check the model's outputs before fitting a calibration")
    w = np.ones(len(scores)) if weights is None else np.asarray(weights, dtype=np.float64)
    fitted = CriteriaCalibration.identity()
    starts = np.concatenate([[0], np.cumsum(STATE_COUNTS)])
    for q, own in enumerate(_by_criterion(scores)):
        known, there = labels[:, q] >= 0, labels[:, q] > 0
        if min(there.sum(), (known & ~there).sum()) >= MIN_PHOTOS:
            odds = logsumexp(own[known], axis=1)
            fitted.slope[q], fitted.bias[q] = _fit_presence(odds, there[known], w[known])
        if STATE_COUNTS[q] > 1 and (np.bincount(labels[there, q] - 1, minlength=STATE_COUNTS[q]) >= MIN_PHOTOS).all():
            slope, bias = _fit_states(own[there], labels[there, q] - 1, w[there])
            fitted.state_slope[q], fitted.state_bias[starts[q] : starts[q + 1]] = slope, bias
    return fitted


def _by_criterion(scores: np.ndarray) -> list[np.ndarray]:
    """[n, K] as Q arrays [n, states]. Raises ValueError for another width."""
    if scores.ndim != 2 or scores.shape[1] != sum(STATE_COUNTS):
        raise ValueError(f"scores must be [n, {sum(STATE_COUNTS)}], got {list(scores.shape)}")
    return np.split(scores, np.cumsum(STATE_COUNTS)[:-1], axis=1)


def _fit_presence(odds: np.ndarray, there: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Slope and bias for log-odds [n] and bool [n]."""

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = np.exp(x[0]) * odds + x[1]
        residual = weights * (expit(z) - there)
        penalty = 0.5 * ((x[0] / _LOG_SLOPE_SD) ** 2 + (x[1] / _BIAS_SD) ** 2)
        gradient = np.array([residual @ (np.exp(x[0]) * odds), residual.sum()]) + x / np.array(
            [_LOG_SLOPE_SD**2, _BIAS_SD**2]
        )
        return float(weights @ (np.logaddexp(0, z) - there * z)) + penalty, gradient

    x = _minimum(loss, 2)
    return float(np.exp(x[0])), float(x[1])


def _fit_states(scores: np.ndarray, states: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Slope and bias [states] for scores [n, states] and the true state [n], counted from 0."""
    truth = np.eye(scores.shape[1])[states]
    sd = np.array([_STATES_LOG_SLOPE_SD, *[_STATES_BIAS_SD] * scores.shape[1]])

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = np.exp(x[0]) * scores
        log_p = log_softmax(scaled + x[1:], axis=1)
        residual = weights[:, None] * (np.exp(log_p) - truth)
        gradient = np.concatenate([[(residual * scaled).sum()], residual.sum(axis=0)]) + x / sd**2
        return float(-(weights[:, None] * truth * log_p).sum() + 0.5 * ((x / sd) ** 2).sum()), gradient

    x = _minimum(loss, 1 + scores.shape[1])
    return float(np.exp(x[0])), x[1:] - x[1:].mean()


def _minimum(loss: Callable[[np.ndarray], tuple[float, np.ndarray]], size: int) -> np.ndarray:
    from scipy.optimize import minimize  # only a fit needs it, the page never

    bounds = [(-3.0, 3.0), *[(None, None)] * (size - 1)]
    return np.asarray(minimize(loss, np.zeros(size), jac=True, method="L-BFGS-B", bounds=bounds).x)
