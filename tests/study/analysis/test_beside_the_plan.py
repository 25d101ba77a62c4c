"""Analyses beside the plan: ordered categories, period and carry-over, missing answers, and flags of readers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from skinclip.study.analysis import context_effects, data_quality, missing_answers, ordinal
from skinclip.study.analysis.analysis_plan import TRUST
from skinclip.study.analysis.arm_model import arm_model
from skinclip.study.analysis.statistics import primary_result, sensitivity
from skinclip.study.analysis.tables import StudyTables, primary_cases
from skinclip.study.errors import NotEstimable
from skinclip.study.protocol.model import Contrast
from tests.study.studies import PLAN, study

REGIONS_OVER_GRAD_CAM = Contrast("regions", "grad_cam")


# --- ordered categories -------------------------------------------------------------------------------------------


def test_the_odds_ratio_is_that_of_a_cumulative_logit() -> None:
    """Ratings drawn with log-odds 1 apart come back as about e, inside the interval."""
    rng = np.random.default_rng(0)
    readers, n = 30, 60
    arm = np.tile(["regions", "grad_cam"], readers * n // 2)
    latent = rng.logistic(size=readers * n) + (arm == "regions") * 1.0
    frame = pd.DataFrame(
        {
            "reader": np.repeat([f"R{i}" for i in range(readers)], n),
            "arm": arm,
            "stratum": "right",
            "trust": np.digitize(latent, [-2, -1, 0, 1, 2, 3]) + 1.0,
        }
    )
    found = ordinal.odds_ratio(frame, TRUST, REGIONS_OVER_GRAD_CAM, 0.05)
    assert found["low"] < np.e < found["high"] and found["value"] == pytest.approx(np.e, rel=0.15)


def test_too_few_readers_or_one_rating_are_told() -> None:
    cases = primary_cases(study(readers=6, cases=24).cases)
    with pytest.raises(NotEstimable, match="three readers"):
        ordinal.odds_ratio(cases[cases["reader"].isin(["R001", "R002"])], TRUST, REGIONS_OVER_GRAD_CAM, 0.05)
    with pytest.raises(NotEstimable, match="not a rating"):
        ordinal.odds_ratio(cases.assign(trust=4.0), TRUST, REGIONS_OVER_GRAD_CAM, 0.05)
    found = ordinal.odds_of_higher(cases, PLAN)
    assert [row["endpoint"] for row in found] == ["trust", "correct", "grounded", "complete", "harmful"]


# --- period, carry-over, site, experience -------------------------------------------------------------------------


def test_a_shift_after_an_arm_is_found_as_carry_over_and_taken_out_of_the_contrast() -> None:
    tables = study(readers=16, cases=40, missing=0.0)
    before = context_effects.previous_arm(tables.cases)
    tables = tables.with_cases(tables.cases.assign(trust=tables.cases["trust"].clip(2, 6)))
    cases = tables.cases.assign(trust=tables.cases["trust"] + 1.0 * (before == "none"))
    plain = context_effects.context_effects(tables, PLAN)
    shifted = context_effects.context_effects(tables.with_cases(cases), PLAN)
    effect = {row["after"]: row["value"] for row in shifted["carry_over"]}
    same = {row["after"]: row["value"] for row in plain["carry_over"]}
    assert {arm: effect[arm] - same[arm] for arm in effect} == pytest.approx(
        {"grad_cam": -1.0, "grad_cam_text": -1.0, "regions": -1.0}, abs=0.05
    )
    assert shifted["adjusted"]["value"] == pytest.approx(plain["adjusted"]["value"], abs=0.1)
    assert all("p" not in row for row in shifted["carry_over"])


def test_the_arm_before_is_that_of_the_readers_block_before() -> None:
    cases = primary_cases(study(readers=8, cases=16).cases)
    before = context_effects.previous_arm(cases)
    assert (before[cases["block"] == 1] == "first part").all()
    one = cases[cases["reader"] == "R003"]
    order = one.groupby("block")["arm"].first()
    assert (before[one.index][one["block"] == 3] == order[2]).all()


def test_effects_by_site_and_experience_are_described_where_readers_suffice() -> None:
    found = context_effects.context_effects(study(readers=12, cases=32), PLAN)
    assert [row["group"] for row in found["site"]] == ["S1", "S2", "S3"]
    assert all("value" in row and "p" not in row for row in found["site"])
    assert any("fewer than 3 readers" in row.get("not_estimable", "") for row in found["experience"])
    assert [row["block"] for row in found["period"]] == [2, 3, 4]


def test_patients_with_several_lesions_are_one_more_random_effect() -> None:
    cases = primary_cases(study(readers=10, cases=40, missing=0.0).cases)
    number = cases["case"].str[1:].astype(int)
    patient = "P" + (number // 4).astype(str)
    rng = np.random.default_rng(0)
    shift = patient.map(dict(zip(patient.unique(), rng.normal(0, 2.0, patient.nunique()), strict=True)))
    trust = (cases["trust"] + shift).to_numpy(dtype=float)
    fitted = arm_model(cases.assign(patient=patient), trust)
    assert fitted.fit.variances["patient"] > 1.0
    alone = arm_model(cases.assign(patient=cases["case"]), trust)
    assert "patient" not in alone.fit.variances  # each patient has one lesion: nothing to tell apart
    assert fitted.mean("regions", 0.05)["error"] > alone.mean("regions", 0.05)["error"]


# --- missing answers ----------------------------------------------------------------------------------------------


def test_the_tipping_point_moves_the_interval_to_0() -> None:
    cases = primary_cases(study(readers=12, cases=40, missing=0.0).cases).copy()
    lost = (cases["arm"] == "regions") & (cases["position"] % 5 == 0)
    cases.loc[lost, "trust"] = np.nan
    cases.loc[cases["arm"] == "regions", "trust"] += 1.0
    primary = primary_result(cases, PLAN)
    found = missing_answers.tipping_point(cases, primary, {"not_estimable": "none"}, PLAN)
    share = {row["arm"]: row["share"] for row in found["missing"]}
    assert share["regions"] == pytest.approx(lost.sum() / (cases["arm"] == "regions").sum())
    assert share["grad_cam"] == 0.0
    tip = found["primary"]
    assert tip["significant"] and tip["arm_alone"] == pytest.approx(-primary["low"] / share["regions"])
    assert tip["arm_alone"] == tip["both"] < 0


def test_cases_that_a_reader_never_saw_are_missing_too() -> None:
    cases = primary_cases(study(readers=8, cases=40, missing=0.0).cases)
    cut = cases[(cases["reader"] != "R001") | (cases["block"] <= 2)]
    found = missing_answers.tipping_point(cut, {"not_estimable": "x"}, {"not_estimable": "x"}, PLAN)
    assert sum(row["share"] for row in found["missing"]) / 4 == pytest.approx(0.5 / 8)
    assert "not estimable" in found["primary"]["not_estimable"]


def test_nothing_missing_has_no_tipping_point() -> None:
    cases = primary_cases(study(missing=0.0).cases)
    found = missing_answers.tipping_point(cases, primary_result(cases, PLAN), {"not_estimable": "x"}, PLAN)
    assert found["primary"]["both"] is None and found["primary"]["arm_alone"] is None


# --- flags --------------------------------------------------------------------------------------------------------


def flagged(tables: StudyTables) -> dict[str, dict[str, str]]:
    return {row["reader"]: row["flags"] for row in data_quality.flags(tables, PLAN)}


def test_honest_readers_are_not_flagged() -> None:
    assert flagged(study(readers=12, cases=40)) == {}


def test_speeders_and_straight_lining_are_flagged() -> None:
    tables = study(readers=8, cases=40)
    cases, blocks = tables.cases.copy(), tables.blocks.copy()
    cases.loc[cases["reader"] == "R002", "seconds_after"] = 1.5
    cases.loc[cases["reader"] == "R003", "trust"] = 4.0
    blocks.loc[blocks["reader"] == "R004", ["value", "score"]] = 3.0
    found = flagged(replace(tables, cases=cases, blocks=blocks))
    assert set(found) == {"R002", "R003", "R004"}
    assert set(found["R002"]) == {"fast_answers", "fast_median"} and "under 3 s" in found["R002"]["fast_answers"]
    assert set(found["R003"]) == {"same_rating"} and set(found["R004"]) == {"same_block"}


def test_a_browsers_time_that_the_servers_contradicts_is_flagged() -> None:
    tables = study(readers=4, cases=20)
    server = tables.cases["seconds_after"] + 1.0
    server = server.mask(tables.cases["reader"] == "R001", tables.cases["seconds_after"] / 2)
    found = flagged(tables.with_cases(tables.cases.assign(server_seconds_after=server)))
    assert set(found) == {"R001"} and set(found["R001"]) == {"clock"}


def test_flags_see_neither_arm_nor_truth() -> None:
    tables = study(readers=8, cases=40)
    cases = tables.cases.copy()
    cases.loc[cases["reader"] == "R002", "seconds_after"] = 1.5
    hidden = cases.assign(truth=None, ai_leading=None, ai_correct=None)
    rng = np.random.default_rng(0)
    shuffled = hidden.assign(arm=rng.permutation(hidden["arm"]), stratum=rng.permutation(hidden["stratum"]))
    for item in ("correct", "grounded", "complete", "harmful"):
        shuffled[item] = np.nan
    assert flagged(tables.with_cases(cases)) == flagged(tables.with_cases(shuffled))


def test_the_contrast_without_flagged_readers_stands_beside_the_planned_one() -> None:
    tables = study(readers=8, cases=40)
    names = [row["analysis"] for row in sensitivity(tables, PLAN)]
    cases = tables.cases.copy()
    cases.loc[cases["reader"] == "R002", "seconds_after"] = 1.5
    found = sensitivity(tables.with_cases(cases), PLAN)
    assert [row["analysis"] for row in found] == [*names, "Without 1 flagged reader"]
    assert found[-1]["readers"] == 7
