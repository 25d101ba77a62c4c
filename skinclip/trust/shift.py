"""Shift detection: does this photo look like those the model was trained on?

Mahalanobis distance of a photo's embedding to the nearest diagnosis mean under a covariance that all diagnoses share
(Lee et al. 2018), shrunk by Ledoit and Wolf (2004) and kept in compact form: the leading directions exactly, the rest
by their mean variance (as in probabilistic PCA, Tipping and Bishop 1999), so that it stores in kilobytes. The
distance itself means nothing to a reader, so it is turned into its rank among calibration photos.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.covariance import LedoitWolf

# A photo farther out than 99 % of calibration photos is called out of domain: by design one in a hundred photos of
# the model's own kind is flagged as well.
IN_DOMAIN_SCORE = 0.99
MAX_DIRECTIONS = 64


@dataclass(frozen=True)
class ShiftDetector:
    """`means` [M, E] of the M diagnoses seen, the shared covariance's leading `directions` [R, E] with `variances` [R],
    `residual_variance` of every other direction, and the sorted `calibration_distances` [n]."""

    means: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    residual_variance: float
    calibration_distances: np.ndarray

    def distances(self, embeddings: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance [n] of `embeddings` [n, E] to the nearest diagnosis mean."""
        embeddings = np.asarray(embeddings, dtype=np.float64)
        return np.min([self._distance(embeddings - mean) for mean in self.means.astype(np.float64)], axis=0)

    def _distance(self, offset: np.ndarray) -> np.ndarray:
        along = offset @ self.directions.T.astype(np.float64)  # [n, R]
        rest = np.maximum((offset**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        return (along**2 / self.variances).sum(axis=1) + rest / self.residual_variance

    def score(self, embeddings: np.ndarray) -> np.ndarray:
        """Share of calibration photos that look more usual than each of `embeddings` [n, E]: [n], 0-1."""
        # Rounded as the stored distances are, so that a calibration photo does not count as farther than itself.
        distances = self.distances(embeddings).astype(np.float32)
        return np.searchsorted(self.calibration_distances, distances) / len(self.calibration_distances)

    def in_domain(self, score: np.ndarray) -> np.ndarray:
        return np.asarray(score) <= IN_DOMAIN_SCORE


def fit_shift(train_embeddings: np.ndarray, train_labels: np.ndarray, calib_embeddings: np.ndarray) -> ShiftDetector:
    """Means and covariance from training photos, the scale of distances from calibration photos.

    Args:
        train_embeddings: [n, E]; rows whose label is -1 are left out.
        train_labels: [n] class numbers.
        calib_embeddings: [m, E] of photos that the model was not trained on.

    Raises ValueError where either set is empty.
    """
    embeddings, labels = np.asarray(train_embeddings, dtype=np.float64), np.asarray(train_labels)
    embeddings, labels = embeddings[labels >= 0], labels[labels >= 0]
    if len(embeddings) == 0 or len(calib_embeddings) == 0:
        raise ValueError(
            "the shift detector needs labelled training photos and calibration photos; one of them is empty"
        )
    classes, index = np.unique(labels, return_inverse=True)
    means = np.stack([embeddings[labels == c].mean(axis=0) for c in classes])
    directions, variances, rest = _compact_covariance(embeddings - means[index])
    detector = ShiftDetector(
        means.astype(np.float32), directions, variances, rest, calibration_distances=np.zeros(0, dtype=np.float32)
    )
    ordered = np.sort(detector.distances(calib_embeddings)).astype(np.float32)
    return ShiftDetector(detector.means, directions, variances, rest, ordered)


def _compact_covariance(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Of the shrunk covariance of `centred` [n, E]: leading directions [R, E], variances [R], mean of the rest."""
    covariance = LedoitWolf(assume_centered=True).fit(centred).covariance_
    values, vectors = np.linalg.eigh(covariance)  # rising
    floor = max(float(values[-1]), 1.0) * 1e-9  # embeddings that never vary must not divide by 0
    values = np.maximum(values, floor)
    r = min(MAX_DIRECTIONS, len(values))
    rest = float(values[:-r].mean()) if len(values) > r else float(values[0])
    return vectors[:, -r:].T.astype(np.float32), values[-r:].astype(np.float32), rest
