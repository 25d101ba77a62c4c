"""Figures of merit with bootstrap intervals, as `evaluate` and the benchmarks report them.

A metric here is a function of row weights: ones give the figure itself, the multiplicities of a bootstrap resample
give that resample's figure, and a whole block of resamples is computed at once. So value and interval come from one
formula, and 1,240 photos x 1,000 resamples of everything that `evaluate` reports take seconds, where a loop over
library calls takes many minutes. Tests hold every metric equal to scikit-learn's or torchmetrics' own.

Resampled are lesions or patients, not photos: photos of one lesion are no independent evidence. Intervals are
95 % percentile intervals (Efron 1981). Resamples of a share without a miss, or without a hit, have none either, so such
a share has the exact interval of as many lesions (Clopper and Pearson 1934). A calibration error can only grow by
resampling noise, so its interval sits high, and with few photos may lie wholly above the value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import digamma
from scipy.stats import binomtest

Metric = Callable[[np.ndarray], np.ndarray]  # row weights [R, n] -> figure of each of R resamples [R], NaN if undefined
Interval = dict[str, float | None]

_BLOCK = 2_000_000  # weights held at once, resamples x rows
_LEVELS = (2.5, 97.5)


class GroupBootstrap:
    """Resamples of the groups that rows belong to, drawn once and shared by every metric of these rows.

    Args:
        groups: [n] lesion or patient of each row.
        n: number of resamples.
        seed: decides the resamples and nothing else.
    """

    def __init__(self, groups: Sequence[str], n: int = 1000, seed: int = 0) -> None:
        names, self.group_of_row = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        self.n_groups = len(names)
        rng = np.random.default_rng(seed)
        self.counts = np.zeros((n if self.n_groups else 0, self.n_groups), dtype=np.uint16)
        for row in self.counts:
            row += np.bincount(rng.integers(0, self.n_groups, self.n_groups), minlength=self.n_groups).astype(np.uint16)

    def interval(self, metric: Metric) -> Interval | None:
        """`{"value", "low", "high"}` of `metric`; None where it is undefined on these rows.

        Low and high are None where there is one group only: nothing says how the next one would differ.
        """
        rows = len(self.group_of_row)
        value = float(metric(np.ones((1, rows)))[0]) if rows else float("nan")
        if not np.isfinite(value):
            return None
        if isinstance(metric, Share) and value in (0, 1) and self.n_groups > 1:
            n = len(np.unique(self.group_of_row[metric.among]))
            exact = binomtest(round(value) * n, n).proportion_ci(method="exact")
            return {"value": value, "low": float(exact.low), "high": float(exact.high)}
        drawn = self._resampled(metric)
        drawn = drawn[np.isfinite(drawn)]  # a resample without any case of a class has no recall of that class
        if self.n_groups < 2 or len(drawn) == 0:
            return {"value": value, "low": None, "high": None}
        low, high = np.percentile(drawn, _LEVELS)
        return {"value": value, "low": float(low), "high": float(high)}

    def _resampled(self, metric: Metric) -> np.ndarray:
        step = max(1, _BLOCK // len(self.group_of_row))
        blocks = [self.counts[i : i + step] for i in range(0, len(self.counts), step)]
        figures = [metric(block[:, self.group_of_row].astype(np.float64)) for block in blocks]
        return np.concatenate(figures) if figures else np.zeros(0)


def bootstrap(metric: Metric, groups: Sequence[str], n: int = 1000, seed: int = 0) -> Interval | None:
    """One metric's value and 95 % percentile interval over `n` resamples of `groups` [rows]."""
    return GroupBootstrap(groups, n, seed).interval(metric)


def mean(values: np.ndarray) -> Metric:
    """The mean of `values` [n]; a row that is NaN has no label and does not count. That of truth values is a share."""
    if np.asarray(values).dtype == bool:
        return share(values, np.ones(len(values), dtype=bool))
    values = np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    return lambda weights: _ratio(weights @ filled, weights @ known.astype(np.float64))


@dataclass(frozen=True, eq=False)
class Share:
    """The metric that `share` gives: `hits` [n], 0 or 1, and `among` [n] bool, the rows that count."""

    hits: np.ndarray
    among: np.ndarray

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        return _ratio(weights @ self.hits, weights @ self.among.astype(np.float64))


