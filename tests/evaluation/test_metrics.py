import itertools

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import (
    binary_calibration_error,
    binary_sensitivity_at_specificity,
    multiclass_calibration_error,
)

from skinclip.evaluation import metrics

N, C = 400, 7
RNG = np.random.default_rng(0)
LABELS = RNG.choice(C, N, p=[0.03, 0.05, 0.11, 0.02, 0.1, 0.66, 0.03])
P = RNG.dirichlet(np.full(C, 0.5), N) * 0.6 + 0.4 * np.eye(C)[LABELS]
P = np.where(RNG.random((N, 1)) < 0.3, np.roll(P, 1, axis=1), P).round(2) + 1e-6  # rounded: ties for the AUROC
P /= P.sum(axis=1, keepdims=True)
GUESS = P.argmax(axis=1)
UNKNOWN = np.where(np.arange(N) % 5 == 0, -1, LABELS)  # every fifth label missing
KNOWN = UNKNOWN >= 0


def once(metric: metrics.Metric, n: int = N) -> float:
    return float(metric(np.ones((1, n)))[0])


def test_diagnosis_figures_equal_sklearn_and_torchmetrics():
    kept, p, guess = LABELS[KNOWN], P[KNOWN], GUESS[KNOWN]
    assert once(metrics.accuracy(UNKNOWN, GUESS)) == pytest.approx(sk.accuracy_score(kept, guess))
    assert once(metrics.balanced_accuracy(UNKNOWN, GUESS)) == pytest.approx(sk.balanced_accuracy_score(kept, guess))
    recalls = sk.recall_score(kept, guess, average=None)
    assert [once(metrics.recall(UNKNOWN, GUESS, c)) for c in range(C)] == pytest.approx(list(recalls))
    auroc = sk.roc_auc_score(kept, p, multi_class="ovr", average="macro")
    assert once(metrics.auroc_macro(P, UNKNOWN)) == pytest.approx(auroc)
    brier = sk.brier_score_loss(kept, p, labels=np.arange(C), scale_by_half=False)
    assert once(metrics.brier(P, UNKNOWN)) == pytest.approx(brier)
    assert once(metrics.nll(P, UNKNOWN)) == pytest.approx(sk.log_loss(kept, p, labels=np.arange(C)))
    ece = multiclass_calibration_error(torch.tensor(p), torch.tensor(kept), num_classes=C, n_bins=15, norm="l1")
    assert once(metrics.ece(P, UNKNOWN)) == pytest.approx(float(ece), abs=1e-6)


def test_ece_equals_hand_computed():
    # Bin of 0.9: one hit, one miss, gap |0.9 - 0.5|; bin of 0.6: one hit, gap 0.4; weights 2/3 and 1/3.
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    assert once(metrics.ece(p, np.array([0, 1, 1])), 3) == pytest.approx(0.4)
    sure = np.array([[1.0, 0.0]])
    assert once(metrics.ece(sure, np.array([0])), 1) == 0.0


def test_adaptive_ece_equals_sklearns_quantile_bins_and_hand_computed():
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(C), 300)  # no ties, so that 15 bins hold 20 each
    labels = rng.integers(0, C, 300)
    hit = p.argmax(axis=1) == labels
    rate, confidence = calibration_curve(hit, p.max(axis=1), n_bins=15, strategy="quantile")
    assert once(metrics.adaptive_ece(p, labels), 300) == pytest.approx(np.abs(rate - confidence).mean())
    # Two bins of two: {0.6 miss, 0.7 hit} gap |1.3 - 1| = 0.3, {0.8 hit, 0.9 hit} gap |1.7 - 2| = 0.3; over 4 rows.
    q = np.array([0.6, 0.7, 0.8, 0.9])
    small = np.stack([q, 1 - q], axis=1)
    assert once(metrics.adaptive_ece(small, np.array([1, 0, 0, 0]), bins=2), 4) == pytest.approx(0.15)
    with_unknown, more = np.append(small, [[0.95, 0.05]], axis=0), np.array([1, 0, 0, 0, -1])
    assert once(metrics.adaptive_ece(with_unknown, more, bins=2), 5) == pytest.approx(0.15)
    same = np.tile([[0.8, 0.2]], (10, 1))  # equal confidences share a bin: 6 of 10 right at 0.8
    assert once(metrics.adaptive_ece(same, np.array([0] * 6 + [1] * 4)), 10) == pytest.approx(0.2)


