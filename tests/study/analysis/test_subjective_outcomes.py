import numpy as np
import pandas as pd
import pytest
from scipy import stats

from skinclip.study.analysis import subjective_outcomes
from skinclip.study.errors import NotEstimable


def pairs(rows: list[tuple[str, str, str, str]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["reader", "side_a", "side_b", "chosen"])
    return frame.assign(case=[f"C{i}" for i in range(len(frame))])


def test_two_aids_have_the_log_odds_of_their_wins():
    chosen = ["regions"] * 30 + ["grad_cam"] * 10
    rows = [
        (f"R{i % 5}", *(("regions", "grad_cam") if i % 2 else ("grad_cam", "regions")), c) for i, c in enumerate(chosen)
    ]
    found = subjective_outcomes.preferences(pairs(rows), 50, 0, 0.05)
    strength = {row["arm"]: row["value"] for row in found["strengths"]}
    assert strength["regions"] - strength["grad_cam"] == pytest.approx(np.log(3), rel=0.02)  # but for the prior
    assert sum(strength.values()) == pytest.approx(0.0, abs=1e-9)
    assert {"arm": "regions", "against": "grad_cam", "won": 30, "of": 40} in found["wins"]
    assert found["side_a"]["of"] == 40
    row = next(row for row in found["strengths"] if row["arm"] == "regions")
    assert row["low"] <= row["value"] <= row["high"]


def test_sides_do_not_matter_to_strengths():
    rng = np.random.default_rng(0)
    arms = ["grad_cam", "grad_cam_text", "regions"]
    rows = [(f"R{i % 6}", *rng.choice(arms, 2, replace=False)) for i in range(60)]
    there = pairs([(r, a, b, a if rng.random() < 0.6 else b) for r, a, b in rows])
    turned = there.rename(columns={"side_a": "side_b", "side_b": "side_a"})
    assert (
        subjective_outcomes.preferences(there, 20, 0, 0.05)["strengths"]
        == subjective_outcomes.preferences(turned, 20, 0, 0.05)["strengths"]
    )


def test_an_aid_that_won_every_pair_has_a_finite_strength():
    found = subjective_outcomes.preferences(pairs([("R1", "regions", "grad_cam", "regions")] * 8), 20, 0, 0.05)
    assert all(np.isfinite(row["value"]) for row in found["strengths"])
    assert found["strengths"][0]["low"] is None  # one reader


def test_without_choices_it_says_so():
    with pytest.raises(NotEstimable, match="no preferences"):
        subjective_outcomes.preferences(pairs([("R1", "regions", "grad_cam", None)]), 20, 0, 0.05)


def blocks(values: dict[str, dict[str, list[float]]]) -> pd.DataFrame:
    """scale item -> arm -> value of each reader."""
    rows = [
        (f"R{i}", arm, item, value)
        for item, arms in values.items()
        for arm, answers in arms.items()
        for i, value in enumerate(answers)
    ]
    return pd.DataFrame(rows, columns=["reader", "arm", "item", "score"])


def test_scales_are_compared_within_readers():
    regions, cam = [4.0, 5.0, 3.0, 4.0], [3.0, 3.0, 3.0, 2.0]
    frame = blocks({"ess_1": {"regions": regions, "grad_cam": cam}, "ess_2": {"regions": regions, "grad_cam": cam}})
    found = next(
        s for s in subjective_outcomes.scales(frame, ["none", "grad_cam", "regions"], "regions", "grad_cam", 0.05)
    )
    assert found["scale"] == "ess" and [row["arm"] for row in found["by_arm"]] == ["grad_cam", "regions"]
    assert found["difference"]["value"] == pytest.approx(1.25)
    interval = stats.ttest_rel(regions, cam).confidence_interval()
    assert (found["difference"]["low"], found["difference"]["high"]) == pytest.approx(tuple(interval))
    assert found["cronbach"]["value"] == pytest.approx(1.0)  # both items always agree


def test_a_scale_without_answers_is_not_estimable():
    found = subjective_outcomes.scales(blocks({}), ["regions"], "regions", "grad_cam", 0.05)
    assert [s["scale"] for s in found] == ["ess", "trust", "distrust"]
    assert all("not_estimable" in s["difference"] for s in found)


def test_a_scale_is_tested_within_readers():
    regions, cam = [4.0, 5.0, 3.5, 4.0, 4.5, 5.0], [3.0, 3.0, 3.0, 2.5, 3.0, 2.0]
    frame = blocks({"ess_1": {"regions": regions, "grad_cam": cam}, "trust_1": {"regions": cam, "grad_cam": regions}})
    found = subjective_outcomes.scale_difference(frame, "ess", "regions", "grad_cam", 0.05)
    assert found["p"] == pytest.approx(2 / 64)  # all six readers in one direction
    assert (
        found["value"] > 0 > subjective_outcomes.scale_difference(frame, "trust", "regions", "grad_cam", 0.05)["value"]
    )
    same = blocks({"ess_1": {"regions": cam, "grad_cam": cam}})
    with pytest.raises(NotEstimable, match="no reader differs"):
        subjective_outcomes.scale_difference(same, "ess", "regions", "grad_cam", 0.05)


def test_a_preference_is_tested_over_readers():
    chosen = ["regions"] * 9 + ["grad_cam"]
    rows = [(f"R{i}", "regions", "grad_cam", chosen[(i + j) % 10]) for i in range(10) for j in range(4)]
    found = subjective_outcomes.preferred(pairs(rows), "regions", "grad_cam", 0, 0.05)
    assert found["value"] == pytest.approx(np.log(9), rel=0.02) and found["readers"] == 10
    assert 0 < found["low"] < found["value"] < found["high"] and found["p"] == pytest.approx(2 / 2**10)
    back = subjective_outcomes.preferred(pairs(rows), "grad_cam", "regions", 0, 0.05)
    assert back["value"] == pytest.approx(-found["value"]) and back["p"] == found["p"]
    with pytest.raises(NotEstimable, match="none was never shown side by side"):
        subjective_outcomes.preferred(pairs(rows), "regions", "none", 0, 0.05)
    with pytest.raises(NotEstimable, match="fewer than two readers"):
        subjective_outcomes.preferred(pairs(rows[:4]), "regions", "grad_cam", 0, 0.05)


def test_an_aid_that_four_readers_never_chose_has_the_exact_p_and_an_open_interval():
    """On separation the bootstrap said p = 0.001, where the exact test says 0.125."""
    rows = [(f"R{i}", "regions", "grad_cam", "regions") for i in range(4) for _ in range(6)]
    found = subjective_outcomes.preferred(pairs(rows), "regions", "grad_cam", 0, 0.05)
    assert found["p"] == pytest.approx(0.125)
    assert found["high"] is None and found["low"] is not None


def test_sign_flips_are_counted_exactly_and_drawn_beyond():
    assert subjective_outcomes.sign_flip_p(np.array([3.0, 2.0, -1.0])) == pytest.approx(4 / 8)
    assert subjective_outcomes.sign_flip_p(np.zeros(4)) == 1.0
    sums = np.random.default_rng(0).integers(-3, 4, 24).astype(float)
    drawn = subjective_outcomes.sign_flip_p(sums)
    assert drawn == pytest.approx(2 * stats.norm.sf(abs(sums.sum()) / np.sqrt((sums**2).sum())), abs=0.1)
