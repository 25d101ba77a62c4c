import numpy as np
import pytest

from skinclip.calibration.referral import (
    SENSITIVITY,
    allowed_misses,
    guaranteed_threshold,
    lower_bound,
    referral_threshold,
)


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


def drawn(rng: np.random.Generator, n: int, strength: float) -> np.ndarray:
    return 1 / (1 + np.exp(-rng.normal(strength, 1, n)))


@pytest.mark.parametrize("n", [12, 25, 61, 200])
def test_the_promise_holds_on_average_over_calibration_sets(n):
    rng, reached = np.random.default_rng(n), []
    for _ in range(2_000):
        scores = np.concatenate([drawn(rng, n, 1.0), drawn(rng, 50, -1.0)])
        malignant = np.arange(n + 50) < n
        found = guaranteed_threshold(scores, malignant.astype(int), np.full(n + 50, "a dermoscopy"), np.arange(n + 50))
        reached.append(float(np.mean(drawn(rng, 400, 1.0) >= found.threshold)))
    assert np.mean(reached) >= SENSITIVITY - 2 * np.std(reached) / np.sqrt(len(reached))
    assert np.mean(reached) <= SENSITIVITY + 1 / (n + 1) + 0.01  # and no more is given away than one lesion


def test_the_promise_holds_in_every_source():
    rng, reached = np.random.default_rng(0), {1.5: [], 0.5: []}
    n = 80
    groups = np.repeat(["easy dermoscopy", "hard dermoscopy"], n)
    for _ in range(500):
        scores = np.concatenate([drawn(rng, n, 1.5), drawn(rng, n, 0.5)])
        found = guaranteed_threshold(scores, np.ones(2 * n, int), groups, np.arange(2 * n))
        for strength, shares in reached.items():
            shares.append(float(np.mean(drawn(rng, 400, strength) >= found.threshold)))
    assert all(np.mean(shares) >= SENSITIVITY - 0.005 for shares in reached.values())
    assert np.mean(reached[0.5]) == pytest.approx(SENSITIVITY, abs=0.02)


def test_equals_a_threshold_computed_by_hand():
    # 25 malignant lesions: (m + 1) / 26 <= 0.08 allows one miss, so the second lowest score is the threshold
    scores = np.concatenate([np.arange(1, 26) / 26, [0.01, 0.05, 0.5]])
    malignant = np.array([1] * 25 + [0] * 3)
    found = guaranteed_threshold(scores, malignant, np.full(28, "x clinical"), np.arange(28))
    assert found.threshold == pytest.approx(2 / 26) and found.sensitivity == pytest.approx(24 / 25)
    (group,) = found.by_group
    assert (group.n, group.specificity) == (25, pytest.approx(2 / 3))
    assert group.bound == pytest.approx(lower_bound(24, 25)) and 0.84 < group.bound < 0.86
    assert [allowed_misses(n) for n in (11, 12, 24, 61, 90)] == [-1, 0, 1, 3, 6]


def test_a_lesion_with_many_photos_counts_once():
    scores = np.array([0.1, *[0.9] * 30, 0.3])
    lesions = np.array(["one"] + [f"l{i}" for i in range(30)] + ["one"])
    found = guaranteed_threshold(scores, np.ones(32, int), np.full(32, "a b"), lesions)
    assert found.by_group[0].n == 31


def test_unlabelled_photos_and_groups_without_malignant_ones_are_no_error():
    scores, malignant = np.array([0.9] * 20 + [0.2, 0.3]), np.array([1] * 20 + [-1, 0])
    groups = np.array(["a b"] * 20 + ["a b", "c b"])
    found = guaranteed_threshold(scores, malignant, groups, np.arange(22))
    assert found.threshold == 0.9 and found.worst is not None and found.worst.group == "a b"
    assert np.isnan(found.by_group[0].specificity) and found.by_group[1].n == 0
    with pytest.raises(ValueError, match="no malignant photo"):
        guaranteed_threshold(scores, np.zeros(22, int), groups, np.arange(22))


@pytest.mark.parametrize("hits,n", [(0, 10), (57, 61), (61, 61)])
def test_the_lower_bound_is_that_of_scipy(hits, n):
    from scipy.stats import binomtest

    expected = binomtest(hits, n, alternative="greater").proportion_ci(0.9, "exact").low
    assert lower_bound(hits, n) == pytest.approx(expected)
