import numpy as np
import pytest

from skinclip.calibration import shift
from skinclip.calibration.shift import fit_shift

RNG = np.random.default_rng(0)
CENTRE, SPREAD = np.array([6.0, 0.0, -200.0]), np.array([1.0, 0.5, 100.0])


def photos(n: int) -> np.ndarray:
    return CENTRE + RNG.normal(size=(n, 3)) * SPREAD


def test_distance_equals_mahalanobis_with_the_same_covariance():
    fitted = fit_shift(photos(4_000), photos(100))
    offset = np.array([[0.5, 0.5, 30.0]])
    assert fitted.distances(CENTRE + offset)[0] == pytest.approx(((offset / SPREAD) ** 2).sum(), rel=0.1)


def test_correlated_features_are_told_from_broken_correlations():
    shared = RNG.normal(size=(3_000, 1))
    fitted = fit_shift(shared + 0.1 * RNG.normal(size=(3_000, 2)), np.zeros((1, 2)))
    along, across = fitted.distances(np.array([[1.5, 1.5], [1.5, -1.5]]))
    assert across > 20 * along


def test_score_is_the_share_of_held_out_photos_nearer():
    fitted = fit_shift(photos(2_000), photos(500))
    new = fitted.score(photos(2_000))
    assert np.mean(new) == pytest.approx(0.5, abs=0.05)
    assert np.mean(fitted.in_domain(new)) > 0.97
    far = fitted.score(CENTRE + np.array([[9.0, 0.0, 0.0], [0.0, 0.0, 900.0]]))
    assert far == pytest.approx([1.0, 1.0]) and not fitted.in_domain(far).any()
    assert fitted.score(CENTRE[None]).max() < 0.05


def test_the_compact_form_keeps_the_order_of_the_full_one(monkeypatch):
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(8, 32))
    x = rng.normal(size=(3_000, 8)) @ mixing + 0.3 * rng.normal(size=(3_000, 32))
    full = fit_shift(x, x[:50])
    monkeypatch.setattr(shift, "MAX_DIRECTIONS", 8)
    compact = fit_shift(x, x[:50])
    assert compact.directions.shape == (8, 32)
    assert np.corrcoef(full.distances(x), compact.distances(x))[0, 1] > 0.9


def test_features_that_never_vary_make_no_error():
    flat = fit_shift(np.ones((10, 3)), np.ones((5, 3)))
    assert np.isfinite(flat.score(np.zeros((1, 3)))).all()


def test_says_why_it_cannot_fit():
    with pytest.raises(ValueError, match="one of them is empty"):
        fit_shift(np.ones((0, 2)), np.ones((3, 2)))
