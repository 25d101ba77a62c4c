"""The referral threshold: what it achieves, and how much other calibration lesions would move it; risk and coverage."""

from __future__ import annotations

from typing import Any

import numpy as np

from eval_study.benchmarks.calibration.maps import middle_95
from eval_study.benchmarks.common import Bench, Measured
from skinclip.calibration.calibrator import MALIGNANT, Calibrator
from skinclip.calibration.referral import SENSITIVITY, referral_threshold
from skinclip.evaluation import metrics

TARGETS = (0.80, 0.84, 0.88, 0.90, 0.92, 0.94, 0.96, 0.98)
_RISK_GRID = np.linspace(0.05, 1, 39)


def referral(
    bench: Bench, calibrator: Calibrator, calib: Measured, m: Measured, resamples: metrics.GroupBootstrap
) -> dict[str, Any]:
    """Sensitivity and specificity on `m` of the shipped threshold, and of others chosen on `calib`."""
    drawn = drawn_thresholds(calib, bench.n_boot, bench.seed)
    malignant = MALIGNANT[m.labels]
    sensitivities = [float((m.malignancy[malignant] >= t).mean()) for t in drawn] if malignant.any() else []
    specificities = [float((m.malignancy[~malignant] < t).mean()) for t in drawn] if (~malignant).any() else []
    curve = []
    for target in TARGETS:
        chosen = referral_threshold(calib.malignancy, MALIGNANT[calib.labels], target).threshold
        curve.append({"target": target, "threshold": chosen, **_achieved(m, chosen, resamples)})
    return {
        "shipped": {
            "threshold": calibrator.referral.threshold,
            **_achieved(m, calibrator.referral.threshold, resamples),
        },
        "n_malignant": int(malignant.sum()),
        "range_by_threshold": {"sensitivity": middle_95(sensitivities), "specificity": middle_95(specificities)},
        "curve": curve,
    }


def _achieved(m: Measured, threshold: float, resamples: metrics.GroupBootstrap) -> dict[str, Any]:
    refer, malignant = m.malignancy >= threshold, MALIGNANT[m.labels]
    return {
        "sensitivity": resamples.interval(metrics.share(refer, malignant)),
        "specificity": resamples.interval(metrics.share(~refer, ~malignant)),
    }


def drawn_thresholds(calib: Measured, n: int, seed: int) -> np.ndarray:
    """[n] referral thresholds, each chosen on calibration lesions drawn with replacement."""
    resamples = metrics.GroupBootstrap(list(calib.groups), n, seed)
    malignant, rows = MALIGNANT[calib.labels], np.arange(len(calib))
    drawn = (np.repeat(rows, counts[resamples.group_of_row]) for counts in resamples.counts)
    return np.array(
        [referral_threshold(calib.malignancy[i], malignant[i]).threshold for i in drawn if malignant[i].any()]
    )


def threshold_uncertainty(bench: Bench, calibrator: Calibrator, calib: Measured) -> dict[str, Any]:
    """The shipped threshold, the one chosen on `calib` here, and how much other calibration lesions would move it."""
    drawn = drawn_thresholds(calib, bench.n_boot, bench.seed)
    own = referral_threshold(calib.malignancy, MALIGNANT[calib.labels])
    return {
        "target": SENSITIVITY,
        "shipped": calibrator.referral.threshold,
        "threshold": {"value": own.threshold, **middle_95(drawn)},
        "sensitivity_on_calib": own.sensitivity,
        "specificity_on_calib": own.specificity,
        "n_malignant": int(MALIGNANT[calib.labels].sum()),
    }


def risk(p: np.ndarray, prior: np.ndarray, labels: np.ndarray, resamples: metrics.GroupBootstrap) -> dict[str, Any]:
    """Error among the most confident share of photos, for each share, under both decision rules."""
    balanced = p / prior
    balanced /= balanced.sum(axis=1, keepdims=True)
    by_rule = {}
    for rule, scores in (("argmax p", p), ("argmax p / prior", balanced)):
        confidence, correct = scores.max(axis=1), scores.argmax(axis=1) == labels
        curve = [
            {"coverage": float(c), "risk": resamples.interval(metrics.risk_at_coverage(confidence, correct, float(c)))}
            for c in _RISK_GRID
        ]
        by_rule[rule] = {"aurc": resamples.interval(metrics.aurc(confidence, correct)), "curve": curve}
    return by_rule
