"""The family under Holm is what the plan names, no more and no less, each by its own test."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from skinclip.reporting.html_page import to_html
from skinclip.study.analysis import analysis_plan, secondary
from skinclip.study.analysis.analysis_plan import DERIVED, ENDPOINTS, Contrast
from skinclip.study.analysis.analysis_report import document
from skinclip.study.analysis.statistics import analyse
from skinclip.study.analysis.tables import StudyTables
from skinclip.study.protocol.protocol import Protocol
from tests.study import tiny
from tests.study.studies import PLAN, study

TESTS = {
    **dict.fromkeys(("correct", "grounded", "complete", "harmful", "confidence", "act", "seconds"), secondary.MODEL),
    **dict.fromkeys(("deserved_trust", "balanced_accuracy", "switch_to_right"), secondary.MODEL),
    **dict.fromkeys(("satisfaction", "trust_scale", "distrust_scale"), secondary.RANKS),
    "preference": secondary.STRENGTHS,
}


@pytest.fixture(scope="module")
def analysis() -> dict[str, Any]:
    return analyse(study(), PLAN)


def named(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["endpoint"], row["contrast"]) for row in rows]


def test_holm_equals_hand_computed() -> None:
    rows = [{"p": 0.01}, {"p": 0.04}, {"p": 0.03}]
    adjusted = [row.get("p_holm") for row in secondary.with_holm(rows)]
    assert adjusted == [pytest.approx(0.03), pytest.approx(0.06), pytest.approx(0.06)]


def test_the_family_does_not_shrink_to_what_could_be_tested() -> None:
    rows = [{"p": 0.01}, {"p": 0.04}, {"p": 0.03}, {"not_estimable": "none"}]
    adjusted = [row.get("p_holm") for row in secondary.with_holm(rows)]
    assert adjusted == [pytest.approx(0.04), pytest.approx(0.09), pytest.approx(0.09), None]


def test_every_endpoint_of_the_plan_is_tested_by_its_own_test_in_one_family(analysis: dict[str, Any]) -> None:
    rows = analysis["secondary"]
    assert named(rows) == [
        *((key, "regions - grad_cam") for key in PLAN.secondary),
        *(("trust", c.text) for c in PLAN.secondary_contrasts),
    ]
    assert {row["endpoint"]: row["test"] for row in rows} == {**TESTS, "trust": secondary.MODEL}
    assert set(PLAN.secondary) == {*ENDPOINTS, *DERIVED} - {"trust", "accuracy", "following", "deserved_following"}
    smallest = min(rows, key=lambda row: row["p"])
    assert smallest["p_holm"] == pytest.approx(min(1.0, len(rows) * smallest["p"]))
    assert all(row["p"] <= row["p_holm"] <= 1 for row in rows)


def test_what_the_plan_does_not_name_is_described_and_not_tested(analysis: dict[str, Any]) -> None:
    contrast = Contrast("regions", "none")
    plan = dataclasses.replace(PLAN, secondary=("act", "satisfaction"), secondary_contrasts=(contrast,))
    found = analyse(study(), plan)
    family, apart = found["secondary"], found["described"]
    assert named(family) == [
        ("act", "regions - grad_cam"),
        ("satisfaction", "regions - grad_cam"),
        ("trust", "regions - none"),
    ]
    assert family[0]["p_holm"] >= family[0]["p"]
    others = {(key, "regions - grad_cam") for key in ("accuracy", "following", "deserved_following")}
    assert {*named(family), *named(apart)} == {*named(analysis["secondary"]), *others}
    assert not any({"p", "p_holm"} & row.keys() for row in apart)
    same = {(row["endpoint"], row["contrast"]): row["value"] for row in analysis["secondary"]}
    assert all(row["value"] == same.get((row["endpoint"], row["contrast"]), row["value"]) for row in (*family, *apart))
    assert "p" not in found["scales"][0]["difference"] and "p" not in found["preferences"]["side_a"]


def test_an_endpoint_without_data_is_listed_with_its_reason() -> None:
    tables = study()
    bare = dataclasses.replace(tables, blocks=tables.blocks[:0], preferences=tables.preferences[:0])
    found = analyse(bare.with_cases(bare.cases.assign(harmful=np.nan)), PLAN)
    reasons = {row["endpoint"]: row["not_estimable"] for row in found["secondary"] if "not_estimable" in row}
    assert set(reasons) == {"harmful", "satisfaction", "trust_scale", "distrust_scale", "preference"}
    assert reasons["preference"] == "no preferences were answered"
    text = to_html(document(found))
    assert "One family: the 18 secondary endpoints and contrasts" in text
    assert "13 of which could be tested" in text
    assert "not testable: no preferences were answered" in text


def test_the_report_shows_the_family_and_what_is_not_in_it() -> None:
    plan = dataclasses.replace(PLAN, secondary=("preference", "act"), secondary_contrasts=())
    text = to_html(document(analyse(study(), plan)))
    _, family, apart = re.split("<caption[^>]*>(?=One family: the 2 secondary|Not in the family)", text)
    assert "Preferred side by side" in family and "Would biopsy or refer" in family
    assert "Explanation grounded" not in family
    assert "Explanation grounded" in apart and "Balanced accuracy with the aid" in apart


def test_the_arms_of_primary_and_safety_are_each_the_plans_own() -> None:
    """Readers are led astray by `grad_cam_text` alone, which the safety contrast names and the primary one does not."""
    tables = study(readers=12, cases=40, wrong_share=0.5)
    cases = tables.cases.copy()
    astray = (cases["stratum"] == "wrong") & (cases["arm"] == "grad_cam_text") & ~cases["repeat"]
    cases.loc[cases["stratum"] == "wrong", "diagnosis_before"] = cases["truth"]
    cases.loc[cases["stratum"] == "wrong", "diagnosis_after"] = cases["truth"]
    firm = cases["reader"].isin(["R001", "R002"]) & cases["case"].str.endswith("1")
    cases.loc[astray & ~firm, "diagnosis_after"] = cases["ai_leading"]
    plan = dataclasses.replace(PLAN, safety=Contrast("grad_cam_text", "none"), safety_margin=0.2)
    found = analyse(tables.with_cases(cases), plan)
    assert found["safety"]["contrast"] == "grad_cam_text - none"
    assert 0.9 < found["safety"]["rate"] < 1.0 and found["safety"]["rate_reference"] == 0.0
    assert found["safety"]["decision"] == "inferior"
    assert found["primary"]["contrast"] == "regions - grad_cam"
    text = to_html(document(found)).replace("\xa0", " ")
    assert "% of answers with Grad-CAM + text and 0.0 % with No explanation" in text


# --- from a protocol --------------------------------------------------------------------------------------------------


def own_study(**plan: Any) -> Protocol:
    """A study with questions of its own: a rating, a percentage, and a yes or no, for arms with an aid only."""
    values = tiny.protocol()
    questions = tiny.default_questions("after")
    five = {"kind": "likert", "points": 5, "anchors": ["no", "yes"]}
    questions += [
        {"key": "useful", "text": "Useful?", "scale": five},
        {"key": "sure", "text": "Sure?", "scale": {"kind": "percent", "anchors": ["no", "yes"]}},
        {"key": "again", "text": "Again?", "scale": {"kind": "yes_no"}, "arms": "aid"},
        {"key": "remark", "text": "Else?", "scale": {"kind": "text"}, "required": False},
    ]
    return Protocol.from_dict({**values, "questions": {"after": questions}, "plan": {**values["plan"], **plan}})


def with_own_answers(tables: StudyTables) -> StudyTables:
    rng, n = np.random.default_rng(0), len(tables.cases)
    again = pd.Series(rng.random(n) < 0.5).astype(object).where(tables.cases["arm"] != "none", None)
    return tables.with_cases(
        tables.cases.assign(useful=rng.integers(1, 6, n), sure=rng.integers(0, 101, n).astype(float), again=again)
    )


def test_a_studys_own_questions_can_be_endpoints() -> None:
    protocol = own_study(
        primary={"endpoint": "useful", "arm": "regions", "reference": "grad_cam", "smallest_effect": 0.5},
        safety={"arm": "grad_cam", "reference": "none", "margin": 0.1},
        secondary=["again", "sure", "trust"],
    )
    plan = analysis_plan.from_protocol(protocol)
    assert plan.safety == Contrast("grad_cam", "none") and plan.smallest_effect == 0.5
    found = analyse(with_own_answers(study(readers=8, cases=24)), plan)
    assert found["primary"]["endpoint"] == "useful" and "value" in found["primary"]
    assert {row["endpoint"]: row["test"] for row in found["secondary"]} == {
        "again": secondary.MODEL,
        "sure": secondary.MODEL,
        "trust": secondary.MODEL,
    }
    assert all("p_holm" in row for row in found["secondary"])
    assert "Useful was" in to_html(document(found))


def test_what_cannot_be_compared_is_no_endpoint() -> None:
    for key in ("remark", "diagnosis"):
        with pytest.raises(ValueError, match=r"plan.secondary\[0\]: must be one of"):
            own_study(secondary=[key])
