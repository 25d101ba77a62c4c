"""Every figure of an evaluation, from rows of one photo each: with its interval, or None where labels do not allow it.

Decision rules: `accuracy`, `balanced_accuracy_argmax`, the figures of calibration, confidence and melanoma, `coverage`
and `diag_accuracy` read the displayed probabilities, at natural prevalence; `balanced_accuracy`, `per_class_recall` and
the confusion matrix decide by argmax p / prior; `sensitivity` and `specificity` are those of the referral decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from skinclip.core.vocabulary import CODE_TO_DERM7PT_GROUP, CRITERIA, DERM7PT_GROUPS, DIAGNOSIS_CODES, ISIC2018_COLUMNS
from skinclip.data.cases import Case
from skinclip.evaluation import metrics

RULES = {
    "accuracy": "argmax p",
    "balanced_accuracy": "argmax p / prior",
    "balanced_accuracy_argmax": "argmax p",
    "per_class_recall": "argmax p / prior",
    "confusion": "argmax p / prior",
    "sensitivity, specificity": "P(malignant) >= referral threshold",
    "melanoma_sensitivity": "argmax p",
    "melanoma_precision": "argmax p",
    "melanoma_sensitivity_at_90_specificity": "P(melanoma) >= threshold of 0.9 specificity here",
    "diag_accuracy": "argmax of p summed by group",
}
ISIC2018_CODES = tuple(code for code in DIAGNOSIS_CODES if code in ISIC2018_COLUMNS.values())
SPECIFICITY = 0.9  # at which melanoma's sensitivity is read
BINS = 15  # of every calibration error
_COVERAGES = np.arange(1, 21) / 20  # points of the risk-coverage curve
_ROC_POINTS = 200  # at most, of a drawn curve


@dataclass(frozen=True)
class Row:
    """One photo's answers. What a system does not answer is None or, for `ita`, `iou` and `agrees`, NaN.

    `answered` says that the model would not abstain for what it knows of such photos, `kind` what kind of photo it took
    it for, `ita` the angle of the skin around the lesion.

    `malignancy`, `refer` and `set_codes` are the system's own, over all diagnoses that it knows.
    """

    case: Case
    probabilities: np.ndarray  # [C], of `codes`
    balanced: np.ndarray  # [C], of `codes`
    malignancy: float
    criteria: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    refer: bool | None = None
    set_codes: tuple[str, ...] | None = None
    in_domain: bool | None = None
    answered: bool | None = None
    kind: str | None = None
    ita: float = float("nan")
    iou: float = float("nan")
    agrees: float = float("nan")
    codes: tuple[str, ...] = DIAGNOSIS_CODES

    def scored_on(self, codes: Sequence[str]) -> Row:
        """The row with probabilities of `codes` alone, renormalised; a case of another diagnosis has no label then."""
        if tuple(codes) == self.codes:
            return self
        kept = [self.codes.index(code) for code in codes]
        case = self.case if self.case.diagnosis in codes else replace(self.case, diagnosis=None)
        p, balanced = (_renormalised(values, kept) for values in (self.probabilities, self.balanced))
        return replace(self, case=case, probabilities=p, balanced=balanced, codes=tuple(codes))


def _renormalised(every: np.ndarray, kept: Sequence[int]) -> np.ndarray:
    """The values `kept` of `every` divided by their sum; equal shares where all of it lay elsewhere."""
    p = every[kept]
    if np.count_nonzero(every) == np.count_nonzero(p):  # nothing elsewhere: to the last digit as they were
        return p
    total = p.sum()
    return p / total if total > 0 else np.full(len(p), 1 / len(p))


def scored_codes(cases: Sequence[Case]) -> tuple[str, ...]:
    """The diagnoses that a benchmark is scored on: ISIC 2018's seven, and those of the others that it labels."""
    labelled = {case.diagnosis for case in cases if case.diagnosis}
    return tuple(code for code in DIAGNOSIS_CODES if code in ISIC2018_CODES or code in labelled)


