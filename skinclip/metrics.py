"""Figures of merit with bootstrap intervals, as `evaluate` and the benchmarks report them.

A metric here is a function of row weights: ones give the figure itself, the multiplicities of a bootstrap resample
give that resample's figure, and a whole block of resamples is computed at once. So value and interval come from one
formula, and 1,240 photos x 1,000 resamples of everything that `evaluate` reports take seconds, where a loop over
library calls takes many minutes. Tests hold every metric equal to scikit-learn's or torchmetrics' own.

Resampled are lesions or patients, not photos: photos of one lesion are no independent evidence. Intervals are
95 % percentile intervals (Efron 1981). A calibration error can only grow by resampling noise, so its interval sits
high, and with few photos may lie wholly above the value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

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
    """The mean of `values` [n]; a row that is NaN has no label and does not count."""
    values = np.asarray(values, dtype=np.float64)
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    return lambda weights: _ratio(weights @ filled, weights @ known.astype(np.float64))


def share(hits: np.ndarray, among: np.ndarray) -> Metric:
    """The share of `hits` [n] bool among the rows where `among` [n] bool holds."""
    return mean(np.where(among, np.asarray(hits, dtype=np.float64), np.nan))


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
    known = (labels >= 0).astype(np.float64)
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bin_of_row = np.clip(np.searchsorted(np.linspace(0, 1, bins + 1), confidence, side="right") - 1, 0, bins - 1)
    gaps = np.eye(bins)[bin_of_row] * ((confidence - hit) * known)[:, None]  # [n, bins]
    return lambda weights: _ratio(np.abs(weights @ gaps).sum(axis=1), weights @ known)


def auroc(scores: np.ndarray, positive: np.ndarray, known: np.ndarray | None = None) -> Metric:
    """Area under the ROC curve of `scores` [n] for `positive` [n] bool, over rows where `known` [n] bool holds.

    The share of positive-negative pairs that the score puts in order, ties counting half (Hanley and McNeil 1982).
    """
    rows = np.arange(len(scores)) if known is None else np.flatnonzero(known)
    rows = rows[np.argsort(np.asarray(scores)[rows], kind="stable")]
    ordered, is_positive = np.asarray(scores)[rows], np.asarray(positive, dtype=bool)[rows]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))  # of each run of equal scores

    def figure(weights: np.ndarray) -> np.ndarray:
        if len(rows) == 0:
            return np.full(len(weights), np.nan)
        drawn = weights[:, rows]
        up = np.add.reduceat(drawn * is_positive, starts, axis=1)  # [R, runs]
        down = np.add.reduceat(drawn * ~is_positive, starts, axis=1)
        below = np.cumsum(down, axis=1) - down
        return _ratio((up * (below + 0.5 * down)).sum(axis=1), up.sum(axis=1) * down.sum(axis=1))

    return figure


def auroc_macro(probabilities: np.ndarray, labels: np.ndarray) -> Metric:
    """Mean one-versus-rest AUROC over the classes present; `labels` -1 is "none"."""
    classes = np.unique(labels[labels >= 0])
    return mean_of([auroc(probabilities[:, c], labels == c, labels >= 0) for c in classes])


def mask_iou(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of two bool masks [H, W]; 1 where both are empty."""
    union = np.count_nonzero(predicted | truth)
    return float(np.count_nonzero(predicted & truth) / union) if union else 1.0


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Elementwise ratio, NaN where there is nothing to divide by."""
    empty = denominator == 0
    return np.where(empty, np.nan, numerator / np.where(empty, 1.0, denominator))
