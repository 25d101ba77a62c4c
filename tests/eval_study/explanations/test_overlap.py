"""Maps against drawn regions, by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from eval_study.explanations import overlap

ONES = np.ones((1, 2))


def precision_of(values: list[np.ndarray], drawn: list[np.ndarray], weights: np.ndarray | None = None) -> float:
    metric = overlap.average_precision(*overlap.binned(values, drawn))
    return float(metric(np.ones((1, len(values))) if weights is None else weights)[0])


def test_average_precision_by_hand() -> None:
    """In order: drawn, not, drawn, not; precision 1 at the first and 2/3 at the second of the drawn places."""
    values, drawn = [np.array([0.9, 0.8]), np.array([0.7, 0.1])], [np.array([True, False]), np.array([True, False])]
    assert precision_of(values, drawn) == pytest.approx((1 + 2 / 3) / 2)
    assert precision_of(values, drawn, np.array([[2.0, 1.0]])) == pytest.approx((2 * 1 + 1 * 3 / 5) / 3)


def test_places_of_photos_without_the_attribute_count() -> None:
    drawn = [np.array([True, False]), np.array([False, False])]
    assert precision_of([np.array([0.5, 0.1]), np.array([0.4, 0.3])], drawn) == 1
    assert precision_of([np.array([0.5, 0.1]), np.array([0.9, 0.8])], drawn) == pytest.approx(1 / 3)


@pytest.mark.parametrize("decimals", [2, 9], ids=["tied values", "more values than bins"])
def test_average_precision_is_scikit_learns(decimals: int) -> None:
    rng = np.random.default_rng(0)
    drawn = [rng.random(4000) < 0.1 for _ in range(5)]
    values = [np.round(rng.normal(size=4000) + 1.5 * d, decimals) for d in drawn]
    wanted = average_precision_score(np.concatenate(drawn), np.concatenate(values))
    assert precision_of(values, drawn) == pytest.approx(wanted, abs=1e-3)


def test_a_perfect_map_has_all_and_a_random_one_about_chance() -> None:
    rng = np.random.default_rng(1)
    drawn = [rng.random(5000) < 0.15 for _ in range(10)]
    assert precision_of([d.astype(float) for d in drawn], drawn) == 1
    assert precision_of([rng.random(5000) for _ in drawn], drawn) == pytest.approx(0.15, abs=0.01)
    assert precision_of([np.zeros(5000) for _ in drawn], drawn) == pytest.approx(np.mean(drawn))  # flat: chance itself


def test_places_that_a_map_does_not_reach_come_last() -> None:
    drawn = [np.array([True, False, True])]
    assert precision_of([np.array([0.5, 0.2, -np.inf])], drawn) == pytest.approx((1 + 2 / 3) / 2)


def test_nothing_drawn_has_no_average_precision() -> None:
    assert np.isnan(precision_of([np.array([0.1, 0.2])], [np.zeros(2, bool)]))


def test_jaccard_is_pooled_and_not_a_mean_of_photos() -> None:
    predicted = [np.array([True, True, False, False]), np.array([True, False, False, False])]
    drawn = [np.array([True, True, True, False]), np.array([False, False, False, False])]
    parts, wholes = np.array([overlap.overlap(p, d) for p, d in zip(predicted, drawn, strict=True)]).T
    assert float(overlap.pooled_ratio(parts, wholes)(ONES)[0]) == 2 / 4  # (2 + 0) / (3 + 1); the mean would be 1/3


def test_the_best_threshold_by_hand() -> None:
    values, drawn = np.array([0.9, 0.7, 0.5, 0.1]), np.array([True, False, True, False])
    assert overlap.best_threshold(values, drawn) == 0.5  # Jaccard 1/2, 1/3, 2/3, 2/4
    assert overlap.best_threshold(values, np.array([True, False, False, False]), missed=5) == 0.9
    assert overlap.best_threshold(values, np.zeros(4, bool)) == np.inf


def test_a_threshold_does_not_cut_places_of_one_value_apart() -> None:
    values, drawn = np.array([0.5, 0.5, 0.5, 0.1]), np.array([True, False, False, True])
    assert overlap.best_threshold(values, drawn) == 0.1  # 1/4 with all of 0.5, 2/4 with all; never 1/2 by the first


def test_pointing_counts_places_of_one_height_in_parts() -> None:
    heat = np.array([[3.0, 9.0], [3.0, 1.0]])
    inside = np.array([[True, False], [True, True]])  # the highest place lies outside
    drawn = np.array([[True, False], [False, False]])
    assert overlap.pointing(heat, inside, drawn) == 0.5
    assert overlap.pointing(heat, np.ones((2, 2), bool), drawn) == 0


def test_share_of_a_region_inside_the_drawn_one() -> None:
    drawn = np.array([True, True, False, False])
    assert overlap.share_inside(np.array([False, True, True, False]), drawn) == 0.5
    assert overlap.share_inside(np.ones(4, bool), drawn) == 0.5
    assert np.isnan(overlap.share_inside(np.zeros(4, bool), drawn))