def test_classwise_ece_equals_torchmetrics_class_by_class():
    kept, p = LABELS[KNOWN], P[KNOWN]
    each = [
        binary_calibration_error(torch.tensor(p[:, c]), torch.tensor(kept == c).int(), n_bins=15, norm="l1")
        for c in range(C)
    ]
    assert once(metrics.classwise_ece(P, UNKNOWN)) == pytest.approx(float(np.mean(each)), abs=1e-6)
    # Both classes: |0.9 + 0.9 - 1| / 2 = 0.4.
    assert once(metrics.classwise_ece(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1])), 2) == pytest.approx(0.4)


@pytest.mark.parametrize("metric", [metrics.ece, metrics.adaptive_ece, metrics.classwise_ece])
def test_noise_floor_is_what_drawn_labels_give(metric, monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK", 50 * C * 7)  # several blocks
    p, rng = P[:50], np.random.default_rng(5)
    floor = metrics.ece_noise_floor(p, draws=2000, seed=1, metric=metric)
    drawn = [once(metric(p, np.array([rng.choice(C, p=row) for row in p])), 50) for _ in range(400)]
    assert floor["mean"] == pytest.approx(np.mean(drawn), rel=0.05)
    assert (floor["low"], floor["high"]) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), rel=0.15)
    assert metrics.ece_noise_floor(p, draws=2000, seed=1, metric=metric) == floor
    assert metrics.ece_noise_floor(p, draws=2000, seed=2, metric=metric) != floor


def test_noise_floor_by_hand_and_without_photos():
    # One photo at 0.75: the gap is 0.25 where it is right, in 3 of 4 draws, and 0.75 else; the mean is 0.375.
    one = metrics.ece_noise_floor(np.array([[0.75, 0.25]]), draws=4000)
    assert one == {"mean": pytest.approx(0.375, abs=0.02), "low": 0.25, "high": 0.75}
    sure = metrics.ece_noise_floor(np.eye(3), draws=10)
    assert sure == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert all(np.isnan(v) for v in metrics.ece_noise_floor(np.zeros((0, C))).values())


@pytest.mark.parametrize("specificity", [0.0, 0.5, 0.9, 1.0])
def test_sensitivity_at_specificity_equals_torchmetrics(specificity):
    malignant, score = LABELS < 2, P[:, :2].sum(axis=1)
    theirs, _ = binary_sensitivity_at_specificity(
        torch.tensor(score[KNOWN]), torch.tensor(malignant[KNOWN]).int(), min_specificity=specificity
    )
    found = metrics.sensitivity_at_specificity(score, malignant, KNOWN, specificity)
    assert once(found) == pytest.approx(float(theirs), abs=1e-6)


def test_sensitivity_at_specificity_by_hand():
    score, positive = np.array([0.9, 0.8, 0.7, 0.6, 0.6]), np.array([True, False, True, False, True])
    found = [once(metrics.sensitivity_at_specificity(score, positive, None, s), 5) for s in (1.0, 0.5, 0.0)]
    assert found == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert np.isnan(once(metrics.sensitivity_at_specificity(score, np.ones(5), None, 0.9), 5))
    assert np.isnan(once(metrics.sensitivity_at_specificity(score, np.zeros(5), None, 0.9), 5))


def test_precision_equals_sklearn():
    theirs = sk.precision_score(LABELS[KNOWN], GUESS[KNOWN], average=None, labels=np.arange(C), zero_division=np.nan)
    ours = [once(metrics.precision(UNKNOWN, GUESS, c)) for c in range(C)]
    assert ours == pytest.approx(list(theirs), nan_ok=True)


def test_risk_and_coverage_by_hand():
    confidence, correct = np.array([0.6, 0.9, 0.8, 0.7]), np.array([True, True, False, True])
    # In order of confidence: right, wrong, right, right. Risks of the first 1, 2, 3, 4: 0, 1/2, 1/3, 1/4.
    assert once(metrics.aurc(confidence, correct), 4) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    risks = [once(metrics.risk_at_coverage(confidence, correct, c), 4) for c in (0.25, 0.5, 0.75, 1.0)]
    assert risks == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4])
    known = np.array([True, True, True, False])
    assert once(metrics.aurc(confidence, correct, known), 4) == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    assert once(metrics.risk_at_coverage(confidence, correct, 1.0, known), 4) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="coverage 0"):
        metrics.risk_at_coverage(confidence, correct, 0)


