"""Split-conformal prediction sets: the diagnoses that cannot be ruled out at a stated coverage.

The score is 1 - p of the true diagnosis (LAC; Sadinle et al. 2019), which gives the smallest sets of that coverage on
average. Coverage is marginal: over all photos like the calibration ones, not within each diagnosis. The quantile is
one line of numpy rather than MAPIE, whose classifiers want a scikit-learn estimator and keep the quantile private, so
it could not be stored with a checkpoint; a test holds the sets equal to MAPIE's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from skinclip.trust.calibration import labelled_rows

COVERAGE = 0.90


@dataclass(frozen=True)
class Conformal:
    """A diagnosis is in the set where 1 - p <= `quantile`; the most probable one always is."""

    coverage: float
    quantile: float

    def members(self, probabilities: np.ndarray) -> np.ndarray:
        """Whether each diagnosis is in its photo's set, bool [n, C], for `probabilities` [n, C]."""
        probabilities = np.asarray(probabilities)
        inside = 1.0 - probabilities <= self.quantile
        # An empty set would read as "none of the seven", which the model cannot say: the top class stays.
        inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
        return inside

    def sets(self, probabilities: np.ndarray, codes: tuple[str, ...]) -> list[tuple[str, ...]]:
        """The members' codes of each photo, most probable first."""
        order = np.argsort(-np.asarray(probabilities), axis=1, kind="stable")
        inside = self.members(probabilities)
        return [tuple(codes[c] for c in row if inside[i, c]) for i, row in enumerate(order)]


def fit_conformal(probabilities: np.ndarray, labels: np.ndarray, coverage: float = COVERAGE) -> Conformal:
    """The quantile at which sets hold the truth in at least `coverage` of photos, in finite samples.

    It is the k-th smallest calibration score, k = ceil((n + 1) * coverage) (Vovk et al. 2005); with too few photos
    for that k it is 1, and every diagnosis is in every set. `labels` [n]: -1 is left out.
    """
    if not 0.0 < coverage < 1.0:
        raise ValueError(f"coverage {coverage} is not between 0 and 1")
    probabilities, labels = labelled_rows(probabilities, labels)
    scores = np.sort(1.0 - probabilities[np.arange(len(labels)), labels])
    k = int(np.ceil((len(scores) + 1) * coverage - 1e-9))  # 1e-9: 0.9 * 10 must not round up to 10
    return Conformal(coverage, float(scores[k - 1]) if k <= len(scores) else 1.0)
