"""What readers say of the aids as wholes: the scales asked after each block, and the side-by-side preferences.

Scales are means of their items (Explanation Satisfaction Scale; trust and distrust apart, as Scharowski et al. 2024
advise), compared within readers. Preferences become strengths by the Bradley-Terry model (1952) with an interval over
readers, because one reader's choices are no independent evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import choix
import numpy as np
import pandas as pd
from scipy import stats

from skinclip.study.mixed import NotEstimable, attempt

Result = dict[str, Any]
SCALES: Mapping[str, str] = {
    "ess": "Explanation satisfaction (1-5)",
    "trust": "Trust scale (1-7)",
    "distrust": "Distrust scale (1-7)",
}
_PRIOR = 0.1  # keeps the strength of an aid that won or lost every pair finite


def scales(blocks: pd.DataFrame, arms: Sequence[str], arm: str, against: str, alpha: float) -> list[Result]:
    """Mean of each scale in each arm, its Cronbach alpha, and the difference of the two arms within readers."""
    known = blocks.dropna(subset="value")
    known = known.assign(scale=known["item"].str.replace(r"_\d+$", "", regex=True))
    rows = []
    for scale in [*SCALES, *sorted(set(known["scale"]) - set(SCALES))]:
        items = known[known["scale"] == scale]
        means = items.groupby(["reader", "arm"])["value"].mean().unstack()
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
    found: Result = {"readers": len(differences), **_t_interval(differences, alpha)}
    if np.any(differences):
        found["p_wilcoxon"] = float(stats.wilcoxon(differences).pvalue)
    return found


def _t_interval(values: np.ndarray, alpha: float) -> Result:
    value, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    reach = float(stats.t.ppf(1 - alpha / 2, len(values) - 1)) * error
    return {"value": value, "low": value - reach, "high": value + reach}


def _cronbach(items: pd.DataFrame) -> Result:
    """Internal consistency over readers and arms (Cronbach 1951), complete answers only."""
    wide = items.pivot_table(index=["reader", "arm"], columns="item", values="value").dropna()
    if wide.shape[0] < 3 or wide.shape[1] < 2:
        raise NotEstimable("too few complete answers")
    total = float(wide.sum(axis=1).var(ddof=1))
    if total == 0:
        raise NotEstimable("all answers are equal")
    k = wide.shape[1]
    return {"value": float(k / (k - 1) * (1 - wide.var(ddof=1).sum() / total)), "items": k}


def preferences(pairs: pd.DataFrame, resamples: int, seed: int, alpha: float) -> Result:
    """Bradley-Terry strengths (log-odds, mean 0) with intervals over readers, wins of each pair, and side bias.

    Raises:
        NotEstimable: No pair was answered, or fewer than two aids were compared.
    """
    chosen = pairs.dropna(subset="chosen")
    chosen = chosen[(chosen["chosen"] == chosen["side_a"]) | (chosen["chosen"] == chosen["side_b"])]
    if chosen.empty:
        raise NotEstimable("no preferences were answered")
    aids = sorted(set(chosen["side_a"]) | set(chosen["side_b"]))
    place = {aid: i for i, aid in enumerate(aids)}
    lost = chosen["side_b"].where(chosen["chosen"] == chosen["side_a"], chosen["side_a"])
    readers, reader = np.unique(chosen["reader"].to_numpy(dtype=str), return_inverse=True)
    wins = np.zeros((len(readers), len(aids), len(aids)))  # [reader, winner, loser]
    np.add.at(wins, (reader, chosen["chosen"].map(place).to_numpy(), lost.map(place).to_numpy()), 1.0)
    strengths = _strengths(wins.sum(axis=0))
    intervals = _over_readers(wins, resamples, seed, alpha)
    on_a = int((chosen["chosen"] == chosen["side_a"]).sum())
    return {
        "pairs": len(chosen),
        "readers": len(readers),
        "strengths": [{"arm": aid, "value": float(strengths[i]), **intervals[i]} for aid, i in place.items()],
        "wins": [
            {
                "arm": a,
                "against": b,
                "won": int(wins[:, i, j].sum()),
                "of": int(wins[:, i, j].sum() + wins[:, j, i].sum()),
            }
            for a, i in place.items()
            for b, j in place.items()
            if i != j
        ],
        "side_a": {"chosen": on_a, "of": len(chosen), "p": float(stats.binomtest(on_a, len(chosen)).pvalue)},
    }


def _strengths(wins: np.ndarray) -> np.ndarray:
    """[aids] strengths of mean 0, from wins [winner, loser]."""
    strengths = choix.ilsr_pairwise_dense(wins, alpha=_PRIOR)
    return np.asarray(strengths - strengths.mean())


def _over_readers(wins: np.ndarray, resamples: int, seed: int, alpha: float) -> list[Result]:
    n = len(wins)
    if n < 2:
        return [{"low": None, "high": None}] * wins.shape[1]
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    drawn = np.array([_strengths(np.tensordot(count, wins, axes=1)) for count in counts])
    low, high = np.percentile(drawn, [100 * alpha / 2, 100 * (1 - alpha / 2)], axis=0)
    return [{"low": float(a), "high": float(b)} for a, b in zip(low, high, strict=True)]
