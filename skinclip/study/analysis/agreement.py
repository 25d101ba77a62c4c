"""Agreement between readers on the same case shown the same way, and within a reader on a repeat.

Krippendorff's alpha (2011) for every answer at its level of measurement, kappa with quadratic weights over all pairs of
readers, and the intraclass correlation from variance components (absolute agreement, two-way random; Shrout and Fleiss
1979, McGraw and Wong 1996), single and average. All take incomplete data: no reader sees every case in every arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.metrics import cohen_kappa_score

from skinclip.study.analysis.mixed import attempt, fit
from skinclip.study.analysis.tables import AID_ITEMS, ANSWERS, first_session, numbers
from skinclip.study.errors import NotEstimable
from skinclip.study.protocol.arms import arm_named

Result = dict[str, Any]
_RESAMPLES = 300  # of alpha; each costs a call of the library


@dataclass(frozen=True)
class _Answer:
    """A column whose agreement is measured; `by_arm` is false for answers given before any aid."""

    column: str
    level: Literal["nominal", "ordinal", "interval"]
    by_arm: bool = True


_MEASURED = (
    _Answer("diagnosis_before", "nominal", by_arm=False),
    _Answer("diagnosis_after", "nominal"),
    _Answer("act_after", "nominal"),
    _Answer("trust", "ordinal"),
    *(_Answer(item, "ordinal") for item in AID_ITEMS),
)
_REPEATED = (
    _Answer("diagnosis_before", "nominal"),
    _Answer("diagnosis_after", "nominal"),
    _Answer("act_after", "nominal"),
    _Answer("confidence_before", "interval"),
    _Answer("confidence_after", "interval"),
    _Answer("trust", "ordinal"),
    *(_Answer(item, "ordinal") for item in AID_ITEMS),
)


def between_readers(cases: pd.DataFrame, arms: Sequence[str], resamples: int, seed: int, alpha: float) -> list[Result]:
    """Alpha with its interval (cases drawn anew), kappa, and the two ICCs, of every answer in every arm it has."""
    rows = []
    for answer in _MEASURED:
        for arm in arms if answer.by_arm else ("all",):
            answered = first_session(cases) if arm == "all" else cases[cases["arm"] == arm]
            values = _coded(answered, answer)
            if answer.column in AID_ITEMS and not arm_named(arm).explains:
                continue  # not asked
            known = np.isfinite(values)
            here = (answered[known], values[known], answer)
            rows.append(
                {
                    "answer": answer.column,
                    "arm": arm,
                    "level": answer.level,
                    "n": int(known.sum()),
                    "alpha": attempt(_alpha, *here, min(resamples, _RESAMPLES), seed, alpha),
                    "kappa": attempt(_kappa, *here),
                    "icc": attempt(_icc, *here, alpha),
                }
            )
    return rows


def within_readers(cases: pd.DataFrame) -> list[Result]:
    """First answer against the answer to the repeat: share equal, kappa (weighted where ordinal), within-reader SD.

    The within-reader SD is the root of half the mean squared difference; 1.96 times root 2 of it is the repeatability
    limit (Bland and Altman 1996).
    """
    return [{"answer": a.column, "level": a.level, **attempt(_retest, cases, a)} for a in _REPEATED]


def _retest(cases: pd.DataFrame, answer: _Answer) -> Result:
    keyed = cases[["reader", "case", "arm", "repeat"]].assign(value=_coded(cases, answer)).dropna(subset="value")
    first, second = keyed[~keyed["repeat"]], keyed[keyed["repeat"]]
    pairs = first.merge(second, on=["reader", "case", "arm"], suffixes=("", "_again"))
    if pairs.empty:
        raise NotEstimable("no repeats")
    a, b = pairs["value"].to_numpy(), pairs["value_again"].to_numpy()
    result: Result = {"pairs": len(pairs), "equal": float((a == b).mean())}
    if answer.level != "interval":
        result["kappa"] = attempt(_cohen, a.astype(int), b.astype(int), np.ones(len(a)), answer.level)
    if answer.level != "nominal":
        result["within_sd"] = float(np.sqrt(((a - b) ** 2).mean() / 2))
    return result


def _coded(cases: pd.DataFrame, answer: _Answer) -> np.ndarray:
    """[n] the answers as numbers; diagnoses by their place in the vocabulary."""
    if answer.column.startswith("diagnosis"):
        return cases[answer.column].map({code: i for i, code in enumerate(ANSWERS)}).to_numpy(dtype=np.float64)
    return numbers(cases, answer.column)


# --- the coefficients ---------------------------------------------------------------------------------------------


def _counts(cases: pd.DataFrame, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(how many readers gave each value to each case [cases, values], the values).

    Raises:
        NotEstimable: No case has two answers, or all answers are equal.
    """
    domain, coded = np.unique(values, return_inverse=True)
    names, case = np.unique(cases["case"].to_numpy(dtype=str), return_inverse=True)
    counts = np.zeros((len(names), len(domain)))
    np.add.at(counts, (case, coded), 1.0)
    counts = counts[counts.sum(axis=1) > 1]
    if not len(counts):
        raise NotEstimable("no case was answered by two readers in this arm")
    if (counts.sum(axis=0) > 0).sum() < 2:
        raise NotEstimable("all answers are equal")
    return counts, domain


