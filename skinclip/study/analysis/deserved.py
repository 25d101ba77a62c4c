"""Reliance that is deserved: trust, following and accuracy by arm and by whether the AI is right.

An aid that raises trust in right answers alone helps; one that raises it in wrong ones as much only persuades. So each
outcome has a mean for every arm where the AI is right and where it errs, their difference within the arm, and the
difference of these differences in the primary contrast: the interaction of arm and correctness.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from skinclip.study.analysis.analysis_plan import ENDPOINTS, AnalysisPlan
from skinclip.study.analysis.arm_model import arm_model
from skinclip.study.analysis.mixed import attempt, described
from skinclip.study.errors import NotEstimable
from skinclip.study.protocol.model import Contrast

Result = dict[str, Any]
OUTCOMES = ("trust", "following", "accuracy")
_STRATA = ("right", "wrong")


def by_correctness(cases: pd.DataFrame, arms: Sequence[str], plan: AnalysisPlan) -> list[Result]:
    """Each of `OUTCOMES`: `by_arm` with means `right` and `wrong` and `difference`, and the `interaction`."""
    return [{"endpoint": key, "label": ENDPOINTS[key].label, **_outcome(cases, arms, key, plan)} for key in OUTCOMES]


def _outcome(cases: pd.DataFrame, arms: Sequence[str], key: str, plan: AnalysisPlan) -> Result:
    endpoint, contrast = ENDPOINTS[key], Contrast(plan.primary.arm, plan.primary.reference)
    try:
        model = arm_model(cases, endpoint.of(cases), deserved=True)
    except NotEstimable as reason:
        return {"by_arm": [], "interaction": {"contrast": contrast.text, "not_estimable": str(reason)}}
    rows = []
    for arm in arms:
        means = {name: described(attempt(model.cell, arm, name, plan.alpha)) for name in _STRATA}
        rows.append({"arm": arm, **means, "difference": described(attempt(model.mean, arm, plan.alpha))})
    interaction = described(attempt(model.difference, contrast, plan.alpha))
    return {"by_arm": rows, "interaction": {"contrast": contrast.text, **interaction}}
