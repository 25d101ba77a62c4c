"""The secondary endpoints: each by its own test, and those that the plan names in one family under Holm (1979).

    answered case by case    the mixed model (`arm_model`), of yes/no, rates and accuracy as 0 and 1
    scale after a block      Wilcoxon's signed-rank test of readers' scores
    preference               exact sign-flip test over readers; Bradley-Terry strengths, jackknife over readers

What the plan does not name is described with its interval and has no p. What it names and the data cannot answer stays
in the list with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.multitest import multipletests

from skinclip.study.analysis import preferences, subjective_outcomes
from skinclip.study.analysis.analysis_plan import CONTRASTS, DERIVED, AnalysisPlan, Contrast, Endpoint
from skinclip.study.analysis.arm_model import arm_model
from skinclip.study.analysis.mixed import attempt
from skinclip.study.errors import NotEstimable

Result = dict[str, Any]
# as `subjective_outcomes` names them
_SCALES = {"satisfaction": "ess", "trust_scale": "trust", "distrust_scale": "distrust"}
MODEL, RANKS, STRENGTHS = "mixed model", "Wilcoxon, readers", "sign flips, readers"
_TESTED = ("p", "p_holm")


@dataclass(frozen=True)
class Answers:
    """Data of the secondary endpoints: rows of the main analysis, scales, and pairs."""

    cases: pd.DataFrame
    blocks: pd.DataFrame
    preferences: pd.DataFrame


def family(answers: Answers, plan: AnalysisPlan) -> list[Result]:
    """The endpoints and contrasts that the plan names, in its order, with Holm's p over all that could be tested.

    `standardised` is the difference over the outcome's standard deviation, for one axis of unlike units.
    """
    rows = [endpoint_row(answers, key, plan) for key in plan.secondary]
    return with_holm([*rows, *contrast_rows(answers.cases, plan.secondary_contrasts, plan)])


def described(answers: Answers, plan: AnalysisPlan) -> list[Result]:
    """Every other endpoint, and the usual contrasts of the primary one, where there are data; without a p."""
    keys = [key for key in (*plan.rated, *DERIVED) if key not in (plan.endpoint, *plan.secondary)]
    named = [{c.arm, c.reference} for c in (plan.primary, *plan.secondary_contrasts)]
    contrasts = tuple(c for c in CONTRASTS if {c.arm, c.reference} not in named)
    rows = [*(endpoint_row(answers, key, plan) for key in keys), *contrast_rows(answers.cases, contrasts, plan)]
    return [{k: v for k, v in row.items() if k not in _TESTED} for row in rows if "value" in row]


def endpoint_row(answers: Answers, key: str, plan: AnalysisPlan) -> Result:
    """One endpoint in the primary contrast."""
    pair = (plan.primary.arm, plan.primary.reference)
    if key in plan.rated:
        return _modelled(answers.cases, plan.rated[key], plan.primary, plan)
    if key in _SCALES:
        test, scale = RANKS, _SCALES[key]
        result = attempt(subjective_outcomes.scale_difference, answers.blocks, scale, *pair, plan.alpha)
    else:
        test = STRENGTHS
        result = attempt(preferences.preferred, answers.preferences, *pair, plan.seed, plan.alpha)
    label, unit = _words(key, plan)
    head = {"endpoint": key, "label": label, "unit": unit, "contrast": plan.primary.text, "test": test}
    return {**head, **result}


def _words(key: str, plan: AnalysisPlan) -> tuple[str, str]:
    """Label and unit of an endpoint."""
    return (plan.rated[key].label, plan.rated[key].unit) if key in plan.rated else DERIVED[key]


def contrast_rows(cases: pd.DataFrame, contrasts: tuple[Contrast, ...], plan: AnalysisPlan) -> list[Result]:
    """Contrasts of the primary endpoint, by one model."""
    endpoint = plan.primary_endpoint
    outcome = endpoint.of(cases)
    try:
        model = arm_model(cases, outcome, deserved=endpoint.deserved)
    except NotEstimable as reason:
        return [{**_head(endpoint, c), "not_estimable": str(reason)} for c in contrasts]
    differences = [(c, attempt(model.difference, c, plan.alpha)) for c in contrasts]
    return [{**_head(endpoint, c), **_finished(row, outcome, endpoint.log)} for c, row in differences]


def _modelled(cases: pd.DataFrame, endpoint: Endpoint, contrast: Contrast, plan: AnalysisPlan) -> Result:
    outcome = endpoint.of(cases)
    difference = attempt(lambda: arm_model(cases, outcome, deserved=endpoint.deserved).difference(contrast, plan.alpha))
    return {**_head(endpoint, contrast), **_finished(difference, outcome, endpoint.log)}


def _head(endpoint: Endpoint, contrast: Contrast) -> Result:
    words = {"endpoint": endpoint.key, "label": endpoint.label, "unit": endpoint.unit, "contrast": contrast.text}
    return {**words, "test": MODEL, "ratio": endpoint.log}


def _finished(difference: Result, outcome: np.ndarray, log: bool) -> Result:
    """Adds the standardised difference; turns differences of logarithms into ratios."""
    if "not_estimable" in difference:
        return difference
    spread = float(np.nanstd(outcome, ddof=1))
    ends = ("value", "low", "high")
    difference["standardised"] = {end: difference[end] / spread for end in ends} if spread > 0 else None
    return {**difference, **{end: float(np.exp(difference[end])) for end in ends}} if log else difference


def with_holm(rows: list[Result]) -> list[Result]:
    """Adds `p_holm` to the rows that have a p (Holm 1979).

    The family keeps the size that the plan gave it: an endpoint that could not be tested counts as one that found
    nothing, or missing data would make the others look surer.
    """
    if rows:
        adjusted = multipletests([row.get("p", 1.0) for row in rows], method="holm")[1]
        for row, p in zip(rows, adjusted, strict=True):
            if row.get("p") is not None:
                row["p_holm"] = float(p)
    return rows
