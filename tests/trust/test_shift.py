import numpy as np
import pytest

from skinclip.trust import shift
from skinclip.trust.shift import fit_shift

RNG = np.random.default_rng(0)
CENTRES = np.array([[0.0, 0.0, 0.0], [6.0, 0.0, 0.0]])
SPREAD = np.array([1.0, 0.5, 0.1])


def photos(n: int) -> tuple[np.ndarray, np.ndarray]:
    labels = RNG.integers(0, 2, n)
    return CENTRES[labels] + RNG.normal(size=(n, 3)) * SPREAD, labels


def test_distance_equals_mahalanobis_with_the_same_covariance():
    x, labels = photos(4_000)
    fitted = fit_shift(x, labels, x[:100])
    offset = np.array([[0.5, 0.5, 0.3]])
    expected = ((offset / SPREAD) ** 2).sum()
    assert fitted.distances(CENTRES[1] + offset)[0] == pytest.approx(expected, rel=0.1)


def test_score_is_the_share_of_calibration_photos_nearer():
    fitted = fit_shift(*photos(2_000), photos(500)[0])
    new = fitted.score(photos(2_000)[0])
    assert np.mean(new) == pytest.approx(0.5, abs=0.05)
    assert np.mean(fitted.in_domain(new)) > 0.97
    far = fitted.score(np.array([[0.0, 0.0, 3.0], [3.0, 9.0, 0.0]]))
    assert far == pytest.approx([1.0, 1.0]) and not fitted.in_domain(far).any()
    assert fitted.score(CENTRES).max() < 0.05


def test_the_compact_form_keeps_the_order_of_the_full_one(monkeypatch):
    rng = np.random.default_rng(1)
    spread = np.concatenate([np.linspace(3, 1, 8), np.full(24, 0.2)])
    x = rng.normal(size=(3_000, 32)) * spread
    full = fit_shift(x, np.zeros(3_000, dtype=int), x[:50])
    monkeypatch.setattr(shift, "MAX_DIRECTIONS", 8)
    compact = fit_shift(x, np.zeros(3_000, dtype=int), x[:50])
    assert compact.directions.shape == (8, 32)
    assert np.corrcoef(full.distances(x), compact.distances(x))[0, 1] > 0.99


def test_labels_unknown_or_unseen_make_no_mean_and_constant_embeddings_no_error():
    x, labels = photos(100)
    fitted = fit_shift(x, np.where(labels == 0, 5, -1), x[:10])
    assert fitted.means.shape == (1, 3)
    flat = fit_shift(np.ones((10, 3)), np.zeros(10, dtype=int), np.ones((5, 3)))
    assert np.isfinite(flat.score(np.zeros((1, 3)))).all()


def test_says_why_it_cannot_fit():
    with pytest.raises(ValueError, match="one of them is empty"):
        fit_shift(np.ones((3, 2)), np.full(3, -1), np.ones((3, 2)))
