"""Missing answers that may not be missing by chance: how different must they be to change the conclusion?

The primary model takes missing answers as missing at random. A tipping-point analysis (delta adjustment; Carpenter and
Kenward 2013) asks instead by how much the missing answers of one arm would have to be lower, or higher, than the
answers given there before the primary result were no longer what it is. Missing are ratings that a reader left out
and, of readers who stopped, those of the cases never seen. For safety every missing answer is taken at its worst.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from skinclip.study.analysis.analysis_plan import AnalysisPlan
from skinclip.study.analysis.diagnoses import Diagnoses
from skinclip.study.analysis.mixed import attempt
from skinclip.study.errors import NotEstimable

Result = dict[str, Any]


def tipping_point(cases: pd.DataFrame, primary: Result, safety: Result, plan: AnalysisPlan) -> Result:
    """Shares of answers `missing` by arm, the tipping point of the `primary` result, and `safety` at its worst.

    Args:
        cases: rows of the main analysis.
        primary, safety: their results.
    """
    return {
        "missing": [{"arm": arm, "share": share} for arm, share in _missing(cases, plan).items()],
        "primary": attempt(_primary, cases, primary, plan),
        "safety": attempt(_safety, cases, safety, plan),
    }


def _missing(cases: pd.DataFrame, plan: AnalysisPlan, among: np.ndarray | None = None) -> dict[str, float]:
    """Share of the primary endpoint's answers (or of `among` [n]) missing in each arm, of those that all readers were
    to give: left out, and of readers who stopped, never seen."""
    given = plan.primary_endpoint.was_answered(cases).to_numpy(dtype=bool) if among is None else among
    rows = cases.groupby(["reader", "arm"]).size().unstack(fill_value=0)
    unseen = _unseen(rows).sum()
    answered = cases["arm"][given].value_counts()
    shares = {}
    for arm in rows.columns:
        whole = float(rows[arm].sum() + unseen[arm])
        shares[str(arm)] = max(0.0, 1.0 - float(answered.get(arm, 0)) / whole) if whole else 0.0
    return shares


def _unseen(rows: pd.DataFrame) -> pd.DataFrame:
    """Cases that each reader (rows) never saw in each arm (columns), from the cases that each saw.

    As many as are missing to the most that any reader saw, over the arms in which the reader is behind those who saw
    all.
    """
    total = rows.sum(axis=1)
    usual = rows[total == total.max()].mean()
    behind = (usual - rows).clip(lower=0.0)
    share = behind.div(behind.sum(axis=1).replace(0.0, np.nan), axis=0).fillna(0.0)
    return share.mul(total.max() - total, axis=0)


def _primary(cases: pd.DataFrame, primary: Result, plan: AnalysisPlan) -> Result:
    """By how many points missing answers must differ, in the arm alone and in both arms against each other.

    A contrast of means moves by the missing share times the difference; its standard error is held.
    """
    if "value" not in primary:
        raise NotEstimable("the primary result is not estimable")
    shares = _missing(cases, plan)
    of_arm, of_reference = (shares.get(arm, 0.0) for arm in (plan.primary.arm, plan.primary.reference))
    significant = primary["low"] > 0 or primary["high"] < 0
    # A significant difference is lost when its nearer end reaches 0; one that is not is gained when the same end does.
    distance = -primary["low"] if primary["value"] > 0 else -primary["high"]
    return {
        "significant": bool(significant),
        "arm_alone": distance / of_arm if of_arm > 0 else None,
        "both": distance / (of_arm + of_reference) if of_arm + of_reference > 0 else None,
        "limit": _range(cases, plan),
    }


def _range(cases: pd.DataFrame, plan: AnalysisPlan) -> float | None:
    """Span of the answers given: a tipping point beyond it cannot be reached."""
    outcome = plan.primary_endpoint.of(cases)
    return float(np.nanmax(outcome) - np.nanmin(outcome)) if np.isfinite(outcome).any() else None


def _safety(cases: pd.DataFrame, safety: Result, plan: AnalysisPlan) -> Result:
    """The difference in switches to wrong if each missing answer had been one in the arm and none in the reference."""
    if "value" not in safety:
        raise NotEstimable("the safety result is not estimable")
    errs = cases[(cases["stratum"] == "wrong").to_numpy()]
    diagnoses = Diagnoses.of(errs)
    hits, among = diagnoses.rate("to_wrong")
    shares = _missing(errs, plan, among)
    arm, reference = plan.safety.arm, plan.safety.reference
    rates = {one: _rate(hits, among & (diagnoses.arm == one)) for one in (arm, reference)}
    shift = shares.get(arm, 0.0) * (1 - rates[arm]) + shares.get(reference, 0.0) * rates[reference]
    worst = {end: safety[end] + shift for end in ("value", "low", "high")}
    decision = "non-inferior" if worst["high"] < safety["margin"] else "not shown"
    return {**worst, "margin": safety["margin"], "decision": decision}


def _rate(hits: np.ndarray, here: np.ndarray) -> float:
    return float(hits[here].mean()) if here.any() else 0.0
