"""Multi-reader multi-case analysis: AUC of malignancy, sensitivity and specificity by arm, readers and cases random.

The model of Obuchowski and Rockette (1995) with the degrees of freedom of Hillis (2007), for figures of merit of each
reader in each arm and the covariances of these figures over cases. Covariances are the unbiased ones of U-statistics
(Gallas 2006), as iMRMC and MRMCaov have them, and take any overlap of cases: in a study by Latin square a reader sees
other cases in each arm, and two readers share an arm's cases or none. Only averages of covariances over pairs of
readers enter, of which the variance of an arm's mean is made whatever the overlap (Obuchowski, Gallas and Hillis 2012).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from skinclip.core.vocabulary import DIAGNOSES
from skinclip.study.analysis.analysis_plan import AnalysisPlan
from skinclip.study.analysis.mixed import attempt
from skinclip.study.analysis.tables import malignancy_scores, numbers
from skinclip.study.errors import NotEstimable
from skinclip.study.protocol.model import Contrast

Result = dict[str, Any]
FIGURES = {"auc": "AUC of malignancy", "sensitivity": "Sensitivity for malignancy", "specificity": "Specificity"}
MALIGNANT = frozenset(d.code for d in DIAGNOSES if d.malignant)
_LEAST = 2  # cases of each kind that a reader must have seen in an arm


def analyse_mrmc(cases: pd.DataFrame, arms: Sequence[str], plan: AnalysisPlan) -> list[Result]:
    """Each of `FIGURES`: mean of each arm with the aid, unaided of all answers, and the primary contrast."""
    rows = []
    for key, label in FIGURES.items():
        ratings = ratings_of(cases, key)
        row: Result = {"figure": key, "label": label, "by_arm": [], "difference": attempt(difference, cases, key, plan)}
        for arm in arms:
            row["by_arm"].append({"arm": arm, **attempt(_alone, ratings, key, arm, plan.alpha)})
        unaided = attempt(_alone, ratings_of(cases.assign(arm="unaided"), key, "before"), key, "unaided", plan.alpha)
        rows.append({**row, "unaided": unaided})
    return rows


def difference(cases: pd.DataFrame, figure: str, plan: AnalysisPlan) -> Result:
    """The primary contrast in one of `FIGURES` with the aid. Raises NotEstimable, see `compare`."""
    contrast = Contrast(plan.primary.arm, plan.primary.reference)
    figures = ratings_of(cases, figure).figures([contrast.arm, contrast.reference])
    return {"contrast": contrast.text, **compare(figures, plan.alpha)}


def _alone(ratings: Ratings, key: str, arm: str, alpha: float) -> Result:
    return mean_of_one(ratings.figures([arm]), alpha)


# --- ratings ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ratings:
    """Scores of malignancy by reader, arm and case.

    Attributes:
        rows: `reader`, `arm`, `case`, `malignant` (0 or 1) and `score`; higher is more malignant.
        figure: a key of `FIGURES`; for sensitivity and specificity a score of 1 is a malignant answer, 0 a benign one.
    """

    rows: pd.DataFrame
    figure: str

    def figures(self, arms: Sequence[str]) -> Figures:
        """Figures of merit of the readers who saw enough cases in each of the arms.

        Raises:
            NotEstimable: Fewer than two such readers.
        """
        rows = self.rows[self.rows["arm"].isin(arms)]
        needed = {"auc": (0, 1), "sensitivity": (1,), "specificity": (0,)}[self.figure]
        seen = rows[rows["malignant"].isin(needed)].groupby(["reader", "arm", "malignant"]).size().unstack(["arm", 2])
        wanted = [(arm, truth) for arm in arms for truth in needed]
        enough = seen.reindex(columns=pd.MultiIndex.from_tuples(wanted)).ge(_LEAST).all(axis=1)
        readers = sorted(seen.index[enough])
        if len(readers) < 2:
            raise NotEstimable("fewer than two readers with enough malignant and benign cases")
        return figures_of(rows[rows["reader"].isin(readers)], arms, readers, self.figure)


def ratings_of(cases: pd.DataFrame, figure: str, phase: str = "after") -> Ratings:
    """Ratings in rows of the table of cases of known truth, by the answer `before` or `after` the aid.

    Scores of the AUC are the export's (`malignancy_scores`). "Cannot tell" is no malignant answer.
    """
    known = cases[cases["truth"].notna() & cases[f"diagnosis_{phase}"].notna()]
    answer = known[f"diagnosis_{phase}"].isin(MALIGNANT).astype(float)
    score = malignancy_scores(known, phase) if figure == "auc" else answer
    rows = known[["reader", "arm", "case"]].assign(malignant=known["truth"].isin(MALIGNANT).astype(int), score=score)
    return Ratings(rows[np.isfinite(numbers(rows, "score"))], figure)


# --- figures of merit and their covariances -----------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """Figures of merit [arms, readers], and their covariances over cases [arms * readers, arms * readers], by arm."""

    values: np.ndarray
    covariance: np.ndarray


def figures_of(rows: pd.DataFrame, arms: Sequence[str], readers: Sequence[str], figure: str) -> Figures:
    """Figures of merit and covariances of every reader in every arm."""
    unit = {(arm, reader): i for i, (arm, reader) in enumerate((a, r) for a in arms for r in readers)}
    place = np.array([unit[key] for key in zip(rows["arm"], rows["reader"], strict=True)])
    malignant = numbers(rows, "malignant") == 1
    positive = _scores(rows[malignant], place[malignant], len(unit))
    negative = _scores(rows[~malignant], place[~malignant], len(unit))
    if figure == "auc":
        values, covariance = _areas(positive, negative)
    else:
        values, covariance = _shares(positive if figure == "sensitivity" else 1.0 - negative)
    return Figures(values.reshape(len(arms), len(readers)), covariance)


def _scores(rows: pd.DataFrame, place: np.ndarray, units: int) -> np.ndarray:
    """Scores [units, cases], NaN where a unit did not see the case."""
    names, case = np.unique(rows["case"].to_numpy(dtype=str), return_inverse=True)
    scores = np.full((units, max(len(names), 1)), np.nan)
    scores[place, case] = numbers(rows, "score")
    return scores


def _areas(positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Empirical areas under the ROC curve [u] and their unbiased covariances [u, u].

    With kernels k(x, y) of a malignant and a benign score, E[A A'] is a sum over pairs of pairs that share both cases,
    one, or none; each kind's mean is estimated apart. The product of the expectations is that of no shared case.
    """
    above = positive[:, :, None] - negative[:, None, :]
    kernel = np.nan_to_num(np.where(above > 0, 1.0, np.where(above == 0, 0.5, above * 0.0)))  # [u, m, n]
    saw_p, saw_n = np.isfinite(positive).astype(float), np.isfinite(negative).astype(float)
    m, n = saw_p.sum(axis=1), saw_n.sum(axis=1)
    by_case, by_control = kernel.sum(axis=2), kernel.sum(axis=1)
    total = kernel.sum(axis=(1, 2))
    both = np.einsum("umn,vmn->uv", kernel, kernel, optimize=True)
    same_p, same_n = by_case @ by_case.T - both, by_control @ by_control.T - both
    none = np.outer(total, total) - both - same_p - same_n
    shared_p, shared_n = saw_p @ saw_p.T, saw_n @ saw_n.T
    pairs_p, pairs_n = np.outer(m, m), np.outer(n, n)
    sums = (both, same_p, same_n, none)
    counts = (
        shared_p * shared_n,
        shared_p * (pairs_n - shared_n),
        (pairs_p - shared_p) * shared_n,
        (pairs_p - shared_p) * (pairs_n - shared_n),
    )
    apart = none / np.maximum(counts[-1], 1.0)
    covariance = sum(sums, np.zeros_like(both)) / (pairs_p * pairs_n) - apart
    # Units that share no case are independent; the estimate is 0 but for rounding.
    return total / (m * n), np.where((shared_p + shared_n) > 0, covariance, 0.0)


