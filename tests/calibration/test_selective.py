import numpy as np
import pytest

from skinclip.calibration.selective import MIN_ANSWERED, leading_confidence, least_confidence

ONES = np.ones(100)


def test_equals_hand_computed():
    confidence = np.arange(100, 0, -1) / 100
    correct = np.arange(100) < 40  # the forty surest are right
    found = least_confidence(confidence, correct, ONES, 0.8)
    assert found == pytest.approx(0.51)  # 50 stay in, 40 of them right
    assert correct[confidence >= found].mean() == 0.8


def test_all_stay_in_where_all_are_good_enough():
    assert least_confidence(np.linspace(0.1, 1, 100), np.ones(100, bool), ONES, 0.9) == 0.0
    assert least_confidence(np.full(MIN_ANSWERED - 1, 0.5), np.zeros(MIN_ANSWERED - 1, bool), ONES[:19], 0.9) == 0.0


def test_where_it_cannot_be_reached_the_best_stay_in():
    rng = np.random.default_rng(0)
    confidence = rng.random(100)
    correct = rng.random(100) < 0.5 * confidence
    found = least_confidence(confidence, correct, ONES, 0.95)
    kept = confidence >= found
    assert kept.sum() >= MIN_ANSWERED and correct[kept].mean() > correct.mean()


def test_equal_confidences_stay_in_or_out_together():
    confidence = np.repeat([0.9, 0.5], [30, 70])
    correct = np.concatenate([np.ones(30, bool), np.arange(70) < 35])
    assert least_confidence(confidence, correct, ONES, 0.8) == pytest.approx(0.9)


def test_new_photos_that_stay_in_are_as_good_as_asked():
    rng, reached = np.random.default_rng(1), []
    for _ in range(200):
        confidence = rng.random(800)
        correct = rng.random(800) < confidence
        found = least_confidence(confidence, correct, np.ones(800), 0.8)
        again = rng.random(2_000)
        reached.append((rng.random(2_000) < again)[again >= found].mean())
    assert np.mean(reached) == pytest.approx(0.8, abs=0.01)


def test_leading_confidence_is_the_balanced_probability_of_what_is_shown():
    p, balanced = np.array([[0.7, 0.3], [0.2, 0.8]]), np.array([[0.4, 0.6], [0.1, 0.9]])
    assert leading_confidence(p, balanced).tolist() == [0.4, 0.9]
