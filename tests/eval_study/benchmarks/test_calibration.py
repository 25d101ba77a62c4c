import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import check_grad, minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from eval_study.benchmarks import calibration
from eval_study.benchmarks.calibration import maps, measure, referral, sets
from eval_study.benchmarks.calibration.sets import SetRule, aps, lac, raps
from eval_study.benchmarks.common import Measured
from skinclip.calibration.calibrator import MALIGNANT
from skinclip.calibration.conformal import Conformal, fit_conformal, pooled_classes
from skinclip.calibration.referral import Referral, referral_threshold
from skinclip.calibration.temperature import Calibration
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.data.cases import Case, DataError
from skinclip.evaluation import metrics
from skinclip.reporting.markdown import section_markdown
from tests.eval_study.benchmarks.measuring import Measuring

C = len(DIAGNOSIS_CODES)
TOGETHER, EACH = (0,) * C, tuple(range(C))
PRIOR = (0.1, 0.1, 0.12, 0.1, 0.12, 0.26, 0.1, 0.05, 0.05)
SHIPPED = Calibration(0.5, (0.0,) * C)
TRUST = SimpleNamespace(
    calibration=SHIPPED, conformal=Conformal(0.9, (0.8,)), referral=Referral(0.2, 0.92, 0.5), natural_prior=PRIOR
)


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits at twice the temperature at which they are calibrated, and labels drawn from softmax(2 logits)."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.array(PRIOR) * 5, n)
    return np.log(np.maximum(p, 1e-9)) / 2, (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)


def lesions(n: int) -> np.ndarray:
    return np.array([f"lesion{i // 2}" for i in range(n)])


def measured(split: str, n: int, seed: int) -> Measured:
    logits, labels = drawn(n, seed)
    p = SHIPPED.apply(logits)
    cases = [
        Case(Path("no.jpg"), f"{split}{i}", "ham10000", f"{split}{i // 2}", diagnosis=DIAGNOSIS_CODES[c], split=split)
        for i, c in enumerate(labels)
    ]
    groups = np.array([c.lesion_id for c in cases])
    nothing = np.zeros((n, 1))
    return Measured(
        *(cases, labels, MALIGNANT[labels].astype(int), np.full((n, 9), -1), groups, logits, p, p / PRIOR),
        *(nothing, nothing, nothing, np.zeros(n), Conformal(0.9, (0.8,)).members(p), p[:, 0] > 0.2, np.zeros(n)),
    )


class Given(Measuring):
    """A bench of given predictions."""

    assessor = SimpleNamespace(calibrator=TRUST)


def bench(folder: Path, *splits: str) -> Given:
    made = Given(folder, folder / "out", folder / "work", n_boot=20)
    made.given = {split: measured(split, 400, seed) for seed, split in enumerate(splits)}
    return made


# --- maps -------------------------------------------------------------------------------------------------------------


def test_temperature_is_that_of_least_negative_log_likelihood():
    logits, labels = drawn(2_000)
    best = minimize_scalar(lambda t: log_loss(labels, softmax(logits / t, axis=1)), bounds=(0.1, 5), method="bounded").x
    assert best == pytest.approx(0.5, abs=0.05)
    p = maps.temperature(logits, labels, lesions(2_000))(logits)
    assert p == pytest.approx(softmax(logits / best, axis=1), abs=1e-3)


def test_vector_scaling_of_two_classes_is_logistic_regression():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(500, 2))
    labels = (rng.random(500) < 1 / (1 + np.exp(logits[:, 0] * 2 - logits[:, 1] - 0.5))).astype(int)
    expected = LogisticRegression(C=np.inf, tol=1e-8).fit(logits, labels).predict_proba(logits)
    fitted = maps.vector_scaling(0.0)(logits, labels, lesions(500))(logits)
    assert fitted == pytest.approx(expected, abs=2e-3)


def test_vector_scaling_becomes_one_temperature_as_its_penalty_grows():
    logits, labels = drawn(2_000)
    fitted = maps.vector_scaling(1e4)(logits, labels, lesions(2_000))(logits)
    assert fitted == pytest.approx(maps.temperature(logits, labels, lesions(2_000))(logits), abs=2e-3)


def test_gradient_of_vector_scaling():
    logits, labels = drawn(50)
    at = np.random.default_rng(1).normal(size=2 * C)
    value, gradient = (lambda x, i=i: maps._vector_objective(x, logits, labels, 0.3)[i] for i in (0, 1))
    assert check_grad(value, gradient, at) < 1e-5


