"""The referral threshold: refer where P(malignant) reaches it, with a guarantee for the sensitivity in every source.

A missed cancer costs more than a needless referral, so sensitivity is fixed first and the specificity it costs is
shown beside it. The default target, 0.92, is the sensitivity of the eight-hospital prospective study of ADAE.

The largest threshold that reaches the target on the calibration photos misses it on new ones about half of the time.
So it is chosen by conformal risk control (Angelopoulos et al. 2024, arXiv 2208.02814): among n malignant lesions it may
miss m, the most with (m + 1) / (n + 1) <= 1 - target. The sensitivity on a new malignant lesion of that source is then
at least the target, in finite samples, on average over the drawing of the calibration lesions. Beside it stands what
holds for this very drawing: the one-sided lower bound of the sensitivity (Clopper and Pearson 1934). To prove that
bound to reach the target (Learn then Test, arXiv 2110.01052) would take one miss in 61 lesions where this allows three;
with today's few melanomas a source that costs nearly all of the specificity, so the bound is shown and not required.

Each source and kind of photo is fitted by itself and the lowest of their thresholds is taken: that of the worst one.
Lowering a threshold only raises a sensitivity, so the promise holds in each of them. A lesion is counted once (by the
first of its photos), since photos of one lesion are not independent. A group with too few malignant lesions for any
threshold (fewer than 12 at a target of 0.92) asks for the target on its own lesions, and has no guarantee.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

SENSITIVITY = 0.92
CONFIDENCE = 0.90  # of the lower bounds


@dataclass(frozen=True)
class SourceSensitivity:
    """The referral on the calibration photos of one source and kind.

    Attributes:
        group: "SOURCE KIND".
        n: malignant lesions, each counted by one photo.
        sensitivity: share of them that is referred; NaN where there is none.
        bound: its one-sided lower confidence bound (Clopper-Pearson, at `CONFIDENCE`).
        specificity: share of benign photos that is not referred; NaN where there is none.
    """

    group: str
    n: int
    sensitivity: float
    bound: float
    specificity: float


@dataclass(frozen=True)
class Referral:
    """`sensitivity` and `specificity` are those reached on the calibration photos, the mean over groups; NaN where a
    group had none. `by_group` holds those of each group; it is empty where a checkpoint keeps none."""

    threshold: float
    sensitivity: float
    specificity: float
    by_group: tuple[SourceSensitivity, ...] = ()

    def refer(self, malignancy: np.ndarray) -> np.ndarray:
        """Referral decisions, bool [n], for P(malignant) [n]."""
        return np.asarray(malignancy) >= self.threshold

    @property
    def worst(self) -> SourceSensitivity | None:
        """The group with the lowest sensitivity, None where none is kept."""
        known = [g for g in self.by_group if np.isfinite(g.sensitivity)]
        return min(known, key=lambda g: g.sensitivity) if known else None


def allowed_misses(n: int, sensitivity: float = SENSITIVITY) -> int:
    """The most misses among `n` malignant lesions at which conformal risk control promises the sensitivity; -1 where
    there are too few lesions for any."""
    return max(-1, int(np.floor((n + 1) * (1 - sensitivity) + 1e-9)) - 1)


def lower_bound(hits: int, n: int, confidence: float = CONFIDENCE) -> float:
    """One-sided lower confidence bound of a share of which `hits` of `n` were seen (Clopper and Pearson 1934)."""
    return float(betaincinv(hits, n - hits + 1, 1 - confidence)) if hits else 0.0


def referral_threshold(p_malignant: np.ndarray, malignant: np.ndarray, sensitivity: float = SENSITIVITY) -> Referral:
    """The largest threshold that still refers at least `sensitivity` of the malignant calibration photos: no guarantee.

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


def guaranteed_threshold(
    p_malignant: np.ndarray,
    malignant: np.ndarray,
    groups: np.ndarray,
    lesions: np.ndarray,
    sensitivity: float = SENSITIVITY,
) -> Referral:
    """The largest threshold at which every group's sensitivity is promised to reach the target.

    Args:
        p_malignant: [n] calibrated probabilities of malignancy.
        malignant: [n] 1, 0, or -1 where not labelled.
        groups: [n] source and kind of each photo; lesions: [n] lesion, unique within its group.

    Raises ValueError where no photo is malignant.
    """
    scores, malignant = np.asarray(p_malignant, dtype=np.float64), np.asarray(malignant)
    once = first_of_each(np.char.add(np.char.add(groups.astype(str), "/"), lesions.astype(str)))
    thresholds = []
    for group in np.unique(groups[malignant == 1]):
        own = np.sort(scores[once & (groups == group) & (malignant == 1)])
        misses = allowed_misses(len(own), sensitivity)
        if misses < 0:
            misses = int(np.floor((1 - sensitivity) * len(own) + 1e-9))
        thresholds.append(own[min(misses, len(own) - 1)])
    if not thresholds:
        raise ValueError("no malignant photo among the calibration photos; the referral threshold needs some")
    threshold = float(min(thresholds))
    by_group = tuple(
        _reached(group, threshold, scores[own], malignant[own], once[own])
        for group in np.unique(groups)
        if (own := groups == group).any()
    )
    return Referral(
        threshold, _mean([g.sensitivity for g in by_group]), _mean([g.specificity for g in by_group]), by_group
    )


def first_of_each(names: np.ndarray) -> np.ndarray:
    """[n] bool, the first row of each name."""
    first = np.zeros(len(names), dtype=bool)
    first[np.unique(names, return_index=True)[1]] = True
    return first


def _reached(
    group: str, threshold: float, scores: np.ndarray, malignant: np.ndarray, once: np.ndarray
) -> SourceSensitivity:
    positives, negatives = scores[once & (malignant == 1)], scores[malignant == 0]
    hits, n = int((positives >= threshold).sum()), len(positives)
    return SourceSensitivity(
        str(group),
        n,
        hits / n if n else float("nan"),
        lower_bound(hits, n) if n else float("nan"),
        float(np.mean(negatives < threshold)) if len(negatives) else float("nan"),
    )


def _mean(values: list[float]) -> float:
    known = [v for v in values if np.isfinite(v)]
    return float(np.mean(known)) if known else float("nan")