def share(hits: np.ndarray, among: np.ndarray) -> Metric:
    """The share of `hits` [n] bool, NaN where not known, among the rows where `among` [n] bool holds."""
    hits = np.asarray(hits, dtype=np.float64)
    known = np.asarray(among, dtype=bool) & np.isfinite(hits)
    return Share(np.where(known, hits, 0.0), known)


def mean_of(metrics: Sequence[Metric]) -> Metric:
    """The mean of those of `metrics` that are defined."""

    def figure(weights: np.ndarray) -> np.ndarray:
        if not metrics:
            return np.full(len(weights), np.nan)
        figures = np.stack([metric(weights) for metric in metrics])  # [M, R]
        known = np.isfinite(figures)
        return _ratio(np.where(known, figures, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64))

    return figure


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> Metric:
    """Share of rows with `predicted` [n] equal to `labels` [n]; label -1 is "none"."""
    return share(predicted == labels, labels >= 0)


def recall(labels: np.ndarray, predicted: np.ndarray, c: int) -> Metric:
    """Share of the rows of class `c` that were predicted as such."""
    return share(predicted == c, labels == c)


def precision(labels: np.ndarray, predicted: np.ndarray, c: int) -> Metric:
    """Share of the labelled rows predicted as class `c` that are of it: its positive predictive value."""
    return share(labels == c, (predicted == c) & (labels >= 0))


def balanced_accuracy(labels: np.ndarray, predicted: np.ndarray) -> Metric:
    """Mean recall over the classes present, as in ISIC 2018 Task 3."""
    return mean_of([recall(labels, predicted, int(c)) for c in np.unique(labels[labels >= 0])])


def brier(probabilities: np.ndarray, labels: np.ndarray) -> Metric:
    """Squared distance of `probabilities` [n, C] from the one-hot truth, summed over classes: 0-2 (Brier 1950)."""
    truth = np.eye(probabilities.shape[1])[np.maximum(labels, 0)]
    return mean(np.where(labels >= 0, ((probabilities - truth) ** 2).sum(axis=1), np.nan))


def nll(probabilities: np.ndarray, labels: np.ndarray) -> Metric:
    """Mean negative log of the true class's probability, in nats; probabilities below 1e-12 count as that."""
    p = probabilities[np.arange(len(labels)), np.maximum(labels, 0)]
    return mean(np.where(labels >= 0, -np.log(np.maximum(p, 1e-12)), np.nan))


