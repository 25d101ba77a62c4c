"""Subjective outcomes of whole aids: the scales asked after each block.

Scales are means of their items' scores (Explanation Satisfaction Scale; trust and distrust apart, as Scharowski et al.
2024 advise), compared within readers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from skinclip.study.analysis.mixed import attempt
from skinclip.study.errors import NotEstimable

Result = dict[str, Any]
SCALES: Mapping[str, str] = {
    "ess": "Explanation satisfaction (1-5)",
    "trust": "Trust scale (1-7)",
    "distrust": "Distrust scale (1-7)",
}


def scales(blocks: pd.DataFrame, arms: Sequence[str], arm: str, against: str, alpha: float) -> list[Result]:
    """Mean of each scale in each arm, its Cronbach alpha, and the difference of the two arms within readers."""
    known = _scored(blocks)
    rows = []
    for scale in [*SCALES, *sorted(set(known["scale"]) - set(SCALES))]:
        items = known[known["scale"] == scale]
        means = _by_reader(items)
        by_arm = [{"arm": a, **attempt(_mean, means.get(a), alpha)} for a in arms if a in means]
        rows.append(
            {
                "scale": scale,
                "label": SCALES.get(scale, scale),
                "by_arm": by_arm,
                "cronbach": attempt(_cronbach, items),
                "difference": {"contrast": f"{arm} - {against}", **attempt(_paired, means, arm, against, alpha)},
            }
        )
    return rows


def scale_difference(blocks: pd.DataFrame, scale: str, arm: str, against: str, alpha: float) -> Result:
    """`arm` less `against` in readers' means of a scale, with its t interval and the p of Wilcoxon's signed-rank test.

    Raises:
        NotEstimable: Fewer than two readers answered it in both arms, or none differs between them.
    """
    known = _scored(blocks)
    means = _by_reader(known[known["scale"] == scale])
    paired = _paired(means, arm, against, alpha)
    differences = (means[arm] - means[against]).dropna()
    if not np.any(differences):
        raise NotEstimable("no reader differs between the arms")
    return {**paired, "p": float(stats.wilcoxon(differences).pvalue)}


def _scored(blocks: pd.DataFrame) -> pd.DataFrame:
    """Answered items with the scale that each belongs to."""
    known = blocks.dropna(subset="score")
    return known.assign(scale=known["item"].str.replace(r"_\d+$", "", regex=True))


def _by_reader(items: pd.DataFrame) -> pd.DataFrame:
    """Mean score of each reader (rows) in each arm (columns)."""
    return items.groupby(["reader", "arm"])["score"].mean().unstack()


def _mean(values: pd.Series, alpha: float) -> Result:
    known = values.dropna().to_numpy(dtype=np.float64)
    if len(known) < 2:
        raise NotEstimable("answers of fewer than two readers")
    return {"readers": len(known), **_t_interval(known, alpha)}


def _paired(means: pd.DataFrame, arm: str, against: str, alpha: float) -> Result:
    if arm not in means or against not in means:
        raise NotEstimable("no answers in one of the arms")
    differences = (means[arm] - means[against]).dropna().to_numpy(dtype=np.float64)
    if len(differences) < 2:
        raise NotEstimable("fewer than two readers with answers in both arms")
    return {"readers": len(differences), **_t_interval(differences, alpha)}


def _t_interval(values: np.ndarray, alpha: float) -> Result:
    value, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    reach = float(stats.t.ppf(1 - alpha / 2, len(values) - 1)) * error
    return {"value": value, "low": value - reach, "high": value + reach}


def _cronbach(items: pd.DataFrame) -> Result:
    """Internal consistency over readers and arms (Cronbach 1951), complete answers only."""
    wide = items.pivot_table(index=["reader", "arm"], columns="item", values="score").dropna()
    if wide.shape[0] < 3 or wide.shape[1] < 2:
        raise NotEstimable("too few complete answers")
    total = float(wide.sum(axis=1).var(ddof=1))
    if total == 0:
        raise NotEstimable("all answers are equal")
    k = wide.shape[1]
    return {"value": float(k / (k - 1) * (1 - wide.var(ddof=1).sum() / total)), "items": k}
