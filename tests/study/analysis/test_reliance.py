import numpy as np
import pandas as pd
import pytest

from skinclip.study.analysis import reliance
from skinclip.study.analysis.resampling import BootstrapEstimate, TwoWayBootstrap
from skinclip.study.errors import NotEstimable

ARMS = ["grad_cam", "regions"]


def answers(rows: list[tuple]) -> pd.DataFrame:
    """Rows of (reader, case, arm, truth, ai, before, after)."""
    names = ["reader", "case", "arm", "truth", "ai_leading", "diagnosis_before", "diagnosis_after"]
    frame = pd.DataFrame(rows, columns=names)
    return frame.assign(weight=1.0, confidence_before=50.0, confidence_after=90.0)


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
    found = reliance.switching(ROWS, ARMS, reliance.bootstrap_of(ROWS, 20, 0), 0.05)
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


def test_mcnemar_counts_what_only_one_side_has_right():
    regions = next(row for row in reliance.mcnemar(ROWS, ARMS) if row["arm"] == "regions")
    assert (regions["only_before"], regions["only_after"], regions["p"]) == (1, 1, pytest.approx(1.0))


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
    found = reliance.safety(cases, "regions", "grad_cam", reliance.bootstrap_of(cases, 300, 0), 0.05, 0.05)
    assert found["decision"] == decision
    assert found["value"] == pytest.approx(found["rate"] - found["rate_against"])


def test_safety_is_not_claimed_where_nobody_switched():
    """Each resample of nothing but zeros is zero: the interval would have no width and lie below any margin."""
    held = ROWS.assign(diagnosis_after=ROWS["diagnosis_before"])
    with pytest.raises(NotEstimable, match="none of 4 answers in the two arms switched to wrong"):
        reliance.safety(held, "regions", "grad_cam", reliance.bootstrap_of(held, 20, 0), 0.05, 0.05)


def test_safety_without_errors_of_the_ai_says_so():
    right = ROWS[ROWS["case"] == "C2"]
    with pytest.raises(NotEstimable, match="the AI errs"):
        reliance.safety(right, "regions", "grad_cam", reliance.bootstrap_of(right, 20, 0), 0.05, 0.05)


def test_balanced_accuracy_uses_the_sampling_weights():
    rows = answers(
        [("R1", "C1", "regions", "mel", "mel", "mel", "mel"), ("R1", "C2", "regions", "mel", "nv", "mel", "nv"),
         ("R2", "C1", "regions", "mel", "mel", "mel", "mel"), ("R2", "C2", "regions", "mel", "nv", "mel", "nv")]
    )  # fmt: skip
    rows["weight"] = [3.0, 1.0, 3.0, 1.0]
    found = reliance.accuracy(rows, ["regions"], reliance.bootstrap_of(rows, 50, 0), 0.05)[0]
    assert found["before"]["value"] == 1.0
    assert found["after"]["value"] == pytest.approx(0.75)  # half of the answers, but three quarters of practice


def test_two_way_bootstrap_is_as_wide_as_readers_and_cases_differ():
    # Mean of reader + case effects: its variance is that of both means, which the bootstrap must not understate.
    rng = np.random.default_rng(3)
    readers, cases = rng.normal(size=30), rng.normal(size=40)
    r, c = np.repeat(np.arange(30), 40), np.tile(np.arange(40), 30)
    values = readers[r] + cases[c]
    bootstrap = TwoWayBootstrap(r.astype(str), c.astype(str), np.ones(len(r)), 2000, 0)
    drawn = bootstrap.draw(lambda weights: weights @ values / weights.sum(axis=1), np.ones(len(r), dtype=bool))
    expected = np.sqrt(readers.var() / 30 + cases.var() / 40)
    assert drawn.draws.std() == pytest.approx(expected, rel=0.07)


def test_one_reader_has_a_figure_without_an_interval():
    bootstrap = TwoWayBootstrap(["R1"] * 3, ["C1", "C2", "C3"], np.ones(3), 20, 0)
    drawn = bootstrap.draw(lambda weights: weights.sum(axis=1), np.ones(3, dtype=bool))
    assert drawn.value == 3.0
    with pytest.raises(NotEstimable, match="one reader"):
        drawn.interval()


def test_bootstrap_p_is_two_sided_and_never_0():
    found = BootstrapEstimate(1.0, np.arange(1.0, 100.0)).interval()
    assert found["p"] == pytest.approx(2 / 100)
    assert BootstrapEstimate(0.0, np.linspace(-1, 1, 99)).interval()["p"] == 1.0


def test_a_share_is_compared_as_its_answers_say():
    arms = ["regions", "regions", "grad_cam", "grad_cam"]
    rows = answers([(f"R{i}", f"C{j}", arms[j], "mel", "mel", "mel", "mel") for i in range(6) for j in range(4)])
    yes = np.array([1.0, 1.0, 1.0, 0.0] * 6)
    bootstrap = reliance.bootstrap_of(rows, 100, 0)
    found = reliance.share_difference(rows, yes, "regions", "grad_cam", bootstrap, 0.05)
    assert found["value"] == pytest.approx(0.5) and found["low"] <= 0.5 <= found["high"]
    rows.loc[3::4, "weight"] = 3.0  # cases that stand for three in practice
    weighed = reliance.share_difference(rows, yes, "regions", "grad_cam", reliance.bootstrap_of(rows, 100, 0), 0.05)
    assert weighed["value"] == pytest.approx(0.75)
    with pytest.raises(NotEstimable):
        reliance.share_difference(rows, yes, "regions", "none", bootstrap, 0.05)
