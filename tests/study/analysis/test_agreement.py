import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from skinclip.study.analysis import agreement
from skinclip.study.analysis.agreement import _Answer
from skinclip.study.errors import NotEstimable

TRUST = _Answer("trust", "ordinal")

# Shrout and Fleiss (1979), table 2: 6 targets, 4 judges. ICC(2,1) is .29 and ICC(2,4) .62.
SHROUT = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float)


def long(table: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
    """[cases, readers] with NaN where missing -> rows and values."""
    case, reader = np.nonzero(np.isfinite(table))
    rows = pd.DataFrame({"case": [f"C{i}" for i in case], "reader": [f"R{j}" for j in reader]})
    return rows, table[case, reader]


def test_icc_equals_the_published_example():
    found = agreement._icc(*long(SHROUT), TRUST, 0.05)
    assert found["single"] == pytest.approx(0.29, abs=0.005)
    assert found["average"] == pytest.approx(0.62, abs=0.005)
    assert found["readers_a_case"] == 4
    assert found["low"] < found["single"] < found["high"]


# krippendorff 0.9.0 on the same incomplete table
@pytest.mark.parametrize(("level", "expected"), [("nominal", -0.04672897196261694), ("ordinal", 0.22438631162887446)])
def test_alpha_equals_the_library_on_incomplete_data(level, expected):
    table = SHROUT.copy()
    table[0, 1] = table[3, 3] = np.nan
    rows, values = long(table)
    found = agreement._alpha(rows, values, _Answer("trust", level), 50, 0, 0.05)
    assert found["value"] == pytest.approx(expected, rel=1e-12)
    assert found["low"] <= found["high"]


# Krippendorff (2011): four observers, twelve units, missing values; nominal .743, ordinal .815, interval .849
PUBLISHED = """1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 ."""


@pytest.mark.parametrize(("level", "expected"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_equals_the_published_example(level, expected):
    table = np.array([[np.nan if v == "." else float(v) for v in row.split()] for row in PUBLISHED.splitlines()])
    counts = np.stack([(table == value).sum(axis=0) for value in range(1, 6)], axis=1).astype(float)
    found = agreement.krippendorff_alpha(counts, np.arange(1.0, 6.0), level)
    assert found == pytest.approx(expected, abs=0.0005)


def test_kappa_of_two_readers_equals_cohens_of_both_orders():
    rng = np.random.default_rng(0)
    a = rng.integers(1, 6, 40)
    b = np.clip(a + rng.integers(-1, 2, 40), 1, 5)
    found = agreement._kappa(*long(np.stack([a, b], axis=1).astype(float)), TRUST)
    both = cohen_kappa_score(np.r_[a, b], np.r_[b, a], weights="quadratic")
    assert found["value"] == pytest.approx(both)


def test_weights_of_kappa_count_points_that_nobody_chose():
    # 1 against 5 is four steps although nobody chose 2-4: the weight of a step is its length on the scale.
    a, b = np.array([1, 1, 2, 5]), np.array([1, 2, 1, 5])
    found = agreement._cohen(a, b, np.ones(4), "ordinal")
    points = cohen_kappa_score(a, b, labels=[1, 2, 3, 4, 5], weights="quadratic")
    assert found["value"] == pytest.approx(points)


def test_retest_compares_the_first_answer_with_the_repeat():
    cases = pd.DataFrame(
        {
            "reader": ["R1"] * 6,
            "case": ["C1", "C2", "C3"] * 2,
            "arm": ["regions"] * 6,
            "repeat": pd.array([False] * 3 + [True] * 3, dtype="boolean"),
            "trust": [3.0, 4.0, 5.0, 3.0, 5.0, 5.0],
        }
    )
    found = agreement._retest(cases, TRUST)
    assert (found["pairs"], found["equal"]) == (3, pytest.approx(2 / 3))
    assert found["within_sd"] == pytest.approx(np.sqrt(1 / 3 / 2))


@pytest.mark.parametrize(
    "table", [np.full((4, 3), 2.0), np.diag([1.0, 2.0, 3.0]) + np.where(np.eye(3) == 1, 0, np.nan)]
)
def test_no_agreement_without_two_answers_to_compare(table):
    with pytest.raises(NotEstimable):
        agreement._alpha(*long(table), TRUST, 10, 0, 0.05)
    with pytest.raises(NotEstimable):
        agreement._kappa(*long(table), TRUST)
