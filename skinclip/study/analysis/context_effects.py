"""Effects beside the arm: part of the session, carry-over from the arm before, site and experience of the readers.

All are described and none is tested. A period effect is learning or fatigue, and the primary model has it already; a
carry-over effect would bias the arms' comparison, which is why each arm follows each other equally often.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from skinclip.study.analysis.analysis_plan import AnalysisPlan
from skinclip.study.analysis.arm_model import SECOND, arm_model
from skinclip.study.analysis.mixed import attempt, described
from skinclip.study.analysis.tables import SESSION, StudyTables, primary_cases
from skinclip.study.errors import NotEstimable
from skinclip.study.protocol.arms import in_registry_order
from skinclip.study.protocol.model import Contrast

Result = dict[str, Any]
_FIRST = "first part"
_LEAST_READERS = 3  # of a group, below which no figure of it is given
_EXPERIENCE = {"lt1": "under 1 year", "1_3": "1 to 3 years", "4_10": "4 to 10 years", "gt10": "over 10 years"}


def context_effects(tables: StudyTables, plan: AnalysisPlan) -> Result:
    """`period`, `session` and `carry_over` effects on the primary endpoint, the primary contrast without carry-over
    (`adjusted`), and within each `site` and each group of `experience`."""
    cases = primary_cases(tables.cases)
    readers = tables.readers.set_index("reader")
    years = cases["reader"].map(readers["years"]).map(lambda key: _EXPERIENCE.get(key, key))
    site = cases["site"].where(cases["site"].notna(), cases["reader"].map(readers["site"]))
    return {
        "period": _period(cases, plan),
        "session": _second_session(cases, plan),
        **_carry_over(cases, plan),
        "site": _within(cases, site, plan),
        "experience": _within(cases, years, plan),
    }


def _period(cases: pd.DataFrame, plan: AnalysisPlan) -> list[Result]:
    """Each block of the session less the first, in the primary endpoint."""
    blocks = sorted(int(block) for block in cases["block"].dropna().unique())
    endpoint = plan.primary_endpoint
    try:
        model = arm_model(cases, endpoint.of(cases), deserved=endpoint.deserved)
    except NotEstimable:
        return []
    rows = [{"block": b, **attempt(model.effect, f"block {b}", plan.alpha)} for b in blocks[1:]]
    return [described(row) for row in rows]


def _second_session(cases: pd.DataFrame, plan: AnalysisPlan) -> list[Result]:
    """The second session less the first, in the primary endpoint; nothing where there is one."""
    if SESSION not in cases:
        return []
    endpoint = plan.primary_endpoint
    try:
        model = arm_model(cases, endpoint.of(cases), deserved=endpoint.deserved)
    except NotEstimable:
        return []
    return [described(attempt(model.effect, SECOND, plan.alpha))]


def _carry_over(cases: pd.DataFrame, plan: AnalysisPlan) -> Result:
    """Effect of the arm shown in the part before, less that of the registry's first arm there, and the primary contrast
    with these effects in the model. The session's first part, which has none before, is its own period."""
    before = previous_arm(cases)
    first, *arms = in_registry_order(before[before != _FIRST]) or [""]
    endpoint = plan.primary_endpoint
    indicators = {f"after {arm}": (before == arm).to_numpy(dtype=float) for arm in arms}
    try:
        model = arm_model(cases, endpoint.of(cases), deserved=endpoint.deserved, further=indicators)
    except NotEstimable as reason:
        return {"carry_over": [], "adjusted": {"not_estimable": str(reason)}}
    rows = [{"after": arm, "less": first, **attempt(model.effect, f"after {arm}", plan.alpha)} for arm in arms]
    if not arms or not all("value" in row for row in rows):
        few = "too few sequences of arms to tell an arm from the one before"
        return {"carry_over": [], "adjusted": {"not_estimable": few}}
    known = [described(row) for row in rows]
    contrast = Contrast(plan.primary.arm, plan.primary.reference)
    return {"carry_over": known, "adjusted": described(attempt(model.difference, contrast, plan.alpha))}


def previous_arm(cases: pd.DataFrame) -> pd.Series:
    """[n] the arm of the reader's block before the row's, `first part` in the first of a session."""
    session = cases[SESSION] if SESSION in cases else pd.Series(1, index=cases.index, name=SESSION)
    of_block = cases.assign(**{SESSION: session}).dropna(subset="block")
    of_block = of_block.groupby(["reader", SESSION, "block"])["arm"].first()
    keys = pd.MultiIndex.from_arrays([cases["reader"], session, cases["block"] - 1], names=of_block.index.names)
    previous = pd.Series(of_block.reindex(keys).to_numpy(dtype=object), index=cases.index)
    return previous.where(previous.notna(), _FIRST).astype(str)


def _within(cases: pd.DataFrame, group: pd.Series, plan: AnalysisPlan) -> list[Result]:
    """The primary contrast within each group of readers."""
    endpoint, contrast = plan.primary_endpoint, Contrast(plan.primary.arm, plan.primary.reference)
    names = [str(name) for name in pd.unique(group.dropna()) if str(name).strip()]
    if len(names) < 2:
        return []
    rows = []
    for name in sorted(names, key=_place):
        here = cases[(group == name).to_numpy(dtype=bool)]
        readers = int(here["reader"].nunique())
        row: Result = {"not_estimable": f"fewer than {_LEAST_READERS} readers"}
        if readers >= _LEAST_READERS:
            row = attempt(_difference, here, endpoint.of(here), endpoint.deserved, contrast, plan.alpha)
        rows.append({"group": name, "readers": readers, **described(row)})
    return rows


def _place(name: str) -> tuple[int, str]:
    order = list(_EXPERIENCE.values())
    return (order.index(name), name) if name in order else (len(order), name)


def _difference(cases: pd.DataFrame, outcome: np.ndarray, deserved: bool, contrast: Contrast, alpha: float) -> Result:
    return arm_model(cases, outcome, deserved=deserved).difference(contrast, alpha)
