"""Prediction sets: rules fitted on calibration lesions, compared by coverage and size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from eval_study.benchmarks.calibration.settings import FOLDS, SHIPPED, C
from eval_study.benchmarks.common import Measured
from skinclip.calibration.calibrator import MALIGNANT
from skinclip.calibration.conformal import COVERAGE, MIN_LESIONS, closed_upwards, pooled_classes, quantile
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.evaluation import metrics

TOLERANCE = 0.05  # how far below the stated coverage that of a class may lie before the sets are refused
POOLED = "LAC by class, rare ones pooled"
_PENALTIES = ((0.01, 1), (0.01, 2), (0.05, 1), (0.05, 2), (0.2, 1), (0.2, 2))  # RAPS: a rank's penalty, free ranks
Score = Callable[[np.ndarray], np.ndarray]  # probabilities [n, C] -> nonconformity of each class [n, C]


@dataclass(frozen=True)
class SetRule:
    """A rule for prediction sets: a score, which classes share a quantile (`class_groups` [C]), and whether what is
    more probable than a member is made one."""

    score: Score
    class_groups: tuple[int, ...]
    closed: bool = False

    def quantiles(self, p: np.ndarray, labels: np.ndarray, coverage: float = COVERAGE) -> np.ndarray:
        """[C] the quantile of each class's group; infinite where there are too few photos to rule anything out."""
        true_scores = self.score(p)[np.arange(len(labels)), labels]
        group_of_class = np.asarray(self.class_groups)
        thresholds = np.empty(len(group_of_class))
        for group in np.unique(group_of_class):
            thresholds[group_of_class == group] = quantile(true_scores[group_of_class[labels] == group], coverage)
        return thresholds

    def members(self, p: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
        """bool [n, C]; the most probable diagnosis always is a member, as on the page."""
        inside = self.score(p) <= quantiles
        inside[np.arange(len(p)), p.argmax(axis=1)] = True
        return closed_upwards(inside, p) if self.closed else inside


def lac(p: np.ndarray) -> np.ndarray:
    """1 - p (Sadinle et al. 2019)."""
    return 1.0 - p


def raps(penalty: float, free: int) -> Score:
    """The probability of all classes down to this one, with `penalty` for each rank below `free` (Angelopoulos et al.
    2021; without penalty it is APS, Romano et al. 2020). Not randomised: the same photo must get the same set."""

    def score(p: np.ndarray) -> np.ndarray:
        order = np.argsort(-p, axis=1, kind="stable")
        summed = np.cumsum(np.take_along_axis(p, order, axis=1), axis=1)
        summed += penalty * np.maximum(np.arange(1, p.shape[1] + 1) - free, 0)
        scores = np.empty_like(summed)
        np.put_along_axis(scores, order, summed, axis=1)
        return scores

    return score


aps = raps(0.0, 0)


def set_rules(p: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> dict[str, SetRule]:
    """The rules compared, by name, on calibration rows `p` [n, C]."""
    together, each = (0,) * C, tuple(range(C))
    return {
        "LAC": SetRule(lac, together),
        "LAC by class": SetRule(lac, each),
        POOLED: SetRule(lac, pooled_classes(labels, groups, C)),
        f"{POOLED}, closed upwards": SetRule(lac, pooled_classes(labels, groups, C), closed=True),
        "LAC by malignancy": SetRule(lac, tuple(int(m) for m in MALIGNANT)),
        "APS": SetRule(aps, together),
        "RAPS": SetRule(smallest_raps(p, labels, groups, seed), together),
    }


def smallest_raps(p: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> Score:
    """RAPS at the penalty of the smallest sets, over folds of lesions."""
    folds = list(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(p, labels, groups))

    def size(score: Score) -> float:
        rule = SetRule(score, (0,) * p.shape[1])
        return float(
            np.mean([rule.members(p[b], rule.quantiles(p[a], labels[a])).sum(axis=1).mean() for a, b in folds])
        )

    return min((raps(*setting) for setting in _PENALTIES), key=size)


def compare_sets(calib: Measured, m: Measured, resamples: metrics.GroupBootstrap, seed: int) -> dict[str, Any]:
    """Each rule's sets on `m`, fitted on `calib`, both under the shipped map; and the sets as shipped."""
    rules = set_rules(calib.probabilities, calib.labels, calib.groups, seed)
    by_rule = {SHIPPED: set_figures(m.inside.astype(bool), m, resamples)}
    for name, rule in rules.items():
        quantiles = rule.quantiles(calib.probabilities, calib.labels)
        by_rule[name] = set_figures(rule.members(m.probabilities, quantiles), m, resamples)
        # what a changed calibrator would store; None (infinite) rules nothing out
        by_rule[name]["quantiles"] = dict(zip(DIAGNOSIS_CODES, quantiles.tolist(), strict=True))
    return by_rule


def set_figures(members: np.ndarray, m: Measured, resamples: metrics.GroupBootstrap) -> dict[str, Any]:
    """Coverage (of all, each class, the malignant), size, and the worst class of at least MIN_LESIONS lesions."""
    covered = members[np.arange(len(m)), m.labels]
    size = members.sum(axis=1)
    classes = {
        code: {
            "n": int((m.labels == c).sum()),
            "n_groups": len(np.unique(m.groups[m.labels == c])),
            "coverage": resamples.interval(metrics.share(covered, m.labels == c)),
        }
        for c, code in enumerate(DIAGNOSIS_CODES)
    }
    judged = {code: c["coverage"]["value"] for code, c in classes.items() if c["n_groups"] >= MIN_LESIONS}
    return {
        "coverage": resamples.interval(metrics.mean(covered.astype(float))),
        "malignant_coverage": resamples.interval(metrics.share(covered, MALIGNANT[m.labels])),
        "set_size": resamples.interval(metrics.mean(size.astype(float))),
        "singletons": resamples.interval(metrics.mean((size == 1).astype(float))),
        "singleton_accuracy": resamples.interval(metrics.share(covered, size == 1)),
        "out_of_order": float((closed_upwards(members, m.probabilities) != members).any(axis=1).mean()),
        "classes": classes,
        "worst_class": min(judged, key=judged.__getitem__) if judged else None,
        "worst_coverage": min(judged.values()) if judged else None,
    }


def chosen_sets(sets: Mapping[str, Any]) -> dict[str, Any]:
    """The smallest sets among the rules that leave no class of enough lesions more than TOLERANCE below the stated
    coverage on `valid`; where every rule does, the one whose worst class is covered best. Rules some of whose sets
    rule out a diagnosis and keep a less probable one are left out: nobody should be shown such a set."""
    judged = {n: s for n, s in sets.items() if s["worst_coverage"] is not None and not s["out_of_order"]}
    if not judged:
        return {"chosen": SHIPPED, "change": False, "fair": []}
    fair = [name for name, s in judged.items() if s["worst_coverage"] >= COVERAGE - TOLERANCE]
    if fair:
        chosen = min(fair, key=lambda name: judged[name]["set_size"]["value"])
    else:
        chosen = max(judged, key=lambda name: judged[name]["worst_coverage"])
    return {"chosen": chosen, "change": chosen not in (SHIPPED, "LAC"), "fair": fair}