def _shares(hits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of 1 [u] among the cases [u, m] that each unit saw, and their unbiased covariances [u, u]."""
    saw, hit = np.isfinite(hits).astype(float), np.nan_to_num(hits)
    m, total = saw.sum(axis=1), hit.sum(axis=1)
    shared, pairs, both = saw @ saw.T, np.outer(m, m), hit @ hit.T
    apart = (np.outer(total, total) - both) / np.maximum(pairs - shared, 1.0)
    covariance = np.outer(total, total) / pairs - apart
    return total / m, np.where(shared > 0, covariance, 0.0)


# --- Obuchowski and Rockette --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ErrorCovariances:
    """Averages over units: the error variance, and covariances of one reader in two arms, of two readers in one arm,
    and of two readers in two arms."""

    error: float
    cov1: float
    cov2: float
    cov3: float

    @classmethod
    def of(cls, covariance: np.ndarray, arms: int, readers: int) -> ErrorCovariances:
        """The averages of [arms * readers, arms * readers]."""
        block = covariance.reshape(arms, readers, arms, readers)
        same_arm, same_reader = np.eye(arms, dtype=bool), np.eye(readers, dtype=bool)

        def mean(of_arms: np.ndarray, of_readers: np.ndarray) -> float:
            chosen = block[of_arms[:, None, :, None] & of_readers[None, :, None, :]]
            return float(chosen.mean()) if chosen.size else 0.0

        return cls(
            mean(same_arm, same_reader),
            mean(~same_arm, same_reader),
            mean(same_arm, ~same_reader),
            mean(~same_arm, ~same_reader),
        )


def compare(figures: Figures, alpha: float) -> Result:
    """The first arm less the second: estimate, interval, F and p of no difference, with Hillis' degrees of freedom.

    Raises:
        NotEstimable: No reader differs between the arms and no case does.
    """
    values = figures.values
    t, r = values.shape
    covariances = ErrorCovariances.of(figures.covariance, t, r)
    arm_means, reader_means = values.mean(axis=1), values.mean(axis=0)
    ms_t = r * float(np.sum((arm_means - values.mean()) ** 2)) / (t - 1)
    within = values - arm_means[:, None] - reader_means[None, :] + values.mean()
    ms_tr = float(np.sum(within**2)) / ((t - 1) * (r - 1))
    denominator = ms_tr + max(r * (covariances.cov2 - covariances.cov3), 0.0)
    if denominator <= 1e-15:
        raise NotEstimable("no variation between readers or cases")
    degrees = _degrees(denominator, ms_tr, (t - 1) * (r - 1))
    value, error = float(arm_means[0] - arm_means[1]), float(np.sqrt(2 * denominator / r))
    reach = float(stats.t.ppf(1 - alpha / 2, degrees)) * error
    return {
        "value": value,
        "low": value - reach,
        "high": value + reach,
        "p": float(stats.f.sf(ms_t / denominator, t - 1, degrees)),
        "error": error,
        "degrees": degrees,
        "f": ms_t / denominator,
        "readers": r,
        "covariances": {name: float(getattr(covariances, name)) for name in ("error", "cov1", "cov2", "cov3")},
    }


def mean_of_one(figures: Figures, alpha: float) -> Result:
    """The readers' mean figure in one arm, from that arm's data alone.

    Raises:
        NotEstimable: No variation.
    """
    values = figures.values[0]
    r = len(values)
    ms_r = float(values.var(ddof=1))
    total = ms_r + max(r * ErrorCovariances.of(figures.covariance, 1, r).cov2, 0.0)
    if total <= 1e-15:
        raise NotEstimable("no variation between readers or cases")
    degrees, value, error = _degrees(total, ms_r, r - 1), float(values.mean()), float(np.sqrt(total / r))
    reach = float(stats.t.ppf(1 - alpha / 2, degrees)) * error
    ends = {"low": max(value - reach, 0.0), "high": min(value + reach, 1.0)}
    return {"value": value, **ends, "error": error, "degrees": degrees, "readers": r}


def _degrees(total: float, mean_square: float, degrees: int) -> float:
    """Hillis' degrees of freedom of a mean square plus a covariance that is taken as known; many where it is 0."""
    return float(min(total**2 / (mean_square**2 / degrees), 1e6)) if mean_square > 0 else 1e6
