import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from skinclip.study.analysis import secondary, statistics
from skinclip.study.analysis.analysis_plan import ENDPOINTS, TRUST, AnalysisPlan, Contrast
from skinclip.study.analysis.arm_model import arm_model
from skinclip.study.analysis.statistics import analyse, primary_result
from skinclip.study.analysis.tables import SIMULATED, TABLES, StudyTables, primary_cases
from skinclip.study.errors import NotEstimable
from tests.study.studies import PLAN, study

PAIR = Contrast("regions", "grad_cam")


@pytest.fixture(scope="module")
def analysis() -> dict:
    return analyse(study(), PLAN)


def frame(rows: list[tuple]) -> pd.DataFrame:
    """Rows of (reader, case, stratum, weight, arm, trust)."""
    cases = pd.DataFrame(rows, columns=["reader", "case", "stratum", "weight", "arm", "trust"])
    return cases.assign(block=1, repeat=False)


def balanced(effect_right: float, effect_wrong: float) -> pd.DataFrame:
    """4 readers x 8 cases, half of them AI errors, two arms; noise that cancels in every arm and stratum."""
    rows = []
    for r in range(4):
        for c in range(8):
            stratum, arm = ("right", "wrong")[c % 2], ("regions", "grad_cam")[(r + c // 2) % 2]
            effect = {"right": effect_right, "wrong": effect_wrong}[stratum] * (arm == "regions")
            noise = 0.5 * (-1) ** (r // 2 + c // 4)
            rows.append((f"R{r}", f"C{c}", stratum, {"right": 1.6, "wrong": 0.4}[stratum], arm, 4 + effect + noise))
    return frame(rows)


def test_strata_are_averaged_at_their_shares_in_practice():
    cases = balanced(1.0, 0.0)
    weighted = arm_model(cases, TRUST.of(cases)).difference(PAIR, 0.05)
    unweighted = arm_model(cases, TRUST.of(cases), weighted=False).difference(PAIR, 0.05)
    assert weighted["value"] == pytest.approx(0.8)  # 80 % of practice is "right", where the effect is 1
    assert unweighted["value"] == pytest.approx(0.5)


def test_recovers_a_large_effect_and_names_its_parts(analysis):
    found = primary_result(primary_cases(study(2, readers=16, cases=48).cases), PLAN)
    assert found["low"] < 0.39 < found["high"]
    assert set(found["variances"]) == {"reader", "case", "reader x arm", "case x arm", "residual"}
    assert analysis["primary"]["contrast"] == "regions - grad_cam"


def test_the_result_is_plain_data(analysis):
    assert json.loads(json.dumps(analysis, allow_nan=False)) == json.loads(json.dumps(analysis))
    assert analysis["data_kind"] == analysis["mark"] == "SIMULATED DATA"


def test_items_of_an_aid_never_meet_the_arm_without_one(analysis):
    cases = primary_cases(study().cases)
    model = arm_model(cases, ENDPOINTS["grounded"].of(cases))
    assert "none" not in model.cells and model.fit.n == int(cases["grounded"].notna().sum())  # nothing is imputed
    with pytest.raises(NotEstimable, match="no answers in the arm none"):
        model.difference(Contrast("regions", "none"), 0.05)
    agreement = [row for row in analysis["agreement"] if row["answer"] == "grounded"]
    assert {row["arm"] for row in agreement} == {"grad_cam", "grad_cam_text", "regions"}
    asked = {row["item"]: row["asked"] for row in analysis["missing"]}
    assert asked["grounded"] < asked["trust"]


def test_repeats_and_strangers_are_left_out_of_the_primary_analysis():
    tables = study()
    changed = tables.cases.copy()
    apart = changed["repeat"] | (changed["stratum"] == "ood")
    changed.loc[apart, "trust"] = 7.0
    same = [primary_result(primary_cases(t.cases), PLAN) for t in (tables, tables.with_cases(changed))]
    assert same[0] == same[1]


def test_time_is_a_ratio_and_outliers_leave_one_sensitivity_analysis_only():
    tables = study(pauses=0.0, readers=12, cases=32)
    slow = tables.cases.copy()
    slow.loc[slow["arm"] == "regions", "seconds_after"] *= 2.0

    def answers(cases):
        return secondary.Answers(primary_cases(cases), tables.blocks, tables.preferences)

    row = lambda cases: secondary.endpoint_row(answers(cases), "seconds", PLAN)  # noqa: E731
    trimmed = lambda cases: statistics.time_without_outliers(answers(cases), PLAN)  # noqa: E731
    assert row(slow)["value"] == pytest.approx(2 * row(tables.cases)["value"], rel=1e-3)
    paused = tables.cases.copy()
    paused.loc[paused.index[:5], "seconds_after"] = 4000.0
    without = tables.cases.copy()
    without.loc[without.index[:5], "seconds_after"] = np.nan
    assert trimmed(paused)["value"] == trimmed(without)["value"]
    assert (trimmed(paused)["left_out"], trimmed(without)["left_out"]) == (len(primary_cases(paused[:5])), 0)
    assert row(paused)["value"] != row(without)["value"] and row(paused)["n"] > row(without)["n"]


def test_wilcoxon_takes_readers_means():
    # Differences of 6 readers: all positive, so the exact two-sided p is 2 / 2^6.
    rows = [(f"R{r}", f"C{c}", "right", 1.0, arm, 3 + (arm == "regions") * (r + 1) / 4)
            for r in range(6) for c, arm in enumerate(["regions", "grad_cam"])]  # fmt: skip
    found = statistics._wilcoxon_row(frame(rows), TRUST, PLAN)
    assert found["p"] == pytest.approx(2 / 64)
    assert found["value"] == pytest.approx(0.875)  # the Hodges-Lehmann median of 0.25, ..., 1.5
    assert found["readers"] == 6


def test_completers_rated_the_plans_share_of_all_cases():
    tables = study(missing=0.0)
    cases = tables.cases.copy()
    cases.loc[cases["reader"] == "R002", "trust"] = np.nan
    shown = cases.index[(cases["reader"] == "R003") & ~cases["repeat"]]
    few = cases.drop(shown[len(shown) // 2 :])  # stopped half-way: all that was seen is rated
    readers = tables.readers.copy()
    readers.loc[readers["reader"] == "R004", "completed"] = False  # rated all, and left before the last scales
    changed = replace(tables, cases=few, readers=readers)
    assert statistics.completers(changed, PLAN) == {"R001", "R004", "R005", "R006"}
    more = replace(PLAN, cases=2 * len(shown))
    assert statistics.completers(changed, more) == set()


def test_a_plan_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="unknown endpoint beauty; choose from trust"):
        AnalysisPlan(secondary=("beauty",))
    with pytest.raises(ValueError, match="alpha"):
        AnalysisPlan(alpha=5)
    with pytest.raises(ValueError, match="safety_margin"):
        AnalysisPlan(safety_margin=5)


# --- small and odd studies end in words ---------------------------------------------------------------------------


def without_answers(tables: StudyTables) -> StudyTables:
    keep = {"reader", "site", "case", "stratum", "weight", "arm", "block", "position", "repeat"}
    return tables.with_cases(tables.cases[[name for name in TABLES["cases"] if name in keep]])


def empty(tables: StudyTables) -> StudyTables:
    frames = {name: pd.DataFrame(columns=list(columns)) for name, columns in TABLES.items()}
    return StudyTables(**frames, mark=SIMULATED, study="empty")


ODD = {
    "one reader": (lambda t: t.with_cases(t.cases[t.cases["reader"] == "R001"]), "fewer than two readers"),
    "two readers": (lambda t: t.with_cases(t.cases[t.cases["reader"].isin(["R001", "R002"])]), None),
    "one case": (lambda t: t.with_cases(t.cases[t.cases["case"] == t.cases["case"][0]]), None),
    "no repeats": (lambda t: t.with_cases(t.cases[~t.cases["repeat"]]), None),
    "an arm missing": (lambda t: t.with_cases(t.cases[t.cases["arm"] != "regions"]), "no answers in the arm regions"),
    "one arm only": (lambda t: t.with_cases(t.cases[t.cases["arm"] == "regions"]), "no answers in the arm grad_cam"),
    "all ratings equal": (lambda t: t.with_cases(t.cases.assign(trust=4.0, correct=None)), "equal"),
    "everything missing": (without_answers, "fewer than two readers"),
    "no readers": (empty, "fewer than two readers"),
    "only errors of the AI": (lambda t: t.with_cases(t.cases[t.cases["stratum"] == "wrong"]), None),
    "no errors of the AI": (lambda t: t.with_cases(t.cases[t.cases["stratum"] == "right"]), None),
    "truth unknown": (lambda t: t.with_cases(t.cases.assign(truth=None, ai_correct=None)), None),
    "no preferences, no scales": (lambda t: replace(t, preferences=t.preferences[:0], blocks=t.blocks[:0]), None),
    "blocks unknown": (lambda t: t.with_cases(t.cases.assign(block=None)), None),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_studies_never_crash(name):
    change, reason = ODD[name]
    found = analyse(change(study()), PLAN)
    json.dumps(found, allow_nan=False)
    if reason:
        assert reason in found["primary"]["not_estimable"]


def test_words_for_what_is_not_there():
    tables = study()
    no_errors = analyse(tables.with_cases(tables.cases[tables.cases["stratum"] == "right"]), PLAN)
    assert "no answers to cases where the AI errs" in no_errors["safety"]["not_estimable"]
    assert "value" in no_errors["primary"]
    no_repeats = analyse(tables.with_cases(tables.cases[~tables.cases["repeat"]]), PLAN)
    assert all(row["not_estimable"] == "no repeats" for row in no_repeats["retest"])


def test_out_of_distribution_is_analysed_apart(analysis):
    assert analysis["ood"]["cases"] == 4 and analysis["flow"]["cases"] == 16
    assert {row["arm"] for row in analysis["ood"]["by_arm"]} == set(analysis["arms"])
