"""Maps from logits to probabilities: fitted on calibration lesions, compared by their calibration errors.

Beside every calibration error stands its noise floor: what a perfectly calibrated model would show on that many photos.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold

from eval_study.benchmarks.calibration.settings import BINS, FOLDS, NOISE_DRAWS, SHIPPED, Apply, C
from skinclip.calibration.calibrator import Calibrator
from skinclip.calibration.temperature import fit_calibration
from skinclip.evaluation import metrics

_STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
Fitter = Callable[[np.ndarray, np.ndarray, np.ndarray], Apply]  # logits [n, C], labels [n], groups [n]


class _AsGiven(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose inputs are its probabilities, so that scikit-learn's calibrators can map them."""

    def __init__(self, n_classes: int = C) -> None:
        self.n_classes = n_classes
        self.classes_ = np.arange(n_classes)

    def fit(self, x: np.ndarray, y: np.ndarray) -> _AsGiven:
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x).argmax(axis=1)


def plain(logits: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Apply:
    """No map: the softmax of the raw logits."""
    return lambda z: softmax(z, axis=1)


def _calibrated(method: str) -> Fitter:
    def fit(logits: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Apply:
        there, numbers = np.unique(labels, return_inverse=True)  # of classes without a photo nothing can be fitted
        given = FrozenEstimator(_AsGiven(len(there)))
        fitted = CalibratedClassifierCV(given, method=method).fit(softmax(logits[:, there], axis=1), numbers)

        def apply(z: np.ndarray) -> np.ndarray:
            p = np.zeros(z.shape)
            p[:, there] = fitted.predict_proba(softmax(z[:, there], axis=1))
            return p

        return apply

    return fit


temperature = _calibrated("temperature")  # Guo et al. 2017
isotonic = _calibrated("isotonic")  # each class against the rest, renormalised (Zadrozny and Elkan 2002)


def bias_corrected(centre: Sequence[float]) -> Fitter:
    """The shipped kind of map, fitted anew; its bias is drawn towards `centre` [C]."""
    return lambda logits, labels, groups: fit_calibration(logits, labels, np.asarray(centre)).apply


def vector_scaling(strength: float) -> Fitter:
    """softmax(w * logits + b) (Guo et al. 2017) of least mean negative log-likelihood + `strength` * (|w - mean w|^2 +
    |b|^2): towards one temperature for all classes as `strength` grows."""

    def fit(logits: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Apply:
        n_classes = logits.shape[1]
        start = np.concatenate([np.ones(n_classes), np.zeros(n_classes)])
        solution = minimize(_vector_objective, start, args=(logits, labels, strength), jac=True, method="L-BFGS-B")
        w, b = solution.x[:n_classes], solution.x[n_classes:]
        return lambda z: softmax(z * w + b, axis=1)

    return fit


def _vector_objective(
    x: np.ndarray, logits: np.ndarray, labels: np.ndarray, strength: float
) -> tuple[float, np.ndarray]:
    w, b = np.split(x, 2)
    rows = np.arange(len(labels))
    log_p = log_softmax(logits * w + b, axis=1)
    residual = np.exp(log_p)
    residual[rows, labels] -= 1.0
    residual /= len(labels)
    spread = w - w.mean()
    value = -float(log_p[rows, labels].mean()) + strength * float(spread @ spread + b @ b)
    gradient = [(residual * logits).sum(axis=0) + 2 * strength * spread, residual.sum(axis=0) + 2 * strength * b]
    return value, np.concatenate(gradient)


def dirichlet(strength: float) -> Fitter:
    """Dirichlet calibration (Kull et al. 2019): multinomial regression on log-probabilities, a full matrix and a bias,
    under an L2 penalty of `strength` a photo."""

    def fit(logits: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Apply:
        n_classes = logits.shape[1]
        model = LogisticRegression(C=1 / (strength * len(labels)), solver="newton-cholesky")
        model.fit(log_softmax(logits, axis=1), labels)

        def apply(z: np.ndarray) -> np.ndarray:
            p = np.zeros((len(z), n_classes))  # a class without a photo to fit on has no column of the model's
            p[:, model.classes_] = model.predict_proba(log_softmax(z, axis=1))
            return p

        return apply

    return fit


def by_cross_validation(kind: Callable[[float], Fitter], seed: int) -> Fitter:
    """`kind` at the strength of least negative log-likelihood over folds of lesions within the rows it is fitted on."""

    def fit(logits: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Apply:
        losses = {
            s: log_loss(labels, cross_fitted(kind(s), logits, labels, groups, seed), labels=np.arange(logits.shape[1]))
            for s in _STRENGTHS
        }
        return kind(min(losses, key=losses.__getitem__))(logits, labels, groups)

    return fit


def cross_fitted(
    fitter: Fitter, logits: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int, folds: int = FOLDS
) -> np.ndarray:
    """[n, C] probabilities of each row from a map fitted on the other folds; a lesion lies in one fold."""
    p = np.zeros(logits.shape)
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(logits, labels, groups)
    for rest, held_out in parts:
        p[held_out] = fitter(logits[rest], labels[rest], groups[rest])(logits[held_out])
    return p


def fitters(calibrator: Calibrator, seed: int) -> dict[str, Fitter]:
    """The maps by name; "shipped" is not fitted but read from the weights.

    The prior at which the head was trained is not stored with the weights. The shipped bias stands in for the shift
    of prior that the refitted bias is drawn towards; so cross-fitting that one map is a little optimistic.
    """
    calibration = calibrator.calibration
    return {
        "none": plain,
        "temperature": temperature,
        SHIPPED: lambda logits, labels, groups: calibration.apply,
        "bias-corrected temperature, refitted": bias_corrected(np.nan_to_num(calibration.bias, neginf=0.0)),
        "vector scaling": by_cross_validation(vector_scaling, seed),
        "Dirichlet": by_cross_validation(dirichlet, seed),
        "isotonic": isotonic,
    }


def compare_maps(
    p: Mapping[str, np.ndarray],
    labels: np.ndarray,
    prior: np.ndarray,
    resamples: metrics.GroupBootstrap,
    seed: int,
) -> dict[str, Any]:
    """Calibration figures of each map's probabilities [n, C], their noise floors, and how each differs from shipped."""
    by_map = {}
    for name, probabilities in p.items():
        errors = {
            "ece": metrics.ece(probabilities, labels, BINS),
            "adaptive_ece": metrics.adaptive_ece(probabilities, labels, BINS),
            "classwise_ece": metrics.classwise_ece(probabilities, labels, BINS),
            "ece_balanced_rule": _ece_of_rule(probabilities, probabilities / prior, labels),
            "brier": metrics.brier(probabilities, labels),
            "nll": metrics.nll(probabilities, labels),
            "accuracy": metrics.accuracy(labels, probabilities.argmax(axis=1)),
            "balanced_accuracy": metrics.balanced_accuracy(labels, (probabilities / prior).argmax(axis=1)),
            "balanced_accuracy_argmax": metrics.balanced_accuracy(labels, probabilities.argmax(axis=1)),
        }
        by_map[name] = {key: resamples.interval(metric) for key, metric in errors.items()} | {
            "noise_floor": _noise_floors(probabilities, seed),
            "nll_above_shipped": resamples.interval(
                metrics.difference(metrics.nll(probabilities, labels), metrics.nll(p[SHIPPED], labels))
            ),
        }
    return by_map


def _noise_floors(p: np.ndarray, seed: int) -> dict[str, Any]:
    """Each calibration error that a perfectly calibrated model with probabilities `p` would show."""
    errors = {"ece": metrics.ece, "adaptive_ece": metrics.adaptive_ece, "classwise_ece": metrics.classwise_ece}
    return {key: metrics.ece_noise_floor(p, NOISE_DRAWS, seed, BINS, error) for key, error in errors.items()}


def _ece_of_rule(p: np.ndarray, balanced: np.ndarray, labels: np.ndarray) -> metrics.Metric:
    """ECE of the probability of the diagnosis that argmax p / prior decides for, rather than of the most probable."""
    decided = balanced.argmax(axis=1)
    confidence = p[np.arange(len(p)), decided]
    # one column: its argmax is always 0, so that label 0 reads "right" and label 1 "wrong"
    return metrics.ece(confidence[:, None], (decided != labels).astype(np.int64), BINS)


def chosen_map(maps: Mapping[str, Any]) -> dict[str, Any]:
    """The map of least negative log-likelihood on `valid`; to change is only worth it where it truly differs."""
    best = min(maps, key=lambda name: maps[name]["nll"]["value"])
    gap = maps[best]["nll_above_shipped"]
    better = best != SHIPPED and gap["high"] is not None and gap["high"] < 0
    return {"lowest_nll": best, "nll_above_shipped": gap, "change": bool(better), "chosen": best if better else SHIPPED}


def middle_95(values: Sequence[float] | np.ndarray) -> dict[str, float | None]:
    """95 % range of bootstrapped values."""
    if len(values) == 0:
        return {"low": None, "high": None}
    low, high = np.percentile(values, (2.5, 97.5))
    return {"low": float(low), "high": float(high)}


def reliability(p: np.ndarray, labels: np.ndarray, seed: int, draws: int = NOISE_DRAWS) -> list[dict[str, Any]]:
    """The filled bins of a reliability diagram (equally wide, by top-class confidence).

    `low` and `high` are where 95 % of perfectly calibrated models' accuracy would lie in that bin at its n.
    """
    confidence, hit = p.max(axis=1), p.argmax(axis=1) == labels
    edges = np.linspace(0, 1, BINS + 1)
    bin_of_row = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, BINS - 1)
    ideal = np.random.default_rng(seed).random((draws, len(p))) < confidence
    bins = []
    for b in np.unique(bin_of_row):
        own = bin_of_row == b
        band = middle_95(ideal[:, own].mean(axis=1))
        bins.append(
            {
                "from": float(edges[b]),
                "to": float(edges[b + 1]),
                "n": int(own.sum()),
                "confidence": float(confidence[own].mean()),
                "accuracy": float(hit[own].mean()),
                **band,
            }
        )
    return bins
