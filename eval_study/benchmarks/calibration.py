"""Are the probabilities true, do the sets cover, does the referral threshold do what it was set for?

Everything is fitted on HAM10000's `calib` lesions: maps from logits to probabilities, prediction sets, the referral
threshold. `valid` chooses between them, `test` reports. Beside every calibration error stands its noise floor: what a
perfectly calibrated model would show on as many photos. Shipped are the parts stored with the weights; all others are
fitted here on the same photos, and scikit-learn does the arithmetic where it can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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

from eval_study.benchmarks import figures
from eval_study.benchmarks.common import Bench, Measured
from skinclip.calibration.calibrator import MALIGNANT, Calibrator
from skinclip.calibration.conformal import COVERAGE, MIN_LESIONS, closed_upwards, pooled_classes, quantile
from skinclip.calibration.referral import SENSITIVITY, referral_threshold
from skinclip.calibration.temperature import fit_calibration
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.data.cases import DataError
from skinclip.evaluation import metrics

NAME = "calibration"
DATA = "ham10000"
SPLITS = ("valid", "test")
BINS = 15
FOLDS = 5
NOISE_DRAWS = 500
TOLERANCE = 0.05  # how far below the stated coverage that of a class may lie before the sets are refused
TARGETS = (0.80, 0.84, 0.88, 0.90, 0.92, 0.94, 0.96, 0.98)
SHIPPED = "shipped"
POOLED = "LAC by class, rare ones pooled"
_C = len(DIAGNOSIS_CODES)
_RISK_GRID = np.linspace(0.05, 1, 39)
_STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_PENALTIES = ((0.01, 1), (0.01, 2), (0.05, 1), (0.05, 2), (0.2, 1), (0.2, 2))  # RAPS: a rank's penalty, free ranks

Apply = Callable[[np.ndarray], np.ndarray]  # logits [n, C] -> probabilities [n, C]
Fitter = Callable[[np.ndarray, np.ndarray, np.ndarray], Apply]  # logits [n, C], labels [n], groups [n]
Score = Callable[[np.ndarray], np.ndarray]  # probabilities [n, C] -> nonconformity of each class [n, C]


# --- maps from logits to probabilities --------------------------------------------------------------------------------


class _AsGiven(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose inputs are its probabilities, so that scikit-learn's calibrators can map them."""

    def __init__(self, n_classes: int = _C) -> None:
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
        given = FrozenEstimator(_AsGiven(logits.shape[1]))
        fitted = CalibratedClassifierCV(given, method=method).fit(softmax(logits, axis=1), labels)
        return lambda z: fitted.predict_proba(softmax(z, axis=1))

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
        found = minimize(_vector_objective, start, args=(logits, labels, strength), jac=True, method="L-BFGS-B")
        w, b = found.x[:n_classes], found.x[n_classes:]
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


def fitters(trust: Calibrator, seed: int) -> dict[str, Fitter]:
    """The maps by name; "shipped" is not fitted but read from the weights.

    The prior at which the head was trained is not stored with the weights. The shipped bias stands in for the shift
    of prior that the refitted bias is drawn towards; so cross-fitting that one map is a little optimistic.
    """
    calibration = trust.calibration
    return {
        "none": plain,
        "temperature": temperature,
        SHIPPED: lambda logits, labels, groups: calibration.apply,
        "bias-corrected temperature, refitted": bias_corrected(calibration.bias),
        "vector scaling": by_cross_validation(vector_scaling, seed),
        "Dirichlet": by_cross_validation(dirichlet, seed),
        "isotonic": isotonic,
    }