def figures(rows: Sequence[Row], n_boot: int, seed: int) -> dict[str, Any]:
    """All figures of `rows`, each `{"value", "low", "high"}` or None.

    `ece_noise_floor` is the mean of drawn errors with their 2.5th and 97.5th percentile, see `metrics.ece_noise_floor`.
    """
    resamples = _resamples(rows, n_boot, seed)
    criteria = _criteria(rows, resamples)
    return {
        "n": len(rows),
        **{name: resamples.interval(metric) for name, metric in _diagnosis_metrics(rows).items()},
        "ece_noise_floor": _noise_floor(rows, n_boot, seed),
        "per_class_recall": _per_class_recall(rows, resamples),
        **{name: resamples.interval(metric) for name, metric in _malignancy_metrics(rows).items()},
        "lesion_iou": resamples.interval(metrics.mean(np.array([row.iou for row in rows]))),
        "agreement": resamples.interval(metrics.mean(np.array([row.agrees for row in rows]))),
        **{name: resamples.interval(metric) for name, metric in _abstention_metrics(rows).items()},
        "in_domain": resamples.interval(metrics.mean(_answers([row.in_domain for row in rows]))),
        "diag_accuracy": resamples.interval(_diag_accuracy(rows)),
        "criteria": criteria or None,
        "criteria_mean_accuracy": resamples.interval(
            metrics.mean_of([metrics.accuracy(*_criterion_decisions(rows, c)) for c in criteria])
        ),
    }


def cluster(case: Case) -> str:
    """The unit of resampling: the patient where known, else the lesion; lesion ids repeat between sources."""
    return f"{case.source}/{case.patient_id or case.lesion_id}"


def _resamples(rows: Sequence[Row], n_boot: int, seed: int) -> metrics.GroupBootstrap:
    return metrics.GroupBootstrap([cluster(row.case) for row in rows], n_boot, seed)


def _labels(rows: Sequence[Row]) -> np.ndarray:
    """[n] number of the true diagnosis, -1 where it is missing."""
    return np.array([row.codes.index(d) if (d := row.case.diagnosis) else -1 for row in rows], dtype=np.int64)


def _codes(rows: Sequence[Row]) -> tuple[str, ...]:
    """The diagnoses that the rows' probabilities are of, the same in all."""
    return rows[0].codes if rows else DIAGNOSIS_CODES


def _stack(vectors: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(vectors) if vectors else np.zeros((0, len(DIAGNOSIS_CODES)))


def _answers(values: Sequence[bool | None]) -> np.ndarray:
    """[n] 1, 0, or NaN where there is no answer."""
    return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)


def _diagnosis_metrics(rows: Sequence[Row]) -> dict[str, metrics.Metric]:
    labels = _labels(rows)
    p, balanced = _stack([row.probabilities for row in rows]), _stack([row.balanced for row in rows])
    guess, known, melanoma = p.argmax(axis=1), labels >= 0, _codes(rows).index("mel")
    inside = _answers([None if (s := row.set_codes) is None else row.case.diagnosis in s for row in rows])
    sizes = np.array([np.nan if row.set_codes is None else len(row.set_codes) for row in rows], dtype=np.float64)
    return {
        "accuracy": metrics.accuracy(labels, guess),
        "balanced_accuracy": metrics.balanced_accuracy(labels, balanced.argmax(axis=1)),
        "balanced_accuracy_argmax": metrics.balanced_accuracy(labels, guess),
        "auroc_macro": metrics.auroc_macro(p, labels),
        "melanoma_sensitivity": metrics.recall(labels, guess, melanoma),
        "melanoma_precision": metrics.precision(labels, guess, melanoma),
        "melanoma_sensitivity_at_90_specificity": metrics.sensitivity_at_specificity(
            p[:, melanoma], labels == melanoma, known, SPECIFICITY
        ),
        "ece": metrics.ece(p, labels, BINS),
        "adaptive_ece": metrics.adaptive_ece(p, labels, BINS),
        "classwise_ece": metrics.classwise_ece(p, labels, BINS),
        "brier": metrics.brier(p, labels),
        "nll": metrics.nll(p, labels),
        "aurc": metrics.aurc(p.max(axis=1, initial=0.0), guess == labels, known),
        "coverage": metrics.share(inside, known),
        "set_size": metrics.mean(sizes),
    }


def _abstention_metrics(rows: Sequence[Row]) -> dict[str, metrics.Metric]:
    """The share of photos that the model answers, and accuracy among those and among the others."""
    labels, answered = _labels(rows), _answers([row.answered for row in rows])
    correct = _stack([row.probabilities for row in rows]).argmax(axis=1) == labels
    return {
        "answered": metrics.mean(answered),
        "accuracy_answered": metrics.share(correct, (labels >= 0) & (answered == 1)),
        "accuracy_not_answered": metrics.share(correct, (labels >= 0) & (answered == 0)),
    }