def test_equal_confidences_count_as_the_mean_over_their_orders():
    confidence, correct = np.array([0.9, 0.5, 0.5, 0.5, 0.1]), np.array([True, True, False, False, True])
    areas, risks = [], []
    for order in itertools.permutations([1, 2, 3]):
        wrong = np.cumsum(~correct[[0, *order, 4]])
        areas.append((wrong / np.arange(1, 6)).mean())
        risks.append(wrong[1] / 2)
    assert once(metrics.aurc(confidence, correct), 5) == pytest.approx(np.mean(areas))
    assert once(metrics.risk_at_coverage(confidence, correct, 0.4), 5) == pytest.approx(np.mean(risks))


def test_a_confidence_that_says_nothing_has_the_error_rate_as_its_area():
    correct = np.arange(20) % 4 != 0
    assert once(metrics.aurc(np.full(20, 0.5), correct), 20) == pytest.approx(0.25)


def test_binary_auroc_and_shares():
    malignant, score = LABELS < 2, P[:, :2].sum(axis=1)
    assert once(metrics.auroc(score, malignant)) == pytest.approx(sk.roc_auc_score(malignant, score))
    assert once(metrics.auroc(score, malignant, KNOWN)) == pytest.approx(
        sk.roc_auc_score(malignant[KNOWN], score[KNOWN])
    )
    refer = score >= 0.3
    sensitivity = sk.recall_score(malignant, refer)
    assert once(metrics.share(refer, malignant)) == pytest.approx(sensitivity)


@pytest.mark.parametrize("seed", range(3))
def test_weights_act_as_repeated_rows(seed):
    rng = np.random.default_rng(seed)
    times = rng.integers(0, 4, N)
    rows = np.repeat(np.arange(N), times)
    made = {
        "auroc": lambda i: metrics.auroc_macro(P[i], UNKNOWN[i]),
        "balanced": lambda i: metrics.balanced_accuracy(UNKNOWN[i], GUESS[i]),
        "ece": lambda i: metrics.ece(P[i], UNKNOWN[i]),
        "brier": lambda i: metrics.brier(P[i], UNKNOWN[i]),
        "classwise": lambda i: metrics.classwise_ece(P[i], UNKNOWN[i]),
        "precision": lambda i: metrics.precision(UNKNOWN[i], GUESS[i], 5),
        "at specificity": lambda i: metrics.sensitivity_at_specificity(P[i, 5], LABELS[i] == 5, KNOWN[i], 0.9),
        "aurc": lambda i: metrics.aurc(P[i].max(axis=1), (GUESS == LABELS)[i], KNOWN[i]),
        "risk": lambda i: metrics.risk_at_coverage(P[i].max(axis=1), (GUESS == LABELS)[i], 0.8, KNOWN[i]),
        "mean": lambda i: metrics.mean(np.where(KNOWN, P[:, 0], np.nan)[i]),
    }
    for make in made.values():
        weighted = make(np.arange(N))(times[None].astype(float))[0]
        assert weighted == pytest.approx(once(make(rows), len(rows)))


def test_undefined_figures_are_none():
    same = np.zeros(4, dtype=int)
    groups = list("abcd")
    assert metrics.bootstrap(metrics.auroc_macro(P[:4], same), groups, n=5) is None
    assert metrics.bootstrap(metrics.accuracy(np.full(4, -1), same), groups, n=5) is None
    assert metrics.bootstrap(metrics.mean(np.zeros(0)), [], n=5) is None
    assert metrics.bootstrap(metrics.auroc(np.zeros(0), np.zeros(0, dtype=bool)), [], n=5) is None
    assert metrics.bootstrap(metrics.mean_of([]), groups, n=5) is None
    unlabelled, nobody = np.full(4, -1), np.zeros(4, dtype=bool)
    for metric in (
        metrics.ece(P[:4], unlabelled),
        metrics.adaptive_ece(P[:4], unlabelled),
        metrics.classwise_ece(P[:4], unlabelled),
        metrics.precision(unlabelled, same, 0),
        metrics.precision(same, same, 3),
        metrics.sensitivity_at_specificity(P[:4, 0], nobody, nobody, 0.9),
        metrics.aurc(P[:4, 0], nobody, nobody),
        metrics.risk_at_coverage(P[:4, 0], nobody, 0.5, nobody),
    ):
        assert metrics.bootstrap(metric, groups, n=5) is None
    assert metrics.bootstrap(metrics.accuracy(same, same), ["a"] * 4, n=5) == {"value": 1.0, "low": None, "high": None}


