"""The referral threshold: refer where P(malignant) reaches it, chosen for a fixed sensitivity.

A missed cancer costs more than a needless referral, so sensitivity is fixed first and the specificity it costs is
shown beside it. The default target, 0.92, is the sensitivity of the eight-hospital prospective study of ADAE.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SENSITIVITY = 0.92


@dataclass(frozen=True)
class Referral:
    """`sensitivity` and `specificity` are those reached on the calibration photos; NaN where a group had none."""

    threshold: float
    sensitivity: float
    specificity: float

    def refer(self, malignancy: np.ndarray) -> np.ndarray:
        """Referral decisions, bool [n], for P(malignant) [n]."""
        return np.asarray(malignancy) >= self.threshold


def referral_threshold(p_malignant: np.ndarray, malignant: np.ndarray, sensitivity: float = SENSITIVITY) -> Referral:
    """The largest threshold that still refers at least `sensitivity` of the malignant calibration photos.

    Args:
        p_malignant: [n] calibrated probabilities of malignancy.
        malignant: [n] bool, the truth.

    Raises ValueError where no photo is malignant: a sensitivity cannot be fixed without any.
    """
    scores, malignant = np.asarray(p_malignant, dtype=np.float64), np.asarray(malignant, dtype=bool)
    positives, negatives = np.sort(scores[malignant])[::-1], scores[~malignant]
    if len(positives) == 0:
        raise ValueError("no malignant photo among the calibration photos; the referral threshold needs some")
    k = max(1, int(np.ceil(sensitivity * len(positives) - 1e-9)))  # 1e-9: 0.92 * 25 must not round up to 24
    threshold = float(positives[k - 1])
    specificity = float(np.mean(negatives < threshold)) if len(negatives) else float("nan")
    return Referral(threshold, float(np.mean(positives >= threshold)), specificity)
