"""Bradley-Terry strengths with Firth's penalty, the side's effect, and exact tests over readers."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from skinclip.study.analysis import preferences
from skinclip.study.errors import NotEstimable

ENDS = ("value", "low", "high")


def pairs(rows: list[tuple[str, str, str, str]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["reader", "side_a", "side_b", "chosen"])
    return frame.assign(case=[f"C{i}" for i in range(len(frame))])


def test_two_aids_have_the_log_odds_of_their_wins():
    chosen = ["regions"] * 30 + ["grad_cam"] * 10
    rows = [
        (f"R{i % 5}", *(("regions", "grad_cam") if i % 2 else ("grad_cam", "regions")), c) for i, c in enumerate(chosen)
    ]
    found = preferences.preferences(pairs(rows), 0.05)
    strength = {row["arm"]: row["value"] for row in found["strengths"]}
    assert strength["regions"] - strength["grad_cam"] == pytest.approx(np.log(3), abs=0.08)  # the penalty draws it in
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
    found = [preferences.preferences(one, 0.05)["strengths"] for one in (there, turned)]
    for one, other in zip(*found, strict=True):
        assert one["arm"] == other["arm"]
        assert [one[end] for end in ("value", "low", "high")] == pytest.approx(
            [other[end] for end in ("value", "low", "high")]
        )


def test_an_aid_that_won_every_pair_has_a_finite_strength():
    found = preferences.preferences(pairs([("R1", "regions", "grad_cam", "regions")] * 8), 0.05)
    assert all(np.isfinite(row["value"]) for row in found["strengths"])
    assert found["strengths"][0]["low"] is None  # one reader


def test_without_choices_it_says_so():
    with pytest.raises(NotEstimable, match="no preferences"):
        preferences.preferences(pairs([("R1", "regions", "grad_cam", None)]), 0.05)


def test_a_preference_is_tested_over_readers():
    chosen = ["regions"] * 9 + ["grad_cam"]
    rows = [(f"R{i}", "regions", "grad_cam", chosen[(i + j) % 10]) for i in range(10) for j in range(4)]
    found = preferences.preferred(pairs(rows), "regions", "grad_cam", 0, 0.05)
    assert found["value"] == pytest.approx(np.log(36.5 / 4.5)) and found["readers"] == 10
    assert 0 < found["low"] < found["value"] < found["high"] and found["p"] == pytest.approx(2 / 2**10)
    back = preferences.preferred(pairs(rows), "grad_cam", "regions", 0, 0.05)
    assert back["value"] == pytest.approx(-found["value"]) and back["p"] == found["p"]
    with pytest.raises(NotEstimable, match="none was never shown side by side"):
        preferences.preferred(pairs(rows), "regions", "none", 0, 0.05)
    with pytest.raises(NotEstimable, match="fewer than two readers"):
        preferences.preferred(pairs(rows[:4]), "regions", "grad_cam", 0, 0.05)


def test_an_aid_that_four_readers_never_chose_has_the_exact_p_and_an_open_interval():
    """On separation the bootstrap said p = 0.001, where the exact test says 0.125."""
    rows = [(f"R{i}", "regions", "grad_cam", "regions") for i in range(4) for _ in range(6)]
    found = preferences.preferred(pairs(rows), "regions", "grad_cam", 0, 0.05)
    assert found["p"] == pytest.approx(0.125)
    assert found["high"] is None and found["low"] is not None


def test_sign_flips_are_counted_exactly_and_drawn_beyond():
    assert preferences.sign_flip_p(np.array([3.0, 2.0, -1.0])) == pytest.approx(4 / 8)
    assert preferences.sign_flip_p(np.zeros(4)) == 1.0
    sums = np.random.default_rng(0).integers(-3, 4, 24).astype(float)
    drawn = preferences.sign_flip_p(sums)
    assert drawn == pytest.approx(2 * stats.norm.sf(abs(sums.sum()) / np.sqrt((sums**2).sum())), abs=0.1)
