"""Split-conformal prediction sets: the diagnoses that cannot be ruled out at a stated coverage.

The score is 1 - p of the true diagnosis (LAC; Sadinle et al. 2019). One quantile for all diagnoses gives the smallest
sets on average, but their coverage is marginal: nevi, two thirds of the photos, are covered almost always, and melanoma
pays for it. So each diagnosis has a quantile of its own (Vovk 2012, "Mondrian"), those too rare for one share theirs.
Coverage that holds for each diagnosis holds for any mix of them: it does not depend on the prevalence.
The quantile is one line of numpy rather than MAPIE, whose classifiers want a scikit-learn estimator and keep the
quantile private, so it could not be stored with a checkpoint; a test holds the sets equal to MAPIE's.

Quantiles by class alone can rule out a diagnosis and keep a less probable one, which no reader would follow. A set is
therefore closed upwards: whatever is at least as probable as a member is a member. Sets only grow by it, so the
coverage of each diagnosis stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skinclip.calibration.temperature import labelled_rows

COVERAGE = 0.90
NOT_KNOWN = -1.0  # the quantile of a diagnosis that the model does not know
MIN_LESIONS = 30  # calibration lesions from which a diagnosis gets a quantile of its own


def ranking(probabilities: np.ndarray) -> np.ndarray:
    """[n, C] class numbers, most probable first, for `probabilities` [n, C]; equals keep their order."""
    return np.argsort(-probabilities, axis=1, kind="stable")


@dataclass(frozen=True)
class Conformal:
    """A diagnosis is in the set where 1 - p <= its quantile, or where it is at least as probable as one that is.

    `quantiles` holds one number per diagnosis, or a single one for all; `NOT_KNOWN` keeps a diagnosis out of every set.
    """

    coverage: float
    quantiles: tuple[float, ...]

    def members(self, probabilities: np.ndarray) -> np.ndarray:
        """Membership of each diagnosis in its photo's set, bool [n, C], for `probabilities` [n, C]."""
        probabilities = np.asarray(probabilities)
        inside = 1.0 - probabilities <= np.asarray(self.quantiles)
        # An empty set would read as "none of these", which the model cannot say: the top class stays.
        inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
        return closed_upwards(inside, probabilities) & (np.asarray(self.quantiles) > NOT_KNOWN)

    def sets(self, probabilities: np.ndarray, codes: tuple[str, ...]) -> list[tuple[str, ...]]:
        """The members' codes of each photo, most probable first."""
        order = ranking(np.asarray(probabilities))
        inside = self.members(probabilities)
        return [tuple(codes[c] for c in row if inside[i, c]) for i, row in enumerate(order)]


def closed_upwards(inside: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Members [n, C] and whatever is at least as probable as the least probable of them."""
    least = np.where(inside, probabilities, np.inf).min(axis=1, keepdims=True)
    return probabilities >= least


def fit_conformal(
    probabilities: np.ndarray,
    labels: np.ndarray,
    coverage: float = COVERAGE,
    class_groups: Sequence[int] | None = None,
    weights: np.ndarray | None = None,
) -> Conformal:
    """The quantiles at which sets hold the truth in at least `coverage` of photos, in finite samples.

    A quantile is the k-th smallest calibration score of its diagnoses, k = ceil((n + 1) * coverage) (Vovk et al. 2005);
    with too few photos for that k it is 1, and those diagnoses are in every set.

    Args:
        probabilities: [n, C]; labels: [n] class numbers, -1 is left out.
        class_groups: [C] diagnoses of equal number share a quantile; None lets all share one.
        weights: [n] of the photos, such as let each source count the same; None: all the same.
    """
    if not 0.0 < coverage < 1.0:
        raise ValueError(f"coverage {coverage} is not between 0 and 1")
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    weights = weights[np.asarray(labels) >= 0]
    probabilities, labels = labelled_rows(probabilities, labels)
    scores = 1.0 - probabilities[np.arange(len(labels)), labels]
    if class_groups is None:
        return Conformal(coverage, (min(1.0, weighted_quantile(scores, weights, coverage)),))
    group_of = np.asarray(class_groups)
    quantiles = {
        g: min(1.0, weighted_quantile(scores[own], weights[own], coverage))
        for g, own in ((g, group_of[labels] == g) for g in np.unique(group_of))
    }
    return Conformal(coverage, tuple(quantiles[g] for g in group_of))


def quantile(scores: np.ndarray, coverage: float) -> float:
    """The k-th smallest of `scores` [n], k = ceil((n + 1) * coverage); infinite where there are fewer than k."""
    k = int(np.ceil((len(scores) + 1) * coverage - 1e-9))  # 1e-9: 0.9 * 10 must not round up to 10
    return float(np.sort(scores)[k - 1]) if k <= len(scores) else float("inf")


def weighted_quantile(scores: np.ndarray, weights: np.ndarray, coverage: float) -> float:
    """The least of `scores` [n] up to which `coverage` of the weight lies, that of a new photo counted as infinite.

    The new photo weighs as much as the heaviest one here, which is on the safe side (weighted conformal prediction;
    Tibshirani et al. 2019). Equal weights give `quantile`.
    """
    if not len(scores):
        return float("inf")
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weights[order]) >= coverage * (weights.sum() + weights.max()) * (1 - 1e-12)
    return float(scores[order][reached.argmax()]) if reached.any() else float("inf")


def pooled_classes(labels: np.ndarray, lesions: np.ndarray, n_classes: int) -> tuple[int, ...]:
    """[C] groups that share a quantile: each class for itself, those of fewer than MIN_LESIONS lesions together."""
    counts = [len(np.unique(lesions[labels == c])) for c in range(n_classes)]
    return tuple(c if n >= MIN_LESIONS else n_classes for c, n in enumerate(counts))