def _noise_floor(rows: Sequence[Row], draws: int, seed: int) -> metrics.Interval | None:
    labelled = [row.probabilities for row in rows if row.case.diagnosis]
    if not labelled:
        return None
    floor = metrics.ece_noise_floor(_stack(labelled), draws, seed, BINS)
    return {"value": floor["mean"], "low": floor["low"], "high": floor["high"]}


def _per_class_recall(
    rows: Sequence[Row], resamples: metrics.GroupBootstrap
) -> dict[str, metrics.Interval | None] | None:
    labels, predicted = _labels(rows), _stack([row.balanced for row in rows]).argmax(axis=1)
    if not (labels >= 0).any():
        return None
    return {code: resamples.interval(metrics.recall(labels, predicted, c)) for c, code in enumerate(_codes(rows))}


def _malignancy(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """([n] P(malignant), [n] bool malignant, [n] bool labelled)."""
    known = np.array([row.case.malignant is not None for row in rows], dtype=bool)
    malignant = np.array([bool(row.case.malignant) for row in rows], dtype=bool)
    return np.array([row.malignancy for row in rows], dtype=np.float64), malignant, known


def _malignancy_metrics(rows: Sequence[Row]) -> dict[str, metrics.Metric]:
    score, malignant, known = _malignancy(rows)
    refer = _answers([row.refer for row in rows])
    return {
        "auroc_malignant": metrics.auroc(score, malignant, known),
        "sensitivity": metrics.share(refer, malignant & known),
        "specificity": metrics.share(1 - refer, ~malignant & known),
    }


def _criteria(rows: Sequence[Row], resamples: metrics.GroupBootstrap) -> dict[str, dict[str, metrics.Interval | None]]:
    """Accuracy and macro one-versus-rest AUROC of each criterion that has a label."""
    figures_by_code = {}
    for criterion in CRITERIA:
        labels, predicted = _criterion_decisions(rows, criterion.code)
        if (labels >= 0).any():
            figures_by_code[criterion.code] = {
                "accuracy": resamples.interval(metrics.accuracy(labels, predicted)),
                "auroc": resamples.interval(
                    metrics.auroc_macro(_criterion_probabilities(rows, criterion.code), labels)
                ),
            }
    return figures_by_code


def _criterion_states(criterion: str) -> tuple[str, ...]:
    return next(c.labels for c in CRITERIA if c.code == criterion)


def _criterion_label(row: Row, criterion: str) -> str | None:
    """The labelled state of a criterion that the system says something about."""
    return row.case.criteria.get(criterion) if criterion in row.criteria else None


def _criterion_probabilities(rows: Sequence[Row], criterion: str) -> np.ndarray:
    """[n, S] probabilities of the criterion's states; 0 in rows without that label, which no metric reads."""
    states = _criterion_states(criterion)
    return np.array(
        [[row.criteria[criterion][s] if _criterion_label(row, criterion) else 0.0 for s in states] for row in rows]
    ).reshape(len(rows), len(states))


def _criterion_decisions(rows: Sequence[Row], criterion: str) -> tuple[np.ndarray, np.ndarray]:
    """([n] true state, -1 where unlabelled, [n] most probable state)."""
    states = _criterion_states(criterion)
    labels = [states.index(s) if (s := _criterion_label(row, criterion)) else -1 for row in rows]
    return np.array(labels, dtype=np.int64), _criterion_probabilities(rows, criterion).argmax(axis=1)


def _diag_accuracy(rows: Sequence[Row]) -> metrics.Metric:
    """Accuracy in Derm7pt's five diagnosis groups (Kawahara et al. 2019)."""
    to_group = np.array([[CODE_TO_DERM7PT_GROUP.get(code) == g for g in DERM7PT_GROUPS] for code in _codes(rows)])
    grouped = _stack([row.probabilities for row in rows]) @ to_group.astype(np.float64)  # [n, 5]
    labels = [DERM7PT_GROUPS.index(g) if (g := row.case.diagnosis_group) else -1 for row in rows]
    return metrics.accuracy(np.array(labels, dtype=np.int64), grouped.argmax(axis=1))


# --- curves -----------------------------------------------------------------------------------------------------


def curves(rows: Sequence[Row], n_boot: int, seed: int) -> dict[str, Any]:
    """The data of a report's charts, each None where the labels do not allow it.

    reliability: one entry a filled bin of `ece`: mean confidence, hit rate with interval, n.
    roc: false and true positive rate of P(malignant).
    confusion: [C][C] photos, by true class and class decided by argmax p / prior.
    risk_coverage: error rate with interval of the most confident share of the photos.
    """
    return {
        "reliability": _reliability(rows, n_boot, seed),
        "roc": _roc(rows),
        "confusion": _confusion(rows),
        "risk_coverage": _risk_coverage(rows, n_boot, seed),
    }


def _labelled(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.case.diagnosis]


def _reliability(rows: Sequence[Row], n_boot: int, seed: int) -> list[dict[str, Any]] | None:
    rows = _labelled(rows)
    if not rows:
        return None
    p, resamples = _stack([row.probabilities for row in rows]), _resamples(rows, n_boot, seed)
    confidence, hit = p.max(axis=1), p.argmax(axis=1) == _labels(rows)
    bin_of_row, points = metrics.equal_widths(confidence, BINS), []
    for inside in (bin_of_row == b for b in np.unique(bin_of_row)):
        rate = resamples.interval(metrics.share(hit, inside))
        points.append({"confidence": float(confidence[inside].mean()), "rate": rate, "n": int(inside.sum())})
    return points


def _roc(rows: Sequence[Row]) -> dict[str, list[float]] | None:
    from sklearn.metrics import roc_curve

    score, malignant, known = _malignancy(rows)
    if len(set(malignant[known])) < 2:
        return None
    false_rate, true_rate, _ = roc_curve(malignant[known], score[known])
    kept = np.unique(np.linspace(0, len(true_rate) - 1, _ROC_POINTS).round().astype(int))
    return {"false_positive_rate": false_rate[kept].tolist(), "true_positive_rate": true_rate[kept].tolist()}


def _confusion(rows: Sequence[Row]) -> list[list[int]] | None:
    from sklearn.metrics import confusion_matrix

    rows = _labelled(rows)
    if not rows:
        return None
    decided = _stack([row.balanced for row in rows]).argmax(axis=1)
    counts: list[list[int]] = confusion_matrix(_labels(rows), decided, labels=range(len(_codes(rows)))).tolist()
    return counts


def _risk_coverage(rows: Sequence[Row], n_boot: int, seed: int) -> list[dict[str, Any]] | None:
    rows = _labelled(rows)
    if not rows:
        return None
    p, resamples = _stack([row.probabilities for row in rows]), _resamples(rows, n_boot, seed)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == _labels(rows)
    return [
        {"coverage": float(c), "risk": resamples.interval(metrics.risk_at_coverage(confidence, right, float(c)))}
        for c in _COVERAGES
    ]


# --- two systems ------------------------------------------------------------------------------------------------


def compare(first: Sequence[Row], second: Sequence[Row], n_boot: int, seed: int) -> dict[str, Any] | None:
    """The first system's figures less the second's on the photos that both have; None where there are none.

    Differences are paired: both systems are figured on the same resamples of lesions. McNemar's test is on the accuracy
    of argmax p, and takes photos as independent, which photos of one lesion are not; the interval does not.
    """
    other = {row.case.image_id: row for row in second}
    first = [row for row in first if row.case.image_id in other]
    second = [other[row.case.image_id] for row in first]
    if not first:
        return None
    resamples = _resamples(first, n_boot, seed)
    a, b = ({**_diagnosis_metrics(rows), **_malignancy_metrics(rows)} for rows in (first, second))
    differences = {name: resamples.interval(metrics.difference(a[name], b[name])) for name in a}
    return {
        "n": len(first),
        "first": {name: resamples.interval(metric) for name, metric in a.items()},
        "second": {name: resamples.interval(metric) for name, metric in b.items()},
        "differences": differences,
        "mcnemar_accuracy": _mcnemar(first, second),
    }


def _mcnemar(first: Sequence[Row], second: Sequence[Row]) -> dict[str, float | int] | None:
    labels = _labels(first)
    if not (labels >= 0).any():
        return None
    right = [
        (_stack([r.probabilities for r in rows]).argmax(axis=1) == labels)[labels >= 0] for rows in (first, second)
    ]
    return {"n": len(right[0]), **metrics.mcnemar(*right)}
