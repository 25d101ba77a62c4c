"""Gatekeeping: the plan's steps in their order, each a confirmation only where all before it succeeded.

A fixed sequence keeps the chance of any false claim at alpha without a correction (Maurer, Hothorn and Lehmacher 1995):
first the primary endpoint, then non-inferiority in safety, then the secondary family under Holm's correction. Figures
are reported whatever the gates say; what lies behind a closed gate is description.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skinclip.study.analysis.analysis_plan import AnalysisPlan

Result = dict[str, Any]


def steps(primary: Result, safety: Result, secondary: Sequence[Result], plan: AnalysisPlan) -> list[Result]:
    """Each step of the plan's order: whether it was `reached` and whether it `passed`; empty without an order.

    The secondary family passes where any of it has a Holm's p below alpha; `confirmed` names those.
    """
    found = {
        "primary": primary.get("p", 1.0) < plan.alpha,
        "safety": safety.get("decision") == "non-inferior",
        "secondary": bool(_significant(secondary, plan)),
    }
    rows, reached = [], True
    for step in plan.gatekeeping:
        row: Result = {"step": step, "reached": reached, "passed": reached and found[step]}
        if step == "secondary":
            row["confirmed"] = _significant(secondary, plan) if reached else []
        rows.append(row)
        reached = reached and found[step]
    return rows


def _significant(secondary: Sequence[Result], plan: AnalysisPlan) -> list[str]:
    return [f"{row['label']} ({row['contrast']})" for row in secondary if row.get("p_holm", 1.0) < plan.alpha]
