import pandas as pd
import pytest
from scipy import stats

from skinclip.study.analysis import subjective_outcomes
from skinclip.study.errors import NotEstimable


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