def test_dirichlet_is_regression_on_log_probabilities():
    logits, labels = drawn(700)
    x = log_softmax(logits, axis=1)
    expected = LogisticRegression(C=1 / 7, max_iter=5000, tol=1e-8).fit(x, labels).predict_proba(x)
    fitted = maps.dirichlet(0.01)(logits, labels, lesions(700))(logits)
    assert fitted == pytest.approx(expected, abs=1e-4)


def test_dirichlet_gives_nothing_to_a_class_it_never_saw():
    logits, labels = drawn(300)
    present = labels != 3
    p = maps.dirichlet(0.01)(logits[present], labels[present], lesions(300)[present])(logits)
    assert (p[:, 3] == 0).all()
    assert p.sum(axis=1) == pytest.approx(np.ones(300))


def test_isotonic_of_two_classes_is_that_of_sklearn():
    rng = np.random.default_rng(0)
    logits = np.column_stack([np.zeros(300), rng.normal(size=300)])
    labels = (rng.random(300) < softmax(logits * 2, axis=1)[:, 1]).astype(int)
    p = softmax(logits, axis=1)[:, 1]
    expected = IsotonicRegression(out_of_bounds="clip").fit(p, labels).predict(p)
    assert maps.isotonic(logits, labels, lesions(300))(logits)[:, 1] == pytest.approx(expected)


def test_no_lesion_is_mapped_by_a_map_that_saw_it():
    logits, labels = drawn(200)
    logits[:, 0] = np.arange(200)  # names the row
    held_out = []

    def spy(fitted_on, labels, groups):
        def apply(z):
            held_out.extend(z[:, 0])
            assert not set(groups) & {f"lesion{int(i) // 2}" for i in z[:, 0]}
            return softmax(z, axis=1)

        return apply

    p = maps.cross_fitted(spy, logits, labels, lesions(200), seed=0)
    assert sorted(held_out) == list(range(200))
    assert p.sum(axis=1) == pytest.approx(np.ones(200))


def test_strength_is_chosen_by_cross_validation():
    tried = []

    def kind(strength):
        def fit(logits, labels, groups):
            tried.append((strength, len(labels)))
            return lambda z: softmax(z * (2 if strength == 1e-3 else 0.1), axis=1)

        return fit

    logits, labels = drawn(300)
    apply = maps.by_cross_validation(kind, seed=0)(logits, labels, lesions(300))
    assert apply(logits) == pytest.approx(softmax(2 * logits, axis=1))
    assert tried[-1] == (1e-3, 300)  # at last on all rows
    assert {s for s, n in tried if n < 300} == set(maps._STRENGTHS)


# --- sets -------------------------------------------------------------------------------------------------------------


def test_lac_is_the_shipped_rule():
    logits, labels = drawn(501)
    p, new = SHIPPED.apply(logits), SHIPPED.apply(drawn(300, seed=1)[0])
    shipped, rule = fit_conformal(p, labels), SetRule(lac, TOGETHER)
    quantiles = rule.quantiles(p, labels)
    assert quantiles == pytest.approx(np.full(C, shipped.quantiles[0]))
    assert (rule.members(new, quantiles) == shipped.members(new)).all()


def test_raps_equals_hand_computed():
    p = np.array([[0.2, 0.5, 0.3]])
    assert aps(p) == pytest.approx(np.array([[1.0, 0.5, 0.8]]))
    assert raps(0.1, 1)(p) == pytest.approx(np.array([[1.2, 0.5, 0.9]]))


class NoChance(np.random.RandomState):
    """Turns MAPIE's randomised scores into plain ones."""

    def uniform(self, size):
        return np.zeros(size)


@pytest.mark.filterwarnings("ignore")
def test_aps_sets_equal_those_of_mapie():
    mapie = pytest.importorskip("mapie.classification")
    logits, labels = drawn(501)
    p, new = SHIPPED.apply(logits), SHIPPED.apply(drawn(300, seed=1)[0])
    given = maps._AsGiven(C)
    given.n_features_in_ = C
    theirs = mapie.SplitConformalClassifier(
        given, confidence_level=0.9, conformity_score="aps", prefit=True, random_state=NoChance(0)
    )
    _, sets = theirs.conformalize(p, labels).predict_set(new, conformity_score_params={"include_last_label": False})
    rule = SetRule(aps, TOGETHER)
    assert (rule.members(new, rule.quantiles(p, labels)) == sets[:, :, 0]).all()


def test_raps_scores_equal_those_of_mapie():
    sets = pytest.importorskip("mapie.conformity_scores.sets.raps")
    logits, labels = drawn(200)
    p = SHIPPED.apply(logits)
    summed, rank = sets.RAPSConformityScore.get_true_label_cumsum_proba(labels, p, np.arange(C))
    theirs = sets.RAPSConformityScore._regularize_conformity_score(np.array([2]), np.array(0.05), summed, rank)
    assert raps(0.05, 2)(p)[np.arange(200), labels] == pytest.approx(theirs[:, 0, 0])


