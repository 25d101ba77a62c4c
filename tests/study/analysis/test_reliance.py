import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score

from skinclip.study.analysis import reliance
from skinclip.study.analysis.diagnoses import Diagnoses
from skinclip.study.analysis.tables import primary_cases
from skinclip.study.errors import NotEstimable
from skinclip.study.protocol.model import Contrast
from tests.study.studies import study

REGIONS_OVER_GRAD_CAM = Contrast("regions", "grad_cam")
ARMS = ["grad_cam", "regions"]


def answers(rows: list[tuple]) -> pd.DataFrame:
    """Rows of (reader, case, arm, truth, ai, before, after)."""
    names = ["reader", "case", "arm", "truth", "ai_leading", "diagnosis_before", "diagnosis_after"]
    frame = pd.DataFrame(rows, columns=names)
    stratum = np.where(frame["truth"] == frame["ai_leading"], "right", "wrong")
    rated = {"confidence_before": 50.0, "confidence_after": 90.0}
    return frame.assign(weight=1.0, stratum=stratum, block=1, **rated)


ROWS = answers(
    [
        ("R1", "C1", "regions", "mel", "nv", "mel", "nv"),  # AI errs: led astray
        ("R2", "C1", "regions", "mel", "nv", "mel", "mel"),  # AI errs: held
        ("R1", "C2", "regions", "nv", "nv", "bkl", "nv"),  # AI right: led right
        ("R2", "C2", "regions", "nv", "nv", "nv", "nv"),  # AI right: agreed before
        ("R1", "C3", "grad_cam", "bcc", "mel", "cannot_tell", "mel"),  # AI errs: wrong before, follows
        ("R2", "C3", "grad_cam", "bcc", "mel", "bcc", "bcc"),  # AI errs: held
        ("R1", "C4", "grad_cam", None, "mel", "bcc", "mel"),  # truth unknown: does not count
        ("R2", "C4", "grad_cam", "mel", "mel", "nv", None),  # no answer: does not count
    ]
)


def rates(arm: str) -> dict[str, tuple[int, int]]:
    found = reliance.switching(ROWS, ARMS, 0.05)
    return {row["rate"]: (row["hits"], row["n"]) for row in found if row["arm"] == arm}


def test_switches_equal_hand_counted():
    assert rates("regions") == {
        "to_wrong": (1, 2),
        "to_right": (1, 2),
        "to_wrong_of_right": (1, 2),
        "followed_wrong": (1, 2),
        "followed_right": (1, 1),
    }
    assert rates("grad_cam")["to_wrong"] == (0, 2)
    assert rates("grad_cam")["followed_wrong"] == (1, 2)
    assert rates("grad_cam")["to_right"] == (0, 0)


def test_the_switch_diagram_counts_every_known_answer_once():
    found = pd.DataFrame(reliance.switches(ROWS, ARMS))
    assert found["n"].sum() == 6
    astray = found[(found["arm"] == "regions") & ~found["ai_right"] & found["before"] & ~found["after"]]
    assert astray["n"].item() == 1


def test_calibration_is_the_share_right_of_each_bin():
    found = {(r["arm"], r["phase"]): r for r in reliance.calibration(ROWS, ARMS)}
    assert found["regions", "before"] == {
        "arm": "regions", "phase": "before", "n": 4, "confidence": pytest.approx(0.5), "right": pytest.approx(0.75),
    }  # fmt: skip
    assert found["regions", "after"]["right"] == pytest.approx(0.75)


def many(wrong_share: dict[str, float], readers: int = 12, cases: int = 40) -> pd.DataFrame:
    """All errors of the AI; readers are right before, and led astray at the share given for the arm."""
    rng = np.random.default_rng(0)
    rows = []
    for r in range(readers):
        for c in range(cases):
            arm = ARMS[(r + c) % 2]
            after = "nv" if rng.random() < wrong_share[arm] else "mel"
            rows.append((f"R{r}", f"C{c}", arm, "mel", "nv", "mel", after))
    return answers(rows)


@pytest.mark.parametrize(
    ("regions", "grad_cam", "decision"),
    [(0.02, 0.3, "non-inferior"), (0.6, 0.1, "inferior"), (0.15, 0.1, "not shown")],
)
def test_non_inferiority_compares_the_interval_with_the_margin(regions, grad_cam, decision):
    cases = many({"regions": regions, "grad_cam": grad_cam})
    found = reliance.safety(cases, REGIONS_OVER_GRAD_CAM, 0.05, 0.05)
    assert found["decision"] == decision
    assert found["value"] == pytest.approx(found["rate"] - found["rate_reference"], abs=0.01)


def test_safety_is_not_claimed_where_nobody_switched():
    """A model of nothing but zeros has an interval without width, which would lie below any margin."""
    held = ROWS.assign(diagnosis_after=ROWS["diagnosis_before"])
    with pytest.raises(NotEstimable, match="none of 4 answers in the two arms switched to wrong"):
        reliance.safety(held, REGIONS_OVER_GRAD_CAM, 0.05, 0.05)


def test_safety_without_errors_of_the_ai_says_so():
    right = ROWS[ROWS["case"] == "C2"]
    with pytest.raises(NotEstimable, match="the AI errs"):
        reliance.safety(right, REGIONS_OVER_GRAD_CAM, 0.05, 0.05)


def test_balanced_accuracy_uses_the_sampling_weights():
    """Melanomas are right in all answers of practice's three quarters and wrong in the last; nevi in half of theirs."""
    rng = np.random.default_rng(1)
    rows = answers(
        [
            *((f"R{r}", "C1", "regions", "mel", "mel", "mel", "mel") for r in range(8)),
            *((f"R{r}", "C2", "regions", "mel", "nv", "mel", "nv") for r in range(8)),
            *(
                (f"R{r}", f"C{c}", "regions", "nv", "nv", "nv", rng.choice(["nv", "mel"]))
                for r in range(8)
                for c in (3, 4)
            ),
        ]
    )
    rows["weight"] = rows["case"].map({"C1": 3.0, "C2": 1.0, "C3": 1.0, "C4": 1.0})
    outcome = Diagnoses.of(rows).outcome("balanced")
    nevi = (rows["diagnosis_after"] == "nv")[rows["truth"] == "nv"].mean()
    assert np.average(outcome, weights=rows["weight"]) == pytest.approx((0.75 + nevi) / 2)
    assert np.average(Diagnoses.of(rows).outcome("balanced_before"), weights=rows["weight"]) == pytest.approx(1.0)


def test_the_models_balanced_accuracy_is_scikit_learns_where_weights_are_equal():
    tables = study(readers=8, cases=40, wrong_share=0.2, natural_wrong=0.2, repeat_share=0, missing=0.0)
    cases = primary_cases(tables.cases)
    for row in reliance.accuracy(cases, ARMS, 0.05):
        here = cases[cases["arm"] == row["arm"]]
        theirs = recall_score(
            here["truth"], here["diagnosis_after"], labels=here["truth"].unique(), average="macro", zero_division=0
        )
        assert row["after"]["value"] == pytest.approx(theirs, abs=0.12)  # other arms' cases inform the model's
        assert row["after"]["low"] < row["after"]["value"] < row["after"]["high"]


def test_safety_among_right_answers_is_described_beside():
    found = reliance.safety(many({"regions": 0.3, "grad_cam": 0.1}), REGIONS_OVER_GRAD_CAM, 0.1, 0.05)["of_right"]
    assert found["rate"] > found["rate_reference"] and found["low"] < found["value"] < found["high"]
    assert "p" not in found and "decision" not in found