def _alpha(cases: pd.DataFrame, values: np.ndarray, answer: _Answer, resamples: int, seed: int, alpha: float) -> Result:
    counts, domain = _counts(cases, values)
    rng = np.random.default_rng(seed)

    def of(rows: np.ndarray) -> float:
        used = rows.sum(axis=0) > 0
        if used.sum() < 2:
            return float("nan")
        return krippendorff_alpha(rows[:, used], domain[used], answer.level)

    drawn = np.array([of(counts[rng.integers(0, len(counts), len(counts))]) for _ in range(resamples)])
    drawn = drawn[np.isfinite(drawn)]
    if len(counts) < 2 or not len(drawn):
        return {"value": of(counts), "low": None, "high": None}
    low, high = np.percentile(drawn, [100 * alpha / 2, 100 * (1 - alpha / 2)])
    return {"value": of(counts), "low": float(low), "high": float(high)}


def krippendorff_alpha(counts: np.ndarray, values: np.ndarray, level: str) -> float:
    """Krippendorff's alpha; NaN where no case has two answers (Krippendorff 2011, Computing Krippendorff's
    Alpha-Reliability).

    Args:
        counts: [cases, values], how many readers gave each value to each case; missing answers are not counted.
        values: [values] as numbers, ascending.
        level: "nominal", "ordinal" or "interval".
    """
    counts = counts[counts.sum(axis=1) > 1]
    readers = counts.sum(axis=1)  # of each case
    pairs = (counts / (readers - 1)[:, None]).T @ counts - np.diag((counts / (readers - 1)[:, None]).sum(axis=0))
    n = counts.sum(axis=0)  # of each value
    distance = _distance(n, values, level)
    expected = float(n @ distance @ n)
    if not expected:
        return float("nan")
    return 1.0 - (n.sum() - 1) * float((pairs * distance).sum()) / expected


def _distance(n: np.ndarray, values: np.ndarray, level: str) -> np.ndarray:
    """[values, values] squared distances; between ranks the answers that lie between them count."""
    if level == "nominal":
        return 1.0 - np.eye(len(values))
    place = np.cumsum(n) - n / 2 if level == "ordinal" else np.asarray(values, dtype=float)
    return np.square(place[:, None] - place[None, :])


def _kappa(cases: pd.DataFrame, values: np.ndarray, answer: _Answer) -> Result:
    """Cohen's kappa over all ordered pairs of readers of the same case, quadratic weights where ordinal."""
    counts, domain = _counts(cases, values)
    pairs = counts.T @ counts - np.diag(counts.sum(axis=0))
    a, b = np.meshgrid(domain.astype(int), domain.astype(int), indexing="ij")
    return _cohen(a.ravel(), b.ravel(), pairs.ravel(), answer.level)


def _cohen(a: np.ndarray, b: np.ndarray, weights: np.ndarray, level: str) -> Result:
    here = weights > 0
    labels = np.union1d(a[here], b[here])
    if len(labels) < 2:
        raise NotEstimable("all answers are equal")
    # Weights count steps between labels, so the labels are all points from the lowest to the highest.
    points = np.arange(labels.min(), labels.max() + 1) if level == "ordinal" else labels
    kind = "quadratic" if level == "ordinal" else None
    return {"value": float(cohen_kappa_score(a, b, labels=points, weights=kind, sample_weight=weights))}


def _icc(cases: pd.DataFrame, values: np.ndarray, answer: _Answer, alpha: float) -> Result:
    """ICC(A,1) with its interval and ICC(A,k), k readers a case (harmonic mean); nominal answers have none.

    The interval is that of the logit by the delta method, from the variances' information.
    """
    if answer.level == "nominal":
        raise NotEstimable("not a scale")
    if cases["reader"].nunique() < 2 or cases["case"].nunique() < 2:
        raise NotEstimable("fewer than two readers or cases")
    mean = pd.DataFrame({"mean": np.ones(len(values))})
    model = fit(values, mean, {"reader": cases["reader"], "case": cases["case"]})
    variances = np.array(list(model.variances.values()))
    is_case = np.array([name == "case" for name in model.variances])
    if not is_case.any():
        raise NotEstimable("each case has one answer only")
    total = float(variances.sum())
    single = float(variances[is_case].sum()) / total
    k = float(1 / (1 / cases.groupby("case").size()).mean())
    icc = {"single": single, "average": single * k / (1 + (k - 1) * single), "readers_a_case": k}
    if not 0 < single < 1:
        return {**icc, "low": None, "high": None}
    gradient = (is_case - single) / total / (single * (1 - single))
    reach = float(norm.ppf(1 - alpha / 2) * np.sqrt(max(0.0, gradient @ model.variances_covariance @ gradient)))
    return {**icc, "low": float(expit(logit(single) - reach)), "high": float(expit(logit(single) + reach))}
