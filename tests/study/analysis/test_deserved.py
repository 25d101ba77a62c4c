"""Trust that is deserved, text and pointing as two by two, and the order of tests."""

from __future__ import annotations

import dataclasses
import html
from typing import Any

import numpy as np
import pytest

from skinclip.reporting.html_page import to_html
from skinclip.study.analysis import deserved, factorial, gatekeeping
from skinclip.study.analysis.analysis_plan import ENDPOINTS
from skinclip.study.analysis.analysis_report import document
from skinclip.study.analysis.arm_model import arm_model
from skinclip.study.analysis.statistics import analyse
from skinclip.study.analysis.tables import primary_cases
from skinclip.study.protocol.protocol import Protocol
from tests.study import tiny
from tests.study.studies import PLAN, study

ARMS = ["none", "grad_cam", "grad_cam_text", "regions"]


def test_deserved_trust_is_trust_in_right_less_trust_in_wrong_answers_by_arm() -> None:
    """A point more where the AI is right and a point less where it errs, with regions alone: 2 points more deserved."""
    tables = study(readers=12, cases=40, missing=0.0, wrong_trust=0.0).cases
    cases = primary_cases(tables).copy()
    shift = np.where(cases["stratum"] == "right", 1.0, -1.0) * (cases["arm"] == "regions")
    before = deserved.by_correctness(cases, ARMS, PLAN)[0]
    after = deserved.by_correctness(cases.assign(trust=cases["trust"] + shift), ARMS, PLAN)[0]
    assert after["endpoint"] == "trust"
    gain = after["interaction"]["value"] - before["interaction"]["value"]
    assert gain == pytest.approx(2.0, abs=0.05)
    row = next(row for row in after["by_arm"] if row["arm"] == "regions")
    assert row["difference"]["value"] == pytest.approx(row["right"]["value"] - row["wrong"]["value"])
    assert "p" not in after["interaction"]


def test_following_and_accuracy_are_by_correctness_too() -> None:
    cases = primary_cases(study(readers=10, cases=60).cases)
    found = {row["endpoint"]: row for row in deserved.by_correctness(cases, ARMS, PLAN)}
    assert set(found) == {"trust", "following", "accuracy"}
    for row in found["following"]["by_arm"]:
        assert row["right"]["value"] > row["wrong"]["value"]  # the simulated readers follow right answers more


@pytest.mark.parametrize("endpoint", ["accuracy", "deserved_trust", "deserved_following"])
def test_a_protocol_may_choose_it_as_primary(endpoint: str) -> None:
    values = tiny.protocol()
    plan = {**values["plan"], "primary": {**values["plan"]["primary"], "endpoint": endpoint, "smallest_effect": 0.1}}
    assert Protocol.from_dict({**values, "plan": plan}).plan.primary.endpoint == endpoint
    chosen = dataclasses.replace(PLAN, endpoint=endpoint, secondary=("act",), smallest_effect=0.1)
    found = analyse(study(readers=8, cases=40), chosen)
    assert found["primary"]["endpoint"] == endpoint and found["primary"]["low"] < found["primary"]["high"]
    assert found["flow"]["completers"] == 8
    assert ENDPOINTS[endpoint].label in html.unescape(to_html(document(found)))


def test_a_study_without_errors_has_no_deserved_trust() -> None:
    cases = primary_cases(study(wrong_share=0.0).cases)
    found = deserved.by_correctness(cases, ARMS, PLAN)[0]
    assert "AI is right" in found["interaction"]["not_estimable"]


def test_readers_who_differ_in_deserved_trust_widen_its_interval() -> None:
    cases = primary_cases(study(readers=10, cases=60, missing=0.0).cases)
    rng = np.random.default_rng(0)
    own = dict(zip(sorted(cases["reader"].unique()), rng.normal(0, 2.0, 10), strict=True))
    split = np.where(cases["stratum"] == "right", 0.5, -0.5) * cases["reader"].map(own)
    trust = cases["trust"].to_numpy(dtype=float)
    narrow = arm_model(cases, trust, deserved=True).mean("regions", 0.05)
    wide = arm_model(cases, trust + split.to_numpy(), deserved=True).mean("regions", 0.05)
    assert wide["error"] > 1.5 * narrow["error"]


# --- two by two ---------------------------------------------------------------------------------------------------


def test_text_and_pointing_equal_the_combinations_of_the_arms_means() -> None:
    cases = primary_cases(study(readers=8, cases=40).cases)
    found = {row["effect"]: row["value"] for row in factorial.two_by_two(cases, ARMS, PLAN)}
    model = arm_model(cases, cases["trust"].to_numpy(dtype=float))
    mean = {arm: model.mean(arm, 0.05)["value"] for arm in ARMS}
    text = (mean["grad_cam_text"] + mean["regions"] - mean["none"] - mean["grad_cam"]) / 2
    pointing = (mean["grad_cam"] + mean["regions"] - mean["none"] - mean["grad_cam_text"]) / 2
    assert found["text"] == pytest.approx(text) and found["pointing"] == pytest.approx(pointing)
    primary = mean["regions"] - mean["grad_cam"]
    assert found["text_step"] + found["pointing_step"] == pytest.approx(primary)


def test_two_by_two_needs_all_four_arms() -> None:
    cases = primary_cases(study().cases)
    assert factorial.two_by_two(cases, ARMS[1:], PLAN) == []


# --- the order of tests -------------------------------------------------------------------------------------------

FAMILY = [{"label": "Act", "contrast": "a - b", "p_holm": 0.01}, {"label": "Time", "contrast": "a - b", "p_holm": 0.2}]


def gates(p: float, decision: str) -> list[dict[str, Any]]:
    return gatekeeping.steps({"p": p}, {"decision": decision}, FAMILY, PLAN)


def test_each_step_is_tested_only_where_all_before_it_succeeded() -> None:
    opened = gates(0.01, "non-inferior")
    assert [(row["step"], row["reached"], row["passed"]) for row in opened] == [
        ("primary", True, True), ("safety", True, True), ("secondary", True, True),
    ]  # fmt: skip
    assert opened[-1]["confirmed"] == ["Act (a - b)"]
    stopped = gates(0.01, "not shown")
    assert [row["passed"] for row in stopped] == [True, False, False]
    assert not stopped[-1]["reached"] and stopped[-1]["confirmed"] == []
    assert [row["reached"] for row in gates(0.2, "non-inferior")] == [True, False, False]


def test_a_plan_without_gates_has_none() -> None:
    plan = dataclasses.replace(PLAN, gatekeeping=())
    found = analyse(study(), plan)
    assert found["gatekeeping"] == [] and "Order of tests" not in to_html(document(found))
    assert "Order of tests" in to_html(document(analyse(study(), PLAN)))


@pytest.mark.parametrize("order", [["safety", "primary"], ["safety"], ["primary", "primary"], ["primary", "else"]])
def test_gates_in_another_order_are_refused(order: list[str]) -> None:
    values = tiny.protocol()
    with pytest.raises(ValueError, match=r"plan.gatekeeping"):
        Protocol.from_dict({**values, "plan": {**values["plan"], "gatekeeping": order}})


def test_a_plan_without_gates_keeps_its_hash() -> None:
    values = tiny.protocol()
    bare = Protocol.from_dict(values)
    assert "gatekeeping" not in bare.to_dict()["plan"]
    gated = Protocol.from_dict({**values, "plan": {**values["plan"], "gatekeeping": ["primary", "safety"]}})
    assert gated.plan_sha256 != bare.plan_sha256
    assert Protocol.from_dict(gated.to_dict()).plan_sha256 == gated.plan_sha256