# --- prediction sets --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SetRule:
    """How prediction sets are made: a score, which classes share a quantile (`class_groups` [C]), and whether what is
    more probable than a member is made one."""

    score: Score
    class_groups: tuple[int, ...]
    closed: bool = False

    def quantiles(self, p: np.ndarray, labels: np.ndarray, coverage: float = COVERAGE) -> np.ndarray:
        """[C] the quantile of each class's group; infinite where there are too few photos to rule anything out."""
        true_scores = self.score(p)[np.arange(len(labels)), labels]
        group_of_class = np.asarray(self.class_groups)
        found = np.empty(len(group_of_class))
        for group in np.unique(group_of_class):
            found[group_of_class == group] = quantile(true_scores[group_of_class[labels] == group], coverage)
        return found

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
    together, each = (0,) * _C, tuple(range(_C))
    return {
        "LAC": SetRule(lac, together),
        "LAC by class": SetRule(lac, each),
        POOLED: SetRule(lac, pooled_classes(labels, groups, _C)),
        f"{POOLED}, closed upwards": SetRule(lac, pooled_classes(labels, groups, _C), closed=True),
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


# --- running ----------------------------------------------------------------------------------------------------------


def run(bench: Bench, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
    """Fits on `calib`, measures on each of `splits` that is there, chooses on `valid`. DataError without these two."""
    present = [split for split in splits if bench.cases(DATA, split)]
    if "valid" not in present:
        raise DataError(f"{bench.data} has no cases of {DATA}, split valid: nothing to choose on")
    trust = bench.assessor.calibrator
    calib = bench.measured(DATA, "calib")
    calib = calib.where(calib.labels >= 0)
    fitted = {name: fit(calib.logits, calib.labels, calib.groups) for name, fit in fitters(trust, bench.seed).items()}
    blocks = {split: _block(bench, trust, calib, fitted, split) for split in present}
    valid = bench.measured(DATA, "valid")
    return {
        "meta": bench.meta(data=DATA, fitted_on="calib", splits=present, bins=BINS, noise_draws=NOISE_DRAWS),
        "calib": {"n": len(calib), "n_groups": len(np.unique(calib.groups)), "photos": _class_counts(calib)},
        "splits": blocks,
        "choice": {"map": _chosen_map(blocks["valid"]["maps"]), "sets": _chosen_sets(blocks["valid"]["sets"])},
        "cross_fitting": cross_fitting(bench, trust, calib, valid.where(valid.labels >= 0), fitted),
        "threshold": threshold_uncertainty(bench, trust, calib),
    }


def _block(bench: Bench, trust: Calibrator, calib: Measured, fitted: Mapping[str, Apply], split: str) -> dict[str, Any]:
    m = bench.measured(DATA, split)
    m = m.where(m.labels >= 0)
    resamples = metrics.GroupBootstrap(list(m.groups), bench.n_boot, bench.seed)
    p = {name: apply(m.logits) for name, apply in fitted.items()}
    prior = np.asarray(trust.natural_prior)
    return {
        "split": split,
        "n": len(m),
        "n_groups": resamples.n_groups,
        "seed": bench.seed,
        "maps": compare_maps(p, m.labels, prior, resamples, bench.seed),
        "sets": compare_sets(calib, m, resamples, bench.seed),
        "referral": referral(bench, trust, calib, m, resamples),
        "reliability": {name: reliability(p[name], m.labels, bench.seed) for name in ("none", SHIPPED)},
        "risk": risk(p[SHIPPED], prior, m.labels, resamples),
    }


def compare_maps(
    p: Mapping[str, np.ndarray],
    labels: np.ndarray,
    prior: np.ndarray,
    resamples: metrics.GroupBootstrap,
    seed: int,
) -> dict[str, Any]:
    """Calibration figures of each map's probabilities [n, C], their noise floors, and how each differs from shipped."""
    found = {}
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
        found[name] = {key: resamples.interval(metric) for key, metric in errors.items()} | {
            "noise_floor": {
                key: metrics.ece_noise_floor(probabilities, NOISE_DRAWS, seed, BINS, metric)
                for key, metric in (
                    ("ece", metrics.ece),
                    ("adaptive_ece", metrics.adaptive_ece),
                    ("classwise_ece", metrics.classwise_ece),
                )
            },
            "nll_above_shipped": resamples.interval(
                metrics.difference(metrics.nll(probabilities, labels), metrics.nll(p[SHIPPED], labels))
            ),
        }
    return found


def _ece_of_rule(p: np.ndarray, balanced: np.ndarray, labels: np.ndarray) -> metrics.Metric:
    """ECE of the probability of the diagnosis that argmax p / prior decides for, rather than of the most probable."""
    decided = balanced.argmax(axis=1)
    confidence = p[np.arange(len(p)), decided]
    # one column: its argmax is always 0, so that label 0 reads "right" and label 1 "wrong"
    return metrics.ece(confidence[:, None], (decided != labels).astype(np.int64), BINS)


def compare_sets(calib: Measured, m: Measured, resamples: metrics.GroupBootstrap, seed: int) -> dict[str, Any]:
    """Each rule's sets on `m`, fitted on `calib`, both under the shipped map; and the sets as shipped."""
    rules = set_rules(calib.probabilities, calib.labels, calib.groups, seed)
    found = {SHIPPED: set_figures(m.inside.astype(bool), m, resamples)}
    for name, rule in rules.items():
        quantiles = rule.quantiles(calib.probabilities, calib.labels)
        found[name] = set_figures(rule.members(m.probabilities, quantiles), m, resamples)
        # what a changed trust module would store; None (infinite) rules nothing out
        found[name]["quantiles"] = dict(zip(DIAGNOSIS_CODES, quantiles.tolist(), strict=True))
    return found


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


def _chosen_map(maps: Mapping[str, Any]) -> dict[str, Any]:
    """The map of least negative log-likelihood on `valid`; to change is only worth it where it truly differs."""
    best = min(maps, key=lambda name: maps[name]["nll"]["value"])
    gap = maps[best]["nll_above_shipped"]
    better = best != SHIPPED and gap["high"] is not None and gap["high"] < 0
    return {"lowest_nll": best, "nll_above_shipped": gap, "change": bool(better), "chosen": best if better else SHIPPED}


def _chosen_sets(sets: Mapping[str, Any]) -> dict[str, Any]:
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


def cross_fitting(
    bench: Bench, trust: Calibrator, calib: Measured, m: Measured, fitted: Mapping[str, Apply]
) -> dict[str, Any]:
    """Does it matter that sets and threshold are fitted on the very photos that the map was fitted on?

    Once they are, once they are fitted on probabilities that each lesion got from a map fitted without it. Either way
    they are applied to `m` under the map `fitted` on all of `calib`.
    """
    resamples = metrics.GroupBootstrap(list(m.groups), bench.n_boot, bench.seed)
    malignant, found = MALIGNANT[calib.labels], {}
    for name, fit in fitters(trust, bench.seed).items():
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
        found[name] = entry
    return found


def _crossed_rules(calib: Measured) -> dict[str, SetRule]:
    return {"LAC": SetRule(lac, (0,) * _C), POOLED: SetRule(lac, pooled_classes(calib.labels, calib.groups, _C))}


def _covered(
    rule: SetRule, p_calib: np.ndarray, calib_labels: np.ndarray, p: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """[n] bool: whether the set of each row of `p` holds its label."""
    return rule.members(p, rule.quantiles(p_calib, calib_labels))[np.arange(len(labels)), labels]


# --- referral, reliability, risk --------------------------------------------------------------------------------------


def referral(
    bench: Bench, trust: Calibrator, calib: Measured, m: Measured, resamples: metrics.GroupBootstrap
) -> dict[str, Any]:
    """What the shipped threshold, and thresholds chosen on `calib` for other sensitivities, achieve on `m`."""
    drawn = drawn_thresholds(calib, bench.n_boot, bench.seed)
    malignant = MALIGNANT[m.labels]
    sensitivities = [float((m.malignancy[malignant] >= t).mean()) for t in drawn] if malignant.any() else []
    specificities = [float((m.malignancy[~malignant] < t).mean()) for t in drawn] if (~malignant).any() else []
    curve = []
    for target in TARGETS:
        chosen = referral_threshold(calib.malignancy, MALIGNANT[calib.labels], target).threshold
        curve.append({"target": target, "threshold": chosen, **_achieved(m, chosen, resamples)})
    return {
        "shipped": {"threshold": trust.referral.threshold, **_achieved(m, trust.referral.threshold, resamples)},
        "n_malignant": int(malignant.sum()),
        "range_by_threshold": {"sensitivity": _range(sensitivities), "specificity": _range(specificities)},
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


def threshold_uncertainty(bench: Bench, trust: Calibrator, calib: Measured) -> dict[str, Any]:
    """The shipped threshold, the one chosen on `calib` here, and how much other calibration lesions would move it."""
    drawn = drawn_thresholds(calib, bench.n_boot, bench.seed)
    own = referral_threshold(calib.malignancy, MALIGNANT[calib.labels])
    return {
        "target": SENSITIVITY,
        "shipped": trust.referral.threshold,
        "threshold": {"value": own.threshold, **_range(drawn)},
        "sensitivity_on_calib": own.sensitivity,
        "specificity_on_calib": own.specificity,
        "n_malignant": int(MALIGNANT[calib.labels].sum()),
    }


def _range(values: Sequence[float] | np.ndarray) -> dict[str, float | None]:
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
    found = []
    for b in np.unique(bin_of_row):
        own = bin_of_row == b
        band = _range(ideal[:, own].mean(axis=1))
        found.append(
            {
                "from": float(edges[b]),
                "to": float(edges[b + 1]),
                "n": int(own.sum()),
                "confidence": float(confidence[own].mean()),
                "accuracy": float(hit[own].mean()),
                **band,
            }
        )
    return found


def risk(p: np.ndarray, prior: np.ndarray, labels: np.ndarray, resamples: metrics.GroupBootstrap) -> dict[str, Any]:
    """Error among the most confident share of photos, for each share, under both decision rules."""
    balanced = p / prior
    balanced /= balanced.sum(axis=1, keepdims=True)
    found = {}
    for rule, scores in (("argmax p", p), ("argmax p / prior", balanced)):
        confidence, correct = scores.max(axis=1), scores.argmax(axis=1) == labels
        curve = [
            {"coverage": float(c), "risk": resamples.interval(metrics.risk_at_coverage(confidence, correct, float(c)))}
            for c in _RISK_GRID
        ]
        found[rule] = {"aurc": resamples.interval(metrics.aurc(confidence, correct)), "curve": curve}
    return found


def _class_counts(m: Measured) -> dict[str, int]:
    return {code: int((m.labels == c).sum()) for c, code in enumerate(DIAGNOSIS_CODES)}


# --- the report's section ---------------------------------------------------------------------------------------------


def section(result: dict[str, Any], folder: Path) -> str:
    """The section as Markdown; its charts are drawn into `folder`."""
    blocks, meta, calib = result["splits"], result["meta"], result["calib"]
    last = blocks["test"] if "test" in blocks else blocks["valid"]
    parts = [
        "## Calibration, prediction sets and referral",
        f"HAM10000. Fitted on `calib` ({calib['n']} photos of {calib['n_groups']} lesions), chosen on `valid`, "
        f"reported on `{last['split']}` ({last['n']} photos of {last['n_groups']} lesions); 95 % intervals over "
        f"{meta['resamples']} bootstrap resamples of lesions, seed {meta['seed']}, weights "
        f"`{meta['weights_sha256'][:12]}`.",
        "### Probabilities",
        _map_text(result),
        *(f"`{name}`:\n\n{_map_table(block['maps'])}" for name, block in blocks.items()),
        f"`{last['split']}`, the noise floor of each calibration error and both decision rules:",
        _floor_table(last["maps"]),
        _reliability_chart(last, folder),
        "### Prediction sets",
        _set_text(result),
        *(f"`{name}`:\n\n{_set_table(block['sets'])}" for name, block in blocks.items()),
        f"`{last['split']}`, coverage of each diagnosis:",
        _class_coverage(last["sets"]),
        _cross_text(result["cross_fitting"]),
        _cross_table(result["cross_fitting"]),
        "### Referral",
        _referral_text(result, last),
        _referral_table(blocks),
        _referral_chart(last, folder),
        "### Risk and coverage",
        "Error among the photos that the model is surest of, as the least sure are left out; a model whose confidence "
        "says nothing would have a level line.",
        _risk_chart(last, folder),
    ]
    return "\n\n".join(parts) + "\n"


def _map_text(result: dict[str, Any]) -> str:
    choice = result["choice"]["map"]
    best, gap = choice["lowest_nll"], figures.shown(choice["nll_above_shipped"], 4)
    verdict = "which is a true difference: it should replace it" if choice["change"] else "no reason to replace it"
    if best == SHIPPED:
        verdict, gap = "so it stays", "0"
    return (
        "ECE: 15 equally wide bins of the top class, L1; adaptive: bins of equally many photos; classwise: mean over "
        "the diagnoses. The noise floor is what a perfectly calibrated model would show at this n, simulated: a figure "
        "within it is as good as can be told. A bootstrap can only add noise to a calibration error, so its "
        f"interval sits high. By negative log-likelihood on `valid`, `{best}` is best, {gap} against `{SHIPPED}`: "
        f"{verdict}. Isotonic regression gives probabilities of exactly 0, for which its log-likelihood pays."
    )


def _map_table(maps: Mapping[str, Any]) -> str:
    keys = ("ece", "adaptive_ece", "classwise_ece", "brier", "nll")
    header = ["map", "ECE", "adaptive ECE", "classwise ECE", "Brier", "NLL", "NLL above shipped"]
    rows = [
        [name, *(figures.shown(m[k]) for k in keys), figures.shown(m["nll_above_shipped"], 4)]
        for name, m in maps.items()
    ]
    return figures.table(header, rows)


def _floor_table(maps: Mapping[str, Any]) -> str:
    def floor(m: Mapping[str, Any], key: str) -> str:
        f = m["noise_floor"][key]
        return f"{m[key]['value']:.3f}; {f['mean']:.3f} ({f['low']:.3f}-{f['high']:.3f})"

    header = ["map", "ECE; floor", "adaptive; floor", "classwise; floor", "ECE of argmax p / prior", "accuracy"]
    header += ["balanced accuracy (p / prior)", "balanced accuracy (p)"]
    keys = ("ece_balanced_rule", "accuracy", "balanced_accuracy", "balanced_accuracy_argmax")
    rows = [
        [name, *(floor(m, k) for k in ("ece", "adaptive_ece", "classwise_ece")), *(figures.shown(m[k]) for k in keys)]
        for name, m in maps.items()
    ]
    return figures.table(header, rows)


def _set_text(result: dict[str, Any]) -> str:
    choice = result["choice"]["sets"]
    fair = ", ".join(choice["fair"]) or "none"
    verdict = "differs from what is shipped" if choice["change"] else "is what is shipped"
    return (
        f"Stated coverage {COVERAGE:.0%}. Marginal rules promise it over all photos, rules by class within each class "
        "(or group of classes) that has a quantile of its own; with fewer than nine calibration photos such a class is "
        "in every set. Calibration photos of one lesion are no independent photos, so the promise is a little weaker "
        f"than its proof. Chosen on `valid`: the smallest sets that leave no diagnosis of at least {MIN_LESIONS} "
        f"lesions more than {TOLERANCE:.2f} below the stated coverage (rules that do: {fair}). Rules some of whose "
        "sets are out of order (a diagnosis ruled out, a less probable one kept) are not to be shown to anybody. "
        f"That is **{choice['chosen']}**, which {verdict}."
    )


def _set_table(sets: Mapping[str, Any]) -> str:
    header = [
        "sets",
        "coverage",
        "malignant",
        "mean size",
        "one diagnosis",
        "of these right",
        "worst diagnosis",
        "out of order",
    ]
    rows = [
        [
            name,
            figures.shown(s["coverage"]),
            figures.shown(s["malignant_coverage"]),
            figures.shown(s["set_size"], 2),
            figures.shown(s["singletons"]),
            figures.shown(s["singleton_accuracy"]),
            f"{s['worst_class'] or figures.MISSING} {figures.number(s['worst_coverage'])}",
            f"{s['out_of_order']:.1%}",
        ]
        for name, s in sets.items()
    ]
    return figures.table(header, rows)


def _class_coverage(sets: Mapping[str, Any]) -> str:
    first = next(iter(sets.values()))["classes"]
    header = ["sets", *(f"{code} ({c['n']} photos, {c['n_groups']} lesions)" for code, c in first.items())]
    rows = [[name, *(figures.shown(c["coverage"], 2) for c in s["classes"].values())] for name, s in sets.items()]
    return figures.table(header, rows)


def _cross_text(crossed: Mapping[str, Any]) -> str:
    moved = [name for name, c in crossed.items() if any(_differs(i) for i in c["coverage_gained"].values())]
    verdict = "On `valid` it matters for " + ", ".join(moved) if moved else "On `valid` it matters for no map"
    return (
        "Sets and threshold are fitted on the photos that the map was fitted on, which could flatter them. The remedy "
        f"would be to fit them on probabilities from maps fitted without each lesion ({FOLDS} folds). {verdict} (a "
        "difference in coverage whose interval leaves out 0). The shipped map is read from the weights and cannot be "
        "refitted; the line below it is the same kind of map fitted here."
    )


def _differs(interval: Mapping[str, Any] | None) -> bool:
    return bool(interval and interval["low"] is not None and (interval["low"] > 0 or interval["high"] < 0))


def _cross_table(crossed: Mapping[str, Any]) -> str:
    rules = next(iter(crossed.values()))["coverage_gained"]
    header = ["map"]
    for rule in rules:
        header += [f"{rule}: coverage, same photos", "gained by cross-fitting"]
    header += ["threshold: same photos, cross-fitted", "sensitivity: same photos", "cross-fitted"]
    rows = []
    for name, c in crossed.items():
        same, other = c["same photos"], c["cross-fitted"]
        row = [name]
        for rule in rules:
            row += [figures.shown(same["coverage"][rule]), figures.shown(c["coverage_gained"][rule])]
        row.append(f"{same['threshold']:.3f}, {other['threshold']:.3f}")
        rows.append([*row, figures.shown(same["sensitivity"]), figures.shown(other["sensitivity"])])
    return figures.table(header, rows)


def _referral_text(result: dict[str, Any], last: Mapping[str, Any]) -> str:
    t, r = result["threshold"], last["referral"]["range_by_threshold"]
    return (
        f"Refer where P(malignant) reaches the threshold, chosen on `calib` for a sensitivity of {t['target']:.2f}. "
        f"Shipped: {t['shipped']:.3f}; chosen on the same photos here: {figures.shown(t['threshold'])}, the range "
        f"being what other calibration lesions would give ({t['n_malignant']} malignant photos). On "
        f"`{last['split']}` that alone moves the sensitivity between {figures.number(r['sensitivity']['low'])} and "
        f"{figures.number(r['sensitivity']['high'])} and the specificity between "
        f"{figures.number(r['specificity']['low'])} and {figures.number(r['specificity']['high'])}. A prospective "
        "study of ADAE in eight hospitals found 0.921 and 0.673: other patients, so a landmark, not a comparison."
    )


def _referral_table(blocks: Mapping[str, Any]) -> str:
    header = ["threshold", "P(malignant) from"]
    for name in blocks:
        header += [f"`{name}` sensitivity", f"`{name}` specificity"]
    first = next(iter(blocks.values()))["referral"]
    rows: list[list[str]] = []
    for i, point in enumerate([first["shipped"], *first["curve"]]):
        name = f"for {point['target']:.2f} on `calib`" if "target" in point else SHIPPED
        row = [name, figures.number(point["threshold"])]
        for block in blocks.values():
            own = [block["referral"]["shipped"], *block["referral"]["curve"]][i]
            row += [figures.shown(own["sensitivity"]), figures.shown(own["specificity"])]
        rows.append(row)
    return figures.table(header, rows)


@figures.styled
def _reliability_chart(block: Mapping[str, Any], folder: Path) -> str:
    names = {"none": "before (softmax of the logits)", SHIPPED: "after (as shipped)"}
    figure, axes = figures.charts(2, width=3.8, height=3.9)
    for ax, (name, title) in zip(axes, names.items(), strict=True):
        bins = block["reliability"][name]
        x = [b["confidence"] for b in bins]
        ax.bar(
            [b["from"] for b in bins],
            [b["n"] / block["n"] for b in bins],
            width=1 / BINS,
            align="edge",
            color=figures.PALE,
        )
        ax.fill_between(x, [b["low"] for b in bins], [b["high"] for b in bins], color=figures.ORANGE, alpha=0.3, lw=0)
        ax.plot([0, 1], [0, 1], color=figures.GREY, linewidth=0.8)
        ax.plot(x, [b["accuracy"] for b in bins], "o-", color=figures.BLUE, ms=4)
        m = block["maps"][name]
        ax.set_title(f"{title}\nECE {m['ece']['value']:.3f}, floor {m['noise_floor']['ece']['mean']:.3f}")
        figures.unit_axes(ax, "confidence in the leading diagnosis", "share that was right")
    alt = "Reliability before and after; orange: where a perfectly calibrated model would lie; bars: share of photos"
    return figures.save(figure, folder, "calibration_reliability", alt) + f"\n\n*{alt}.*"


@figures.styled
def _referral_chart(block: Mapping[str, Any], folder: Path) -> str:
    figure, (axes,) = figures.charts(width=4.8, height=3.6)
    curve = block["referral"]["curve"]
    x = np.array([point["target"] for point in curve])
    for key, colour, shift in (("sensitivity", figures.BLUE, -0.001), ("specificity", figures.ORANGE, 0.001)):
        values, errors = figures.whiskers([point[key] for point in curve])
        axes.errorbar(x + shift, values, errors, fmt="o-", color=colour, ms=4, capsize=2, elinewidth=0.9, label=key)
    axes.plot([x.min(), x.max()], [x.min(), x.max()], color=figures.GREY, linewidth=0.8, label="as aimed at")
    axes.axvline(SENSITIVITY, color=figures.PALE, zorder=0)
    axes.set(xlabel="sensitivity aimed at on calib", ylabel=f"achieved on {block['split']}", ylim=(0, 1.02))
    axes.legend(loc="lower left")
    return figures.save(figure, folder, "calibration_referral", "Sensitivity aimed at, and what is achieved")


@figures.styled
def _risk_chart(block: Mapping[str, Any], folder: Path) -> str:
    figure, (axes,) = figures.charts(width=4.8, height=3.4)
    for (rule, found), colour in zip(block["risk"].items(), (figures.BLUE, figures.ORANGE), strict=True):
        points = [p for p in found["curve"] if p["risk"]]
        x = [p["coverage"] for p in points]
        values, (below, above) = figures.whiskers([p["risk"] for p in points])
        low, high = np.subtract(values, below), np.add(values, above)
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(x, values, color=colour, label=f"{rule}: area {figures.shown(found['aurc'])}")
    axes.set(xlabel="share of photos answered, surest first", ylabel="error among them", xlim=(0, 1.01))
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left")
    return figures.save(figure, folder, "calibration_risk", "Risk-coverage curve under both decision rules")
