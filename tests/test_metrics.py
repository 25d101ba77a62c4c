import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error

from skinclip import metrics

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


def test_mask_iou():
    a, b = np.zeros((4, 4), dtype=bool), np.zeros((4, 4), dtype=bool)
    assert metrics.mask_iou(a, b) == 1.0
    a[:2], b[1:3] = True, True
    assert metrics.mask_iou(a, b) == pytest.approx(4 / 12)
    assert metrics.mask_iou(a, np.zeros_like(a)) == 0.0
