"""The analysis of two sessions against lme4 1.1-31 and lmerTest 3.1-3, run by the report's own R script."""

from __future__ import annotations

from dataclasses import replace

import pytest

from skinclip.study.analysis import statistics
from skinclip.study.analysis.analysis_plan import DEFAULT_PLAN
from skinclip.study.analysis.context_effects import context_effects, previous_arm
from skinclip.study.analysis.tables import SESSION, first_session, mrmc_rows, primary_cases
from skinclip.study.simulate import Simulation, Spread, simulate

PLAN = replace(DEFAULT_PLAN, washout_days=28)
TABLES = simulate(
    Simulation(
        readers=8, cases=24, wrong_share=8 / 24, repeat_share=0.1, sessions=2, session_shift=0.3,
        spread=Spread(reader_case=0.6, residual=0.8),
    ),
    1,
)  # fmt: skip


def test_the_primary_analysis_equals_lme4() -> None:
    found = statistics.primary_result(primary_cases(TABLES.cases), PLAN)
    assert (found["value"], found["error"]) == pytest.approx((0.2951512, 0.262095), rel=1e-5)
    assert found["degrees"] == pytest.approx(38.75, rel=0.05)  # lmerTest takes the observed information
    lme4 = {
        "reader": 0.23473, "case": 0.30948, "reader x arm": 0.11518, "case x arm": 0.18820,
        "reader x case": 0.43445, "residual": 0.56175,
    }  # fmt: skip
    assert found["variances"] == pytest.approx(lme4, rel=2e-4)


def test_sessions_are_told_apart_where_they_matter() -> None:
    cases = primary_cases(TABLES.cases)
    assert len(first_session(cases)) == len(cases) / 2 == 8 * 24
    assert cases.groupby(["reader", "case"])["arm"].nunique().eq(2).all()
    unaided = mrmc_rows(TABLES).query("modality == 'unaided'")
    assert not unaided.duplicated(["reader", "case"]).any()
    starts = cases[(cases["block"] == 1)]
    assert (previous_arm(cases)[starts.index] == "first part").all(), "in each session"
    (second,) = context_effects(TABLES, PLAN)["session"]
    assert "p" not in second and second["low"] < 0.3 < second["high"]
    assert set(cases[SESSION]) == {1, 2}
