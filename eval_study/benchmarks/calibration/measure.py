"""The calibration benchmark's measurement: fit on `calib`, choose on `valid`, report on `test`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eval_study.benchmarks.calibration.maps import chosen_map, compare_maps, cross_fitted, fitters, reliability
from eval_study.benchmarks.calibration.referral import referral, risk, threshold_uncertainty
from eval_study.benchmarks.calibration.sets import POOLED, SetRule, chosen_sets, compare_sets, lac
from eval_study.benchmarks.calibration.settings import BINS, DATA, NOISE_DRAWS, SHIPPED, SPLITS, Apply, C
from eval_study.benchmarks.common import Bench, Measured
from skinclip.calibration.calibrator import MALIGNANT, Calibrator
from skinclip.calibration.conformal import pooled_classes
from skinclip.calibration.referral import referral_threshold
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.data.cases import DataError
from skinclip.evaluation import metrics


def run(bench: Bench, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
    """Fits on `calib`, measures on each of `splits` that is there, chooses on `valid`. DataError without these two."""
    present = [split for split in splits if bench.cases(DATA, split)]
    if "valid" not in present:
        raise DataError(f"{bench.data} has no cases of {DATA}, split valid: nothing to choose on")
    calibrator = bench.assessor.calibrator
    calib = bench.measured(DATA, "calib")
    calib = calib.where(calib.labels >= 0)
    fitted = {
        name: fit(calib.logits, calib.labels, calib.groups) for name, fit in fitters(calibrator, bench.seed).items()
    }
    blocks = {split: _block(bench, calibrator, calib, fitted, split) for split in present}
    valid = bench.measured(DATA, "valid")
    return {
        "meta": bench.meta(data=DATA, fitted_on="calib", splits=present, bins=BINS, noise_draws=NOISE_DRAWS),
        "calib": {"n": len(calib), "n_groups": len(np.unique(calib.groups)), "photos": _class_counts(calib)},
        "splits": blocks,
        "choice": {"map": chosen_map(blocks["valid"]["maps"]), "sets": chosen_sets(blocks["valid"]["sets"])},
        "cross_fitting": cross_fitting(bench, calibrator, calib, valid.where(valid.labels >= 0), fitted),
        "threshold": threshold_uncertainty(bench, calibrator, calib),
    }


def _block(
    bench: Bench, calibrator: Calibrator, calib: Measured, fitted: Mapping[str, Apply], split: str
) -> dict[str, Any]:
    m = bench.measured(DATA, split)
    m = m.where(m.labels >= 0)
    resamples = metrics.GroupBootstrap(list(m.groups), bench.n_boot, bench.seed)
    p = {name: apply(m.logits) for name, apply in fitted.items()}
    prior = np.asarray(calibrator.natural_prior)
    return {
        "split": split,
        "n": len(m),
        "n_groups": resamples.n_groups,
        "seed": bench.seed,
        "maps": compare_maps(p, m.labels, prior, resamples, bench.seed),
        "sets": compare_sets(calib, m, resamples, bench.seed),
        "referral": referral(bench, calibrator, calib, m, resamples),
        "reliability": {name: reliability(p[name], m.labels, bench.seed) for name in ("none", SHIPPED)},
        "risk": risk(p[SHIPPED], prior, m.labels, resamples),
    }


def cross_fitting(
    bench: Bench, calibrator: Calibrator, calib: Measured, m: Measured, fitted: Mapping[str, Apply]
) -> dict[str, Any]:
    """The effect of fitting sets and threshold on the very photos that the map was fitted on.

    Once they are, once they are fitted on probabilities that each lesion got from a map fitted without it. Either way
    they are applied to `m` under the map `fitted` on all of `calib`.
    """
    resamples = metrics.GroupBootstrap(list(m.groups), bench.n_boot, bench.seed)
    malignant, by_map = MALIGNANT[calib.labels], {}
    for name, fit in fitters(calibrator, bench.seed).items():
        p, same = fitted[name](m.logits), fitted[name](calib.logits)
        crossed = cross_fitted(fit, calib.logits, calib.labels, calib.groups, bench.seed)
        entry: dict[str, Any] = {}
        covered: dict[str, dict[str, metrics.Metric]] = {}
        for way, p_calib in (("same photos", same), ("cross-fitted", crossed)):
            covered[way] = {
                rule_name: metrics.mean(_covered(rule, p_calib, calib.labels, p, m.labels).astype(float))
                for rule_name, rule in _crossed_rules(calib).items()
            }
            threshold = referral_threshold(p_calib[:, MALIGNANT].sum(axis=1), malignant).threshold
            referred = p[:, MALIGNANT].sum(axis=1) >= threshold
            entry[way] = {
                "coverage": {rule_name: resamples.interval(metric) for rule_name, metric in covered[way].items()},
                "threshold": threshold,
                "sensitivity": resamples.interval(metrics.share(referred, MALIGNANT[m.labels])),
            }
        entry["coverage_gained"] = {
            rule_name: resamples.interval(metrics.difference(covered["cross-fitted"][rule_name], metric))
            for rule_name, metric in covered["same photos"].items()
        }
        by_map[name] = entry
    return by_map


def _crossed_rules(calib: Measured) -> dict[str, SetRule]:
    return {"LAC": SetRule(lac, (0,) * C), POOLED: SetRule(lac, pooled_classes(calib.labels, calib.groups, C))}


def _covered(
    rule: SetRule, p_calib: np.ndarray, calib_labels: np.ndarray, p: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """[n] bool: whether the set of each row of `p` holds its label."""
    return rule.members(p, rule.quantiles(p_calib, calib_labels))[np.arange(len(labels)), labels]


def _class_counts(m: Measured) -> dict[str, int]:
    return {code: int((m.labels == c).sum()) for c, code in enumerate(DIAGNOSIS_CODES)}
