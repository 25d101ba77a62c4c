"""Bootstrap of readers and cases together, for figures that no mixed model states: rates and balanced accuracy.

Readers and cases are drawn anew, each on its own (the two-way "pigeonhole" bootstrap, Owen 2007), because another study
would have other readers and other cases. A row's multiplicity is that of its reader times that of its case. The
variance is never understated in expectation, so intervals err on the wide side. Figures are the metrics of
`skinclip.evaluation.metrics`: functions of row weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skinclip.evaluation.metrics import Metric
from skinclip.study.errors import NotEstimable


@dataclass(frozen=True)
class BootstrapEstimate:
    """A figure and its value in each resample [R]; NaN where a resample lacks what it needs."""

    value: float
    draws: np.ndarray

    def __sub__(self, other: BootstrapEstimate) -> BootstrapEstimate:
        """The difference of two figures of the same study, resample by resample."""
        return BootstrapEstimate(self.value - other.value, self.draws - other.draws)

    def interval(self, alpha: float = 0.05) -> dict[str, float]:
        """`value`, `low`, `high` (percentiles) and two-sided `p` against 0.

        Raises:
            NotEstimable: The figure is undefined on these rows, or in most resamples.
        """
        known = self.draws[np.isfinite(self.draws)]
        if not np.isfinite(self.value):
            raise NotEstimable("no answers of this kind")
        if len(known) < max(2, len(self.draws) / 2):
            raise NotEstimable("one reader or one case only, or too few of this kind to resample")
        low, high = np.percentile(known, [100 * alpha / 2, 100 * (1 - alpha / 2)])
        tail = min(int((known <= 0).sum()), int((known >= 0).sum()))
        p = min(1.0, 2 * (tail + 1) / (len(known) + 1))
        return {"value": self.value, "low": float(low), "high": float(high), "p": p}


class TwoWayBootstrap:
    """Resamples of readers and of cases, drawn once and shared by all figures of a study, so that they can be paired.

    Args:
        readers: [n] reader of each row; `cases` likewise.
        base: [n] sampling weight of each row.
        n: resamples.
        seed: decides the resamples and nothing else.
    """

    def __init__(
        self, readers: Sequence[str], cases: Sequence[str], base: np.ndarray, n: int = 1000, seed: int = 0
    ) -> None:
        rng = np.random.default_rng(seed)
        self.base = np.asarray(base, dtype=np.float64)
        self.reader_of, self.reader_counts = _resamples(readers, n, rng)
        self.case_of, self.case_counts = _resamples(cases, n, rng)

    def draw(self, metric: Metric, among: np.ndarray) -> BootstrapEstimate:
        """`metric`, made of the rows where `among` [n] holds, on these rows and on their resamples."""
        rows = np.flatnonzero(among)
        if not len(rows):
            return BootstrapEstimate(float("nan"), np.full(len(self.reader_counts), np.nan))
        value = float(metric(self.base[None, rows])[0])
        if min(self.reader_counts.shape[1], self.case_counts.shape[1]) < 2:
            return BootstrapEstimate(value, np.full(len(self.reader_counts), np.nan))
        weights = self.reader_counts[:, self.reader_of[rows]] * self.case_counts[:, self.case_of[rows]]
        return BootstrapEstimate(value, metric(weights * self.base[rows]))


def _resamples(names: Sequence[str], n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Group of each row [rows], and how often each resample draws each group [n, groups]."""
    unique, of_row = np.unique(np.asarray(names, dtype=str), return_inverse=True)
    groups = len(unique)
    if not groups:
        return of_row, np.zeros((n, 0))
    return of_row, rng.multinomial(groups, np.full(groups, 1 / groups), size=n).astype(np.float64)
