"""AUC, sensitivity and specificity of several readers and cases, against published figures and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from skinclip.study.analysis import mrmc
from skinclip.study.analysis.tables import malignancy_scores, primary_cases
from skinclip.study.errors import NotEstimable
from tests.study.studies import PLAN, study

VAN_DYKE = Path(__file__).parents[1] / "data" / "van_dyke.csv"


def van_dyke() -> pd.DataFrame:
    """The ratings of Van Dyke et al. 1993: 5 readers, 2 treatments, 45 patients with and 69 without a dissection."""
    rows = []
    for line in VAN_DYKE.read_text().splitlines():
        if not line.startswith("#"):
            reader, truth, pairs = line.split(",")
            for i, pair in enumerate(pairs.split()):
                rows += [(reader, arm, f"{truth}-{i}", int(truth), float(pair[arm == "2"])) for arm in ("1", "2")]
    return pd.DataFrame(rows, columns=["reader", "arm", "case", "malignant", "score"])


def test_equals_what_mrmcaov_publishes_of_the_van_dyke_data() -> None:
    """MRMCaov for MATLAB 0.2.0, README: empirical AUC, unbiased covariances, readers and cases random."""
    figures = mrmc.Ratings(van_dyke(), "auc").figures(["1", "2"])
    published = [[0.91965, 0.85878, 0.90386, 0.97311, 0.82979], [0.94783, 0.90531, 0.92174, 0.99936, 0.92995]]
    assert figures.values == pytest.approx(np.array(published), abs=5e-6)
    found = mrmc.compare(figures, 0.05)
    assert found["covariances"] == pytest.approx(
        {"error": 0.00078839, "cov1": 0.00034167, "cov2": 0.00033906, "cov3": 0.00023561}, abs=1e-8
    )
    assert (found["value"], found["error"]) == pytest.approx((-0.0438, 0.020672), abs=1e-6)
    assert (found["f"], found["degrees"], found["p"]) == pytest.approx((4.4896, 15.034, 0.051162), rel=1e-4)
    assert (found["low"], found["high"]) == pytest.approx((-0.087852, 0.0002513), abs=1e-6)


@pytest.mark.parametrize(
    ("arm", "value", "error", "degrees", "low", "high"),
    [("1", 0.89704, 0.033071, 12.588, 0.82535, 0.96872), ("2", 0.94084, 0.021491, 12.534, 0.89423, 0.98744)],
)
def test_means_of_one_treatment_equal_mrmcaovs(
    arm: str, value: float, error: float, degrees: float, low: float, high: float
) -> None:
    found = mrmc.mean_of_one(mrmc.Ratings(van_dyke(), "auc").figures([arm]), 0.05)
    figures = [found[name] for name in ("value", "error", "degrees", "low", "high")]
    assert figures == pytest.approx([value, error, degrees, low, high], rel=1e-4)


def test_areas_equal_scikit_learns_in_a_study_by_latin_square() -> None:
    cases = primary_cases(study(readers=4, cases=48, missing=0.0).cases)
    figures = mrmc.ratings_of(cases, "auc").figures(["regions", "grad_cam"])
    for a, arm in enumerate(("regions", "grad_cam")):
        for r, reader in enumerate(sorted(cases["reader"].unique())):
            own = cases[(cases["reader"] == reader) & (cases["arm"] == arm)]
            theirs = roc_auc_score(own["truth"].isin(mrmc.MALIGNANT), malignancy_scores(own, "after"))
            assert figures.values[a, r] == pytest.approx(theirs)


def test_units_without_a_common_case_are_independent() -> None:
    cases = primary_cases(study(readers=4, cases=48, missing=0.0).cases)
    covariance = mrmc.ratings_of(cases, "auc").figures(["regions", "grad_cam"]).covariance
    cov = mrmc.ErrorCovariances.of(covariance, 2, 4)
    assert cov.cov1 == 0.0 and cov.cov2 == 0.0  # a reader's cases differ by arm, and four readers' lists in one arm
    assert cov.cov3 != 0.0  # another reader sees the same list in the other arm


def test_sensitivity_has_the_covariances_of_proportions() -> None:
    """Of two readers of the same 5 cases: variance p (1 - p) / (n - 1), covariance likewise, by hand."""
    first, second = np.array([1, 1, 0, 1, 0.0]), np.array([1, 0, 0, 1, 1.0])
    rows = pd.DataFrame(
        [(f"R{r}", "a", f"C{i}", 1, hit) for r, hits in enumerate((first, second)) for i, hit in enumerate(hits)],
        columns=["reader", "arm", "case", "malignant", "score"],
    )
    figures = mrmc.Ratings(rows, "sensitivity").figures(["a"])
    assert figures.values.ravel() == pytest.approx([0.6, 0.6])
    assert figures.covariance == pytest.approx(np.cov([first, second]) / 5)


def test_unbiased_covariances_are_right_on_average() -> None:
    """Over many draws of cases, the estimate of an area's variance averages to the areas' own variance."""
    rng, areas, estimates = np.random.default_rng(0), [], []
    for _ in range(400):
        positive, negative = rng.normal(1.0, 1.0, (1, 8)), rng.normal(0.0, 1.0, (1, 10))
        area, covariance = mrmc._areas(positive, negative)
        areas.append(area[0])
        estimates.append(covariance[0, 0])
    assert np.mean(estimates) == pytest.approx(np.var(areas), rel=0.15)


def test_every_figure_of_a_study_or_the_reason() -> None:
    cases = primary_cases(study(readers=6, cases=40).cases)
    found = mrmc.analyse_mrmc(cases, ["none", "grad_cam", "regions"], PLAN)
    assert [row["figure"] for row in found] == list(mrmc.FIGURES)
    assert all(0 <= row["unaided"]["value"] <= 1 for row in found)
    assert all({"low", "high", "p"} <= row["difference"].keys() for row in found)
    none = mrmc.analyse_mrmc(cases.assign(truth=None), ["regions"], PLAN)
    assert all("fewer than two readers" in row["difference"]["not_estimable"] for row in none)
    with pytest.raises(NotEstimable, match="no variation"):
        mrmc.compare(mrmc.Figures(np.ones((2, 3)), np.zeros((6, 6))), 0.05)
