"""Shift detection: does this photo look like those the model was trained on?

Mahalanobis distance (Lee et al. 2018) of a photo's style, the channel means of the tower's maps, to the dermoscopy
photos of training. Style and not the photo embedding, which was trained to tell diagnoses and to be blind to the rest;
one mean for all sources and diagnoses, because on validation photos more means separated close-ups no better.
Features are brought to one scale; their covariance is shrunk by Ledoit and Wolf (2004) and kept in compact form: the
leading directions exactly, the rest by their mean variance (as in probabilistic PCA, Tipping and Bishop 1999), so that
it stores in kilobytes. The distance itself means nothing to a reader, so it is turned into its rank among photos held
out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A photo farther out than 99 % of held-out photos is called out of domain: by design one in a hundred photos of
# the model's own kind is flagged as well.
IN_DOMAIN_SCORE = 0.99
MAX_DIRECTIONS = 128


@dataclass(frozen=True)
class ShiftDetector:
    """`mean` [S] and `scale` [S] of the features, the covariance's leading `directions` [R, S] with `variances` [R],
    `residual_variance` of every other direction, and the sorted `calibration_distances` [n]."""

    mean: np.ndarray
    scale: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    residual_variance: float
    calibration_distances: np.ndarray

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance [n] of `features` [n, S] to the training photos."""
        offset = (np.asarray(features, dtype=np.float64) - self.mean) / self.scale
        along = offset @ self.directions.T.astype(np.float64)  # [n, R]
        rest = np.maximum((offset**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        return (along**2 / self.variances).sum(axis=1) + rest / self.residual_variance

    def log_density(self, features: np.ndarray) -> np.ndarray:
        """Log density [n] of `features` [n, S] under the normal distribution fitted, less a constant."""
        unseen = len(self.mean) - len(self.variances)
        log_volume = float(np.log(self.variances).sum() + unseen * np.log(self.residual_variance))
        return -0.5 * (self.distances(features) + log_volume) - float(np.log(self.scale).sum())

    def score(self, features: np.ndarray) -> np.ndarray:
        """Share of held-out photos that look more usual than each of `features` [n, S]: [n], 0-1."""
        # Rounded as the stored distances are, so that a held-out photo does not count as farther than itself.
        distances = self.distances(features).astype(np.float32)
        return np.searchsorted(self.calibration_distances, distances) / len(self.calibration_distances)

    def in_domain(self, score: np.ndarray) -> np.ndarray:
        return np.asarray(score) <= IN_DOMAIN_SCORE


def fit_shift(train: np.ndarray, held_out: np.ndarray) -> ShiftDetector:
    """Mean and covariance from training photos, the scale of distances from photos held out.

    Args:
        train: [n, S] features of training photos.
        held_out: [m, S] of photos of the same kind that the tower was not trained on.

    Raises ValueError where either set is empty.
    """
    features, held_out = np.asarray(train, dtype=np.float64), np.asarray(held_out, dtype=np.float64)
    if len(features) == 0 or len(held_out) == 0:
        raise ValueError("the shift detector needs training photos and photos held out; one of them is empty")
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.maximum(scale, max(float(scale.max()), 1e-6) * 1e-6)  # a feature that never varies must not divide by 0
    directions, variances, rest = _compact_covariance((features - mean) / scale)
    fitted = (mean.astype(np.float32), scale.astype(np.float32), directions, variances, rest)
    ordered = np.sort(ShiftDetector(*fitted, np.zeros(0, np.float32)).distances(held_out)).astype(np.float32)
    return ShiftDetector(*fitted, ordered)


def _compact_covariance(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Of the shrunk covariance of `centred` [n, S]: leading directions [R, S], variances [R], mean of the rest."""
    from sklearn.covariance import LedoitWolf  # only a fit needs it, the page never

    covariance = LedoitWolf(assume_centered=True).fit(centred).covariance_
    values, vectors = np.linalg.eigh(covariance)  # rising
    floor = max(float(values[-1]), 1.0) * 1e-9
    values = np.maximum(values, floor)
    r = min(MAX_DIRECTIONS, len(values))
    rest = float(values[:-r].mean()) if len(values) > r else float(values[0])
    return vectors[:, -r:].T.astype(np.float32), values[-r:].astype(np.float32), rest
