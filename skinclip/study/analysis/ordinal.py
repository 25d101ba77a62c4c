"""Ratings taken as ordered categories: a cumulative-logit model, the check on treating their points as lengths.

Generalised estimating equations of statsmodels (`OrdinalGEE`; Heagerty and Zeger 1996) by reader: the odds of a higher
rating, by arm with a shift for each stratum. Errors are those of Mancl and DeRouen (2001) with Student's t on readers
less one: the usual sandwich is too narrow where readers are few. Cases are fixed here, not a sample as in the mixed
model.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.genmod.generalized_estimating_equations import OrdinalGEE
from statsmodels.tools.sm_exceptions import ModelWarning

from skinclip.study.analysis.analysis_plan import TRUST, AnalysisPlan, Endpoint
from skinclip.study.analysis.mixed import attempt
from skinclip.study.analysis.tables import AID_ITEMS
from skinclip.study.errors import NotEstimable
from skinclip.study.protocol.model import Contrast

Result = dict[str, Any]
_MOST_CATEGORIES = 11


def odds_of_higher(cases: pd.DataFrame, plan: AnalysisPlan) -> list[Result]:
    """Odds ratio of a higher rating in the primary contrast: the primary endpoint where it is a rating, else trust,
    then the ratings of the explanation."""
    primary = plan.primary_endpoint
    first = TRUST if primary.rate or primary.deserved or primary.minus else primary
    chosen = {first.key: first, **{key: plan.rated[key] for key in AID_ITEMS}}
    contrast = Contrast(plan.primary.arm, plan.primary.reference)
    return [
        {
            "endpoint": key,
            "label": endpoint.label,
            "contrast": contrast.text,
            **attempt(odds_ratio, cases, endpoint, contrast, plan.alpha),
        }
        for key, endpoint in chosen.items()
    ]


def odds_ratio(cases: pd.DataFrame, endpoint: Endpoint, contrast: Contrast, alpha: float) -> Result:
    """Odds of a higher rating with the arm over those with its reference: value, low, high, p, readers.

    Raises:
        NotEstimable: Fewer than three readers, no answers in one of the arms, fewer than two ratings in use or too many
            to be categories, or equations that do not converge.
    """
    outcome = endpoint.of(cases)
    known = np.isfinite(outcome)
    rows, y = cases[known], outcome[known]
    readers = rows["reader"].nunique()
    _check(rows, y, contrast, readers)
    design = _design(rows, contrast)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ModelWarning)
            warnings.simplefilter("ignore", RuntimeWarning)
            found = OrdinalGEE(y, design.to_numpy(), groups=rows["reader"].to_numpy(dtype=str)).fit(
                cov_type="bias_reduced"
            )
            place = len(found.params) - design.shape[1]
            value, error = float(np.asarray(found.params)[place]), float(np.asarray(found.bse)[place])
    except (np.linalg.LinAlgError, ValueError) as reason:
        raise NotEstimable("the equations have no solution on these answers") from reason
    if not (np.isfinite(value) and np.isfinite(error) and 0 < error < 100):
        raise NotEstimable("the equations do not converge on these answers")
    reach = float(stats.t.ppf(1 - alpha / 2, readers - 1)) * error
    ends = {"value": value, "low": value - reach, "high": value + reach}
    p = float(2 * stats.t.sf(abs(value) / error, readers - 1))
    return {**{name: float(np.exp(end)) for name, end in ends.items()}, "p": p, "readers": readers}


def _check(rows: pd.DataFrame, y: np.ndarray, contrast: Contrast, readers: int) -> None:
    if readers < 3:
        raise NotEstimable("answers of fewer than three readers")
    for arm in (contrast.arm, contrast.reference):
        if not (rows["arm"] == arm).any():
            raise NotEstimable(f"no answers in the arm {arm}")
    if not 2 <= len(np.unique(y)) <= _MOST_CATEGORIES:
        raise NotEstimable("not a rating of a few points, or all answers are equal")


def _design(rows: pd.DataFrame, contrast: Contrast) -> pd.DataFrame:
    """Indicators of the arms against the reference, the contrast's arm first, and of the strata."""
    others = sorted(set(rows["arm"]) - {contrast.arm, contrast.reference})
    columns = {arm: (rows["arm"] == arm).astype(float) for arm in (contrast.arm, *others)}
    for stratum in sorted(rows["stratum"].unique())[1:]:
        columns[f"stratum {stratum}"] = (rows["stratum"] == stratum).astype(float)
    return pd.DataFrame(columns)
