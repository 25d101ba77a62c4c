"""Calibrated probabilities at natural prevalence: bias-corrected temperature scaling.

First step of calibration: everything after it (sets, referral threshold, the page) reads these probabilities. Training
draws rare classes more often than they occur, so the raw softmax overstates them; the bias puts the natural prior
back, the temperature makes confidence mean what it says (Guo et al. 2017; Alexandari et al. 2020).

Photos of several sources are fitted together although their prevalences differ: each source's own shares enter as an
offset that is known, so what is fitted is what the sources have in common (label shift; Saerens et al. 2002).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax

# Standard deviation, in log odds, of how far a class's bias may lie from the known shift of prior. The rarest classes
# have about ten calibration photos: enough to confirm the shift, too few to estimate a bias from nothing.
_BIAS_SD = 0.5
_LOG_TEMPERATURE_BOUNDS = (float(np.log(0.05)), float(np.log(20.0)))


@dataclass(frozen=True)
class Calibration:
    """p = softmax(logits / temperature + bias); `bias` has one number per diagnosis, in log odds."""

    temperature: float
    bias: tuple[float, ...]

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities [n, C] of `logits` [n, C], float64."""
        return softmax(np.asarray(logits, dtype=np.float64) / self.temperature + np.asarray(self.bias), axis=1)


def fit_calibration(
    logits: np.ndarray,
    labels: np.ndarray,
    log_prior_shift: np.ndarray,
    weights: np.ndarray | None = None,
    offsets: np.ndarray | None = None,
) -> Calibration:
    """The temperature and bias of least negative log-likelihood, the bias drawn towards `log_prior_shift`.

    Args:
        logits: [n, C] raw diagnosis logits of calibration photos.
        labels: [n] class numbers; -1 is "no label" and left out.
        log_prior_shift: [C] log natural prior less log prior as drawn in training, the bias to expect.
        weights: [n] of the photos; None: all the same.
        offsets: [n, C] log prior of a photo's source less log natural prior; None: all have the natural one.

    Raises ValueError where no photo is labelled or a logit is not finite.
    """
    known = np.asarray(labels) >= 0
    weights = np.ones(len(known)) if weights is None else np.asarray(weights, dtype=np.float64)
    offsets = np.zeros(np.shape(logits)) if offsets is None else np.asarray(offsets, dtype=np.float64)
    logits, labels = labelled_rows(logits, labels)
    shift = np.asarray(log_prior_shift, dtype=np.float64)
    if shift.shape != (logits.shape[1],):
        raise ValueError(
            f"log_prior_shift has shape {shift.shape}, expected ({logits.shape[1]},): one number per diagnosis"
        )
    start = np.concatenate([[0.0], shift])
    bounds = [_LOG_TEMPERATURE_BOUNDS, *[(None, None)] * len(shift)]
    from scipy.optimize import minimize  # only a fit needs it, the page never

    rows = (logits, labels, shift, weights[known], offsets[known])
    optimum = minimize(_objective, start, args=rows, jac=True, method="L-BFGS-B", bounds=bounds)
    return Calibration(float(np.exp(optimum.x[0])), tuple(float(b) for b in optimum.x[1:]))


def labelled_rows(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of `scores` [n, ...] whose label is not -1, as float64, and those labels. Raises ValueError if none."""
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if len(scores) != len(labels):
        raise ValueError(f"{len(scores)} rows but {len(labels)} labels; give one label a row, -1 where there is none")
    keep = labels >= 0
    if not keep.any():
        raise ValueError("no row has a label; calibration is fitted on the labelled photos of the calib split")
    if not np.isfinite(scores[keep]).all():
        raise ValueError(
            "a row holds a number that is not finite; check the model's outputs before fitting a calibration"
        )
    return scores[keep], labels[keep].astype(np.int64)


def _objective(
    parameters: np.ndarray,
    logits: np.ndarray,
    labels: np.ndarray,
    shift: np.ndarray,
    weights: np.ndarray,
    offsets: np.ndarray,
) -> tuple[float, np.ndarray]:
    """Mean negative log-posterior and its gradient by (log temperature, bias)."""
    n, rows, share = len(labels), np.arange(len(labels)), weights / weights.sum()
    scaled = logits * np.exp(-parameters[0])  # [n, C]
    z = scaled + parameters[1:] + offsets
    nll = float(share @ (logsumexp(z, axis=1) - z[rows, labels]))
    residual = np.exp(log_softmax(z, axis=1))
    residual[rows, labels] -= 1.0
    residual *= share[:, None]
    pull = (parameters[1:] - shift) / (_BIAS_SD**2 * n)
    gradient = np.concatenate([[-np.sum(residual * scaled)], residual.sum(axis=0) + pull])
    return nll + 0.5 * float(np.sum(pull * (parameters[1:] - shift))), gradient