def test_interval_is_seeded_and_of_the_expected_width():
    hits = np.zeros(400)
    hits[:100] = 1
    interval = metrics.bootstrap(metrics.mean(hits), [str(i) for i in range(400)], n=2000, seed=3)
    error = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert interval["value"] == 0.25
    assert (interval["low"], interval["high"]) == pytest.approx((0.25 - error, 0.25 + error), abs=0.01)
    again = metrics.bootstrap(metrics.mean(hits), [str(i) for i in range(400)], n=2000, seed=3)
    assert again == interval


def test_a_share_without_a_miss_has_the_exact_interval_of_its_lesions():
    groups = [f"lesion {i // 2}" for i in range(60)]
    resamples = metrics.GroupBootstrap(groups, 200)
    among = np.arange(60) < 40  # 20 of the 30 lesions
    whole = resamples.interval(metrics.share(np.ones(60, bool), among))
    assert whole and (whole["value"], whole["high"]) == (1, 1) and whole["low"] == pytest.approx(0.025 ** (1 / 20))
    none = resamples.interval(metrics.share(np.zeros(60, bool), among))
    assert none and (none["value"], none["low"]) == (0, 0) and none["high"] == pytest.approx(1 - 0.025 ** (1 / 20))
    nearly = resamples.interval(metrics.share(np.arange(60) > 0, among))
    assert nearly == metrics.bootstrap(metrics.mean(np.where(among, np.arange(60) > 0, np.nan)), groups, 200)
    unknown = np.where(np.arange(60) < 10, np.nan, 1.0)
    few = resamples.interval(metrics.share(unknown, among))
    assert few and few["low"] == pytest.approx(0.025 ** (1 / 15))


def test_rows_of_one_lesion_are_drawn_together():
    hits = np.repeat(np.arange(40) % 4 == 0, 10).astype(float)
    by_row = metrics.bootstrap(metrics.mean(hits), [str(i) for i in range(400)])
    by_lesion = metrics.bootstrap(metrics.mean(hits), [str(i // 10) for i in range(400)])
    assert by_lesion["high"] - by_lesion["low"] > 2 * (by_row["high"] - by_row["low"])


def test_blocks_of_resamples_do_not_change_the_interval(monkeypatch):
    metric, groups = metrics.balanced_accuracy(LABELS, GUESS), [str(i) for i in range(N)]
    whole = metrics.bootstrap(metric, groups, n=50)
    monkeypatch.setattr(metrics, "_BLOCK", N * 7)
    assert metrics.bootstrap(metric, groups, n=50) == whole


def test_a_class_missing_from_a_resample_does_not_break_the_interval():
    labels = np.array([0] * 20 + [1])
    interval = metrics.bootstrap(metrics.balanced_accuracy(labels, labels), [str(i) for i in range(21)], n=200)
    assert interval == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_differences_are_paired():
    better = np.where(RNG.random(N) < 0.1, LABELS, GUESS)
    a, b = metrics.accuracy(UNKNOWN, better), metrics.accuracy(UNKNOWN, GUESS)
    groups = [str(i) for i in range(N)]
    gap = metrics.bootstrap(metrics.difference(a, b), groups)
    assert gap["value"] == pytest.approx(once(a) - once(b))
    alone = [metrics.bootstrap(m, groups) for m in (a, b)]
    assert gap["high"] - gap["low"] < min(i["high"] - i["low"] for i in alone)
    same = metrics.bootstrap(metrics.difference(a, a), groups)
    assert same == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_mcnemar_by_hand():
    a = np.array([True] * 5 + [False] * 1 + [True] * 10 + [False] * 4)
    b = np.array([False] * 5 + [True] * 1 + [True] * 10 + [False] * 4)
    # 5 and 1 of 6 discordant: 2 (1 + 6) / 2^6.
    assert metrics.mcnemar(a, b) == {"only_a_right": 5, "only_b_right": 1, "p_value": pytest.approx(14 / 64)}
    assert metrics.mcnemar(a, a)["p_value"] == 1.0


def test_mask_iou():
    a, b = np.zeros((4, 4), dtype=bool), np.zeros((4, 4), dtype=bool)
    assert metrics.mask_iou(a, b) == 1.0
    a[:2], b[1:3] = True, True
    assert metrics.mask_iou(a, b) == pytest.approx(4 / 12)
    assert metrics.mask_iou(a, np.zeros_like(a)) == 0.0