def test_quantiles_by_class_cover_each_class():
    logits, labels = drawn(8_000)
    new_logits, new_labels = drawn(8_000, seed=1)
    rule, p = SetRule(lac, EACH), SHIPPED.apply(new_logits)
    inside = rule.members(p, rule.quantiles(SHIPPED.apply(logits), labels))
    for c in range(C):
        assert inside[new_labels == c, c].mean() == pytest.approx(0.9, abs=0.05)


def test_a_class_with_too_few_photos_is_in_every_set():
    logits, labels = drawn(500)
    kept = (labels != 2) | (np.cumsum(labels == 2) <= 8)  # eight photos: ceil(9 * 0.9) = 9 is one too many
    p = SHIPPED.apply(logits)
    rule = SetRule(lac, EACH)
    quantiles = rule.quantiles(p[kept], labels[kept])
    assert np.isinf(quantiles).tolist() == [c == 2 for c in range(C)]
    assert rule.members(p, quantiles)[:, 2].all()


def test_rare_classes_share_a_quantile():
    labels = np.repeat([0, 1, 2], [80, 20, 20])
    pooled = pooled_classes(labels, np.array([str(i) for i in range(120)]), C)
    assert pooled[0] == 0
    assert set(pooled[1:]) == {C}
    twice = pooled_classes(labels, np.array([str(i // 4) for i in range(120)]), C)
    assert set(twice) == {C}  # 80 photos of 20 lesions are few


def test_smallest_raps_has_no_larger_sets_than_another():
    logits, labels = drawn(600)
    p = SHIPPED.apply(logits)
    chosen = sets.smallest_raps(p, labels, lesions(600), seed=0)

    def size(score):
        rule = SetRule(score, TOGETHER)
        return rule.members(p, rule.quantiles(p, labels)).sum(axis=1).mean()

    assert size(chosen) <= min(size(raps(*setting)) for setting in sets._PENALTIES) + 0.05


def sets_of(worst: float, size: float) -> dict:
    return {"worst_coverage": worst, "set_size": {"value": size}, "out_of_order": 0.0}


def test_choice_of_sets():
    choice = {"shipped": sets_of(0.6, 1.2), "a": sets_of(0.86, 1.7), "b": sets_of(0.9, 2.1)}
    assert sets.chosen_sets(choice) == {"chosen": "a", "change": True, "fair": ["a", "b"]}
    assert sets.chosen_sets({"shipped": sets_of(0.6, 1.2), "a": sets_of(0.7, 3)})["chosen"] == "a"
    fine = sets.chosen_sets({"shipped": sets_of(0.88, 1.2), "a": sets_of(0.9, 1.7)})
    assert (fine["chosen"], fine["change"]) == ("shipped", False)
    assert sets.chosen_sets({"shipped": {**sets_of(0, 1), "worst_coverage": None}})["chosen"] == "shipped"
    disorderly = {"shipped": sets_of(0.9, 2.0), "small": {**sets_of(0.9, 1.0), "out_of_order": 0.01}}
    assert sets.chosen_sets(disorderly)["chosen"] == "shipped"


def map_of(nll: float, low: float, high: float) -> dict:
    return {"nll": {"value": nll}, "nll_above_shipped": {"value": nll - 0.6, "low": low, "high": high}}


def test_choice_of_map_wants_a_true_difference():
    of_maps = {"shipped": map_of(0.6, 0, 0), "a": map_of(0.59, -0.03, 0.01)}
    assert maps.chosen_map(of_maps)["chosen"] == "shipped"
    choice = maps.chosen_map(of_maps | {"b": map_of(0.55, -0.07, -0.03)})
    assert (choice["chosen"], choice["change"], choice["lowest_nll"]) == ("b", True, "b")


def test_set_figures_by_hand():
    m = measured("valid", 60, 0)
    m = replace(m, labels=np.repeat([4, 5], [20, 40]), groups=np.array([str(i // 2) for i in range(60)]))
    inside = np.zeros((60, C), bool)
    inside[:, 5] = True
    inside[:10, 4] = True
    figures = sets.set_figures(inside, m, metrics.GroupBootstrap(list(m.groups), 5))
    assert figures["coverage"]["value"] == pytest.approx(50 / 60)
    assert figures["malignant_coverage"]["value"] == pytest.approx(0.5)
    assert figures["set_size"]["value"] == pytest.approx(70 / 60)
    assert figures["singletons"]["value"] == pytest.approx(50 / 60)
    assert figures["singleton_accuracy"]["value"] == pytest.approx(40 / 50)
    assert figures["classes"]["mel"]["coverage"]["value"] == pytest.approx(0.5)
    assert figures["worst_class"] is None  # neither class has 30 lesions
    alone = replace(m, groups=np.array([str(i) for i in range(60)]))
    figures = sets.set_figures(inside, alone, metrics.GroupBootstrap(list(alone.groups), 5))
    assert (figures["worst_class"], figures["worst_coverage"]) == ("nv", 1.0)


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_a_calibrated_model_lies_on_its_noise_floor():
    logits, labels = drawn(1_000)
    p = {"none": softmax(logits, axis=1), "shipped": SHIPPED.apply(logits)}
    resamples = metrics.GroupBootstrap([str(i) for i in range(1_000)], 20)
    figures = maps.compare_maps(p, labels, np.array(PRIOR), resamples, seed=0)
    floor = figures["shipped"]["noise_floor"]["ece"]
    assert figures["shipped"]["ece"]["value"] <= floor["high"]
    assert figures["none"]["ece"]["value"] > 2 * figures["none"]["noise_floor"]["ece"]["high"]
    assert figures["none"]["nll_above_shipped"]["low"] > 0
    assert figures["shipped"]["nll_above_shipped"]["value"] == 0


def test_ece_of_the_rule_that_decides_by_prior():
    # Both rows decide for class 1, whose p is 0.4; one is right: |0.4 - 0.5|.
    p = np.array([[0.6, 0.4], [0.6, 0.4]])
    metric = maps._ece_of_rule(p, p / np.array([0.9, 0.1]), np.array([1, 0]))
    assert metric(np.ones((1, 2)))[0] == pytest.approx(0.1)


def test_reliability_by_hand():
    p = np.array([[0.95, 0.05], [0.95, 0.05], [0.45, 0.55]])
    low, high = maps.reliability(p, np.array([0, 1, 1]), seed=0)
    assert (low["n"], low["confidence"], low["accuracy"]) == (1, 0.55, 1.0)
    assert (high["n"], high["confidence"], high["accuracy"]) == (2, pytest.approx(0.95), 0.5)
    assert (low["low"], low["high"]) == (0.0, 1.0)  # one photo says nothing


def test_drawn_thresholds_spread_around_the_chosen_one():
    calib = measured("calib", 400, 0)
    own = referral_threshold(calib.malignancy, MALIGNANT[calib.labels]).threshold
    thresholds = referral.drawn_thresholds(calib, 100, seed=0)
    assert len(thresholds) == 100
    assert np.percentile(thresholds, 2.5) < own < np.percentile(thresholds, 97.5)
    assert (thresholds == referral.drawn_thresholds(calib, 100, seed=0)).all()


def test_maps_without_fit_gain_nothing_by_cross_fitting(tmp_path):
    calib, m = measured("calib", 400, 0), measured("valid", 300, 1)
    fitters = maps.fitters(TRUST, seed=0)
    fitted = {name: fit(calib.logits, calib.labels, calib.groups) for name, fit in fitters.items()}
    figures = measure.cross_fitting(bench(tmp_path), TRUST, calib, m, fitted)
    for name in ("none", "shipped"):
        assert {i["value"] for i in figures[name]["coverage_gained"].values()} == {0.0}
    assert figures["isotonic"]["coverage_gained"]["LAC"]["value"] > 0  # the map that fits noise most


def test_run_and_section(tmp_path):
    made = bench(tmp_path, "calib", "valid", "test")
    result = json.loads(made.save("calibration", calibration.run(made)).read_text())
    assert set(result["splits"]) == {"valid", "test"}
    assert result["choice"]["map"]["chosen"] in result["splits"]["valid"]["maps"]
    assert result["choice"]["sets"]["chosen"] in result["splits"]["valid"]["sets"]
    block = result["splits"]["test"]
    assert sum(b["n"] for b in block["reliability"]["shipped"]) == block["n"] == 400
    assert block["referral"]["shipped"]["threshold"] == 0.2
    text = section_markdown(calibration.section(result))
    assert f"**{result['choice']['sets']['chosen']}**" in text
    assert len(re.findall(r"\(figures/\w+\.svg\)", text)) == 3


def test_run_wants_valid(tmp_path):
    with pytest.raises(DataError, match="valid"):
        calibration.run(bench(tmp_path, "calib"))


def test_classes_without_a_photo_get_no_probability() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    logits = np.concatenate([np.eye(3)[labels] * 2 + rng.normal(size=(120, 3)), np.full((120, 2), -1e4)], axis=1)
    for fit in (maps.temperature, maps.isotonic):
        p = fit(logits, labels, labels)(logits)
        assert p.shape == logits.shape and not p[:, 3:].any()
        assert np.allclose(p.sum(axis=1), 1) and (p.argmax(axis=1) == labels).mean() > 0.6
