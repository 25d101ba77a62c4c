import numpy as np
import pytest

from skinclip.calibration.referral import referral_threshold


def test_equals_hand_computed():
    p = np.array([0.9, 0.8, 0.7, 0.2, 0.75, 0.3, 0.1, 0.05])
    malignant = np.array([1, 1, 1, 1, 0, 0, 0, 0], dtype=bool)
    found = referral_threshold(p, malignant, sensitivity=0.75)
    assert (found.threshold, found.sensitivity, found.specificity) == (0.7, 0.75, 0.75)
    assert found.refer(np.array([0.7, 0.69])).tolist() == [True, False]


@pytest.mark.parametrize("n", [1, 7, 25, 50, 152])
def test_is_the_largest_that_reaches_the_target(n):
    rng = np.random.default_rng(n)
    p, malignant = rng.random(2 * n), np.arange(2 * n) < n
    found = referral_threshold(p, malignant, sensitivity=0.92)
    assert np.mean(p[malignant] >= found.threshold) >= 0.92 - 1e-12
    assert np.mean(p[malignant] >= np.nextafter(found.threshold, 1)) < 0.92


def test_without_malignant_or_benign_photos():
    with pytest.raises(ValueError, match="no malignant photo"):
        referral_threshold(np.array([0.5]), np.array([False]))
    assert np.isnan(referral_threshold(np.array([0.5]), np.array([True])).specificity)