def ece(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> Metric:
    """Expected calibration error of the top class: L1, equally wide bins (Naeini et al. 2015; Guo et al. 2017)."""
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    return _binned_gap(confidence, hit, labels >= 0, equal_widths(confidence, bins), bins)


def adaptive_ece(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> Metric:
    """As `ece`, with bins that hold equally many of these rows (Nguyen and O'Connor 2015; Nixon et al. 2019).

    Equal confidences share a bin. The bins are those of the rows given; resamples are read in the same ones.
    """
    known = labels >= 0
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    if not known.any():
        return _undefined
    # inverted_cdf: an edge is one of the values, so that repeating every row moves none.
    edges = np.quantile(confidence[known], np.arange(1, bins) / bins, method="inverted_cdf")
    return _binned_gap(confidence, hit, known, np.searchsorted(edges, confidence, side="left"), bins)


def classwise_ece(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> Metric:
    """Mean over all classes of the one-versus-rest calibration error: L1, equally wide bins (Kull et al. 2019).

    It sees every class's probability, not the top one's alone; rare classes, with small probabilities, pull it down.
    """
    classes = range(probabilities.shape[1])
    return mean_of(
        [_binned_gap(p := probabilities[:, c], labels == c, labels >= 0, equal_widths(p, bins), bins) for c in classes]
    )


def ece_noise_floor(
    probabilities: np.ndarray,
    draws: int = 1000,
    seed: int = 0,
    bins: int = 15,
    metric: Callable[[np.ndarray, np.ndarray, int], Metric] = ece,
) -> dict[str, float]:
    """The calibration error that a perfectly calibrated model would show on these n photos.

    Labels are drawn from `probabilities` [n, C] themselves, `draws` times, photo by photo: consistency resampling
    (Broecker and Smith 2007; Vaicenavicius et al. 2019). A measured error within low-high is no evidence of
    miscalibration. Photos of one lesion share their label, which independent draws leave out: the true floor is higher.

    Args:
        probabilities: of the labelled photos only, rows that sum to 1.
        metric: one of `ece`, `adaptive_ece`, `classwise_ece`.

    Returns mean, low and high (2.5th and 97.5th percentile); NaN where there is no photo or no draw.
    """
    n, classes = probabilities.shape
    if n == 0 or draws == 0:
        return dict.fromkeys(("mean", "low", "high"), float("nan"))
    # A drawn label is a weight on the pair of photo and class, so that the metric figures all draws at once.
    figure = metric(np.repeat(probabilities, classes, axis=0), np.tile(np.arange(classes), n), bins)
    upper = probabilities.cumsum(axis=1) / probabilities.sum(axis=1, keepdims=True)  # [n, C]
    rng, step, blocks = np.random.default_rng(seed), max(1, _BLOCK // (n * classes)), []
    for start in range(0, draws, step):
        drawn = rng.random((min(step, draws - start), n, 1))
        labels = (drawn >= upper[:, :-1]).sum(axis=2)  # [draws, n]
        blocks.append(figure((labels[..., None] == np.arange(classes)).reshape(len(labels), -1).astype(np.float64)))
    errors = np.concatenate(blocks)
    low, high = np.percentile(errors, _LEVELS)
    return {"mean": float(errors.mean()), "low": float(low), "high": float(high)}


def equal_widths(confidence: np.ndarray, bins: int) -> np.ndarray:
    """[n] bin of each confidence, of `bins` equally wide ones in 0-1."""
    return np.clip(np.searchsorted(np.linspace(0, 1, bins + 1), confidence, side="right") - 1, 0, bins - 1)


def _binned_gap(
    confidence: np.ndarray, hit: np.ndarray, known: np.ndarray, bin_of_row: np.ndarray, bins: int
) -> Metric:
    """Distance of mean confidence from hit rate in each bin, weighted by the bins' shares of the known rows."""
    among = known.astype(np.float64)
    gaps = np.eye(bins)[bin_of_row] * ((confidence - hit) * among)[:, None]  # [n, bins]
    return lambda weights: _ratio(np.abs(weights @ gaps).sum(axis=1), weights @ among)


def auroc(scores: np.ndarray, positive: np.ndarray, known: np.ndarray | None = None) -> Metric:
    """Area under the ROC curve of `scores` [n] for `positive` [n] bool, over rows where `known` [n] bool holds.

    The share of positive-negative pairs that the score puts in order, ties counting half (Hanley and McNeil 1982).
    """
    rows, starts = _runs(np.asarray(scores, dtype=np.float64), known)
    is_positive = np.asarray(positive, dtype=bool)[rows]

    def figure(weights: np.ndarray) -> np.ndarray:
        drawn = weights[:, rows]
        up = np.add.reduceat(drawn * is_positive, starts, axis=1)  # [R, runs]
        down = np.add.reduceat(drawn * ~is_positive, starts, axis=1)
        below = np.cumsum(down, axis=1) - down
        return _ratio((up * (below + 0.5 * down)).sum(axis=1), up.sum(axis=1) * down.sum(axis=1))

    return figure if len(rows) else _undefined


def auroc_macro(probabilities: np.ndarray, labels: np.ndarray) -> Metric:
    """Mean one-versus-rest AUROC over the classes present; `labels` -1 is "none"."""
    classes = np.unique(labels[labels >= 0])
    return mean_of([auroc(probabilities[:, c], labels == c, labels >= 0) for c in classes])


def sensitivity_at_specificity(
    scores: np.ndarray, positive: np.ndarray, known: np.ndarray | None, specificity: float
) -> Metric:
    """The highest sensitivity of any threshold on `scores` [n] whose specificity is at least the one asked for.

    The threshold is chosen on the rows themselves, in each resample anew, so this describes the ROC curve and is no
    promise for one fixed threshold. `positive` [n] bool; all rows are known where `known` is None.
    """
    rows, starts = _runs(-np.asarray(scores, dtype=np.float64), known)
    is_positive = np.asarray(positive, dtype=bool)[rows]

    def figure(weights: np.ndarray) -> np.ndarray:
        drawn = weights[:, rows]
        hits = np.cumsum(np.add.reduceat(drawn * is_positive, starts, axis=1), axis=1)  # [R, runs]
        alarms = np.cumsum(np.add.reduceat(drawn * ~is_positive, starts, axis=1), axis=1)
        allowed = alarms <= (1 - specificity) * alarms[:, -1:] + 1e-9
        undefined = alarms[:, -1] == 0
        sensitivity = _ratio(np.where(allowed, hits, 0.0).max(axis=1), hits[:, -1])
        return np.where(undefined, np.nan, sensitivity)

    return figure if len(rows) else _undefined


def _errors_by_confidence(
    confidence: np.ndarray, correct: np.ndarray, known: np.ndarray | None
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Row weights [R, n] -> (rows, wrong rows) of each run of equal confidence, the most confident first, [R, runs]."""
    rows, starts = _runs(-np.asarray(confidence, dtype=np.float64), known)
    wrong = ~np.asarray(correct, dtype=bool)[rows]

    def counted(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        drawn = weights[:, rows]
        if not len(rows):
            return drawn, drawn
        return np.add.reduceat(drawn, starts, axis=1), np.add.reduceat(drawn * wrong, starts, axis=1)

    return counted


def aurc(confidence: np.ndarray, correct: np.ndarray, known: np.ndarray | None = None) -> Metric:
    """Area under the risk-coverage curve: the mean error rate of the k most confident rows, over all k.

    0 is perfect, the error rate itself is what a confidence that says nothing gives (Geifman and El-Yaniv 2017; Geifman
    et al. 2019). Rows of equal confidence count as their mean over all orders. `correct` [n] bool; a row without a
    label is left out by `known` [n] bool.
    """
    errors_by_confidence = _errors_by_confidence(confidence, correct, known)

    def figure(weights: np.ndarray) -> np.ndarray:
        size, errors = errors_by_confidence(weights)
        size_before, errors_before = np.cumsum(size, axis=1) - size, np.cumsum(errors, axis=1) - errors
        rate = np.where(size > 0, errors / np.where(size > 0, size, 1.0), 0.0)
        # Sum over j = 1..size of (errors_before + j rate) / (size_before + j), by harmonic numbers.
        harmonic = digamma(size_before + size + 1) - digamma(size_before + 1)
        risks = size * rate + (errors_before - size_before * rate) * harmonic
        return _ratio(risks.sum(axis=1), size.sum(axis=1))

    return figure


def risk_at_coverage(
    confidence: np.ndarray, correct: np.ndarray, coverage: float, known: np.ndarray | None = None
) -> Metric:
    """Error rate of the most confident `coverage` (0-1) of the known rows: one point of the risk-coverage curve.

    Rows of equal confidence at the cut count in part. Raises ValueError where `coverage` is not above 0 and at most 1.
    """
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage {coverage} is not above 0 and at most 1")
    errors_by_confidence = _errors_by_confidence(confidence, correct, known)

    def figure(weights: np.ndarray) -> np.ndarray:
        size, errors = errors_by_confidence(weights)
        kept = coverage * size.sum(axis=1, keepdims=True)
        part = np.clip(kept - (np.cumsum(size, axis=1) - size), 0.0, size)
        inside = errors * np.where(size > 0, part / np.where(size > 0, size, 1.0), 0.0)
        return _ratio(inside.sum(axis=1), kept[:, 0])

    return figure


def difference(a: Metric, b: Metric) -> Metric:
    """a - b, paired: both are figured on the same resamples."""
    return lambda weights: a(weights) - b(weights)


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> dict[str, float | int]:
    """McNemar's exact test of whether two systems are right equally often on the same rows [n] bool (McNemar 1947).

    Returns how many rows only a and only b gets right, and the two-sided binomial p value, 1 where they never differ.
    Rows count as independent of each other.
    """
    only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(~right_a & right_b))
    p = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    return {"only_a_right": only_a, "only_b_right": only_b, "p_value": float(p)}


def mask_iou(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two bool masks [H, W]; 1 where both are empty."""
    union = np.count_nonzero(predicted | truth)
    return float(np.count_nonzero(predicted & truth) / union) if union else 1.0


def _runs(values: np.ndarray, known: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(known rows in ascending order of `values`, where in them each run of equal values starts)."""
    rows = np.arange(len(values)) if known is None else np.flatnonzero(known)
    rows = rows[np.argsort(values[rows], kind="stable")]
    ordered = values[rows]
    return rows, np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))


def _undefined(weights: np.ndarray) -> np.ndarray:
    return np.full(len(weights), np.nan)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Elementwise ratio, NaN where there is nothing to divide by."""
    empty = denominator == 0
    return np.where(empty, np.nan, numerator / np.where(empty, 1.0, denominator))
