import numpy as np
import pytest

from skinclip.calibration.conformal import (
    MIN_LESIONS,
    Conformal,
    fit_conformal,
    pooled_classes,
    quantile,
    weighted_quantile,
)


def two_class(p_true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.column_stack([p_true, 1 - p_true]), np.zeros(len(p_true), dtype=int)


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(7, 0.3), n)
    return p, (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)


def test_quantile_equals_hand_computed():
    # Nine scores 0.1 ... 0.9, coverage 0.8: k = ceil(10 * 0.8) = 8, the 8th smallest.
    p, labels = two_class(np.arange(1, 10) / 10)
    assert fit_conformal(p, labels, coverage=0.8).quantiles == (pytest.approx(0.8),)


def test_too_few_photos_rule_nothing_out():
    fitted = fit_conformal(*two_class(np.array([0.9, 0.9, 0.9])), coverage=0.9)
    assert fitted.members(np.array([[1.0, 0.0]])).all()


def test_covers_new_photos_as_stated():
    fitted = fit_conformal(*drawn(2_000), coverage=0.9)
    p, labels = drawn(20_000, seed=1)
    assert fitted.members(p)[np.arange(len(p)), labels].mean() == pytest.approx(0.9, abs=0.02)


def test_never_empty_and_sorted_by_probability():
    sets = Conformal(0.9, quantiles=(0.6,)).sets(np.array([[0.35, 0.33, 0.32], [0.45, 0.5, 0.05]]), ("a", "b", "c"))
    assert sets == [("a",), ("b", "a")]


def test_unlabelled_rows_are_left_out():
    p, labels = drawn(100)
    more = fit_conformal(np.vstack([p, p[:9]]), np.append(labels, [-1] * 9))
    assert more == fit_conformal(p, labels)


@pytest.mark.filterwarnings("ignore")
def test_sets_equal_those_of_mapie():
    mapie = pytest.importorskip("mapie.classification")
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Passthrough(ClassifierMixin, BaseEstimator):
        """A fitted classifier whose inputs are its probabilities."""

        def __init__(self) -> None:
            self.classes_ = np.arange(7)
            self.n_features_in_ = 7

        def fit(self, x, y):
            return self

        def predict_proba(self, x):
            return np.asarray(x)

        def predict(self, x):
            return np.asarray(x).argmax(axis=1)

    p, labels = drawn(501)
    new, _ = drawn(300, seed=2)
    theirs = mapie.SplitConformalClassifier(Passthrough(), confidence_level=0.9, conformity_score="lac", prefit=True)
    _, sets = theirs.conformalize(p, labels).predict_set(new)
    ours = fit_conformal(p, labels, coverage=0.9)
    as_mapie = 1.0 - new <= ours.quantiles[0]  # without our rule that no set is empty
    assert (sets[:, :, 0] == as_mapie).all()


def test_coverage_must_be_a_share():
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit_conformal(*drawn(10), coverage=90)


def test_quantiles_by_class_cover_each_class():
    groups = (0, 1, 2, 3, 4, 7, 7)
    fitted = fit_conformal(*drawn(4_000), coverage=0.9, class_groups=groups)
    p, labels = drawn(40_000, seed=1)
    by_quantile = (1.0 - p <= fitted.quantiles)[np.arange(len(p)), labels]
    assert [by_quantile[labels == c].mean() for c in range(5)] == pytest.approx([0.9] * 5, abs=0.03)
    assert fitted.quantiles[5] == fitted.quantiles[6] and len(set(fitted.quantiles)) == 6
    assert by_quantile[labels >= 5].mean() == pytest.approx(0.9, abs=0.03)
    inside = fitted.members(p)
    assert (inside[np.arange(len(p)), labels] >= by_quantile).all()
    assert not (~inside & (p > np.where(inside, p, 1.0).min(axis=1, keepdims=True))).any()


def test_what_is_more_probable_than_a_member_is_a_member():
    fitted = Conformal(0.9, quantiles=(0.4, 0.9, 0.5))
    # by quantiles alone the second of the first two photos, at .12 and .11, beside the most probable
    p = np.array([[0.39, 0.12, 0.49], [0.5, 0.11, 0.39], [0.7, 0.05, 0.25]])
    assert fitted.members(p).tolist() == [[True, True, True], [True, True, True], [True, False, False]]


def test_rare_classes_share_a_quantile():
    labels = np.repeat([0, 1, 2], [MIN_LESIONS, 2 * MIN_LESIONS - 2, 4])
    lesions = np.concatenate([np.arange(MIN_LESIONS), np.repeat(np.arange(MIN_LESIONS - 1), 2), np.arange(4)])
    assert pooled_classes(labels, lesions, 3) == (0, 3, 3)


def test_a_class_that_was_never_seen_is_never_ruled_out():
    p, labels = drawn(300)
    kept = labels != 2
    fitted = fit_conformal(p[kept], labels[kept], class_groups=range(7))
    assert fitted.quantiles[2] == 1.0 and fitted.members(p)[:, 2].all()


@pytest.mark.parametrize("n", [1, 9, 10, 57, 300])
def test_equal_weights_give_the_plain_quantile(n):
    scores = np.random.default_rng(n).random(n)
    for coverage in (0.8, 0.9, 0.95):
        assert weighted_quantile(scores, np.full(n, 0.37), coverage) == quantile(scores, coverage)


def test_weights_cover_each_source_alike():
    """A mixture in which each source counts the same is covered, though one has ten times the photos."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        scores = np.concatenate([rng.normal(0, 1, 200), rng.normal(1, 1, 20)])
        q = weighted_quantile(scores, np.repeat([110 / 200, 110 / 20], [200, 20]), 0.9)
        held.append(np.mean([(rng.normal(0, 1, 100) <= q).mean(), (rng.normal(1, 1, 100) <= q).mean()]))
    assert 0.9 <= np.mean(held) <= 0.95
