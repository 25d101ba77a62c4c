"""Subjective outcomes of whole aids: the scales asked after each block, and the side-by-side preferences.

Scales are means of their items' scores (Explanation Satisfaction Scale; trust and distrust apart, as Scharowski et al.
2024 advise), compared within readers. Preferences become strengths by the Bradley-Terry model (1952) with an interval
over readers, because one reader's choices are no independent evidence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import choix
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
_PRIOR = 0.1  # keeps the strength of an aid that won or lost every pair finite


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


def preferences(pairs: pd.DataFrame, resamples: int, seed: int, alpha: float) -> Result:
    """Bradley-Terry strengths (log-odds, mean 0) with intervals over readers, wins of each pair, and side bias.

    Raises:
        NotEstimable: No pair was answered, or fewer than two aids were compared.
    """
    chosen = _chosen(pairs)
    wins, aids = _wins(chosen)
    place = {aid: i for i, aid in enumerate(aids)}
    strengths = _strengths(wins.sum(axis=0))
    intervals = _intervals(_drawn(wins, resamples, seed), alpha)
    on_a = int((chosen["chosen"] == chosen["side_a"]).sum())
    return {
        "pairs": len(chosen),
        "readers": len(wins),
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
        "side_a": {
            "chosen": on_a,
            "of": len(chosen),
        },
    }


def preferred(pairs: pd.DataFrame, arm: str, against: str, seed: int, alpha: float) -> Result:
    """`arm` less `against` in Bradley-Terry strength, log-odds, with the p of a sign-flip test over readers.

    The test takes each reader's pairs of just these two aids, wins less losses: without a preference a reader's sum is
    as likely to be its opposite. All sign patterns are counted for up to `EXACT_READERS` readers who do not balance, so
    that the p is exact however few they are; beyond, patterns are drawn. The interval is a jackknife over readers with
    Student's t, and open (None) on the side to which all readers lean: their answers do not bound how far.

    Raises:
        NotEstimable: No pair was answered, one of the two was in none, or one reader only.
    """
    wins, aids = _wins(_chosen(pairs))
    absent = [one for one in (arm, against) if one not in aids]
    if absent:
        raise NotEstimable(f"{absent[0]} was never shown side by side")
    if len(wins) < 2:
        raise NotEstimable("preferences of fewer than two readers")
    first, second = aids.index(arm), aids.index(against)
    leanings = wins[:, first, second] - wins[:, second, first]
    value, low, high = _jackknife(wins, first, second, alpha)
    if not wins[:, second, first].any():
        high = None
    if not wins[:, first, second].any():
        low = None
    return {"readers": len(wins), "value": value, "low": low, "high": high, "p": sign_flip_p(leanings, seed)}


EXACT_READERS = 16  # 65,536 sign patterns
_DRAWN_PATTERNS = 99_999


def sign_flip_p(sums: np.ndarray, seed: int = 0) -> float:
    """Two-sided p of the sum of `sums` [readers] under random signs: exact where few are not 0, else drawn."""
    known = np.abs(sums[sums != 0])
    if not len(known):
        return 1.0
    observed = abs(float(sums.sum()))
    if len(known) <= EXACT_READERS:
        bits = (np.arange(2 ** len(known))[:, None] >> np.arange(len(known))) & 1
        totals = np.abs((2.0 * bits - 1) @ known)
        return float(np.mean(totals >= observed - 1e-9))
    signs = np.random.default_rng(seed).integers(0, 2, (_DRAWN_PATTERNS, len(known)), dtype=np.int8) * 2 - 1
    return float((1 + np.sum(np.abs(signs @ known) >= observed - 1e-9)) / (_DRAWN_PATTERNS + 1))


def _jackknife(wins: np.ndarray, first: int, second: int, alpha: float) -> tuple[float, float | None, float | None]:
    """The difference of two strengths and its interval over readers, each left out in turn."""
    n, total = len(wins), wins.sum(axis=0)

    def difference(counts: np.ndarray) -> float:
        strengths = _strengths(counts)
        return float(strengths[first] - strengths[second])

    value = difference(total)
    without = np.array([difference(total - reader) for reader in wins])
    error = float(np.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2)))
    reach = float(stats.t.ppf(1 - alpha / 2, n - 1)) * error
    return value, value - reach, value + reach


def _chosen(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs of which one side was chosen. Raises NotEstimable where there is none."""
    chosen = pairs.dropna(subset="chosen")
    chosen = chosen[(chosen["chosen"] == chosen["side_a"]) | (chosen["chosen"] == chosen["side_b"])]
    if chosen.empty:
        raise NotEstimable("no preferences were answered")
    return chosen


def _wins(chosen: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """Pairs won [reader, winner, loser], and the aids in the order of both."""
    aids = sorted(set(chosen["side_a"]) | set(chosen["side_b"]))
    place = {aid: i for i, aid in enumerate(aids)}
    lost = chosen["side_b"].where(chosen["chosen"] == chosen["side_a"], chosen["side_a"])
    readers, reader = np.unique(chosen["reader"].to_numpy(dtype=str), return_inverse=True)
    wins = np.zeros((len(readers), len(aids), len(aids)))
    np.add.at(wins, (reader, chosen["chosen"].map(place).to_numpy(), lost.map(place).to_numpy()), 1.0)
    return wins, aids


def _strengths(wins: np.ndarray) -> np.ndarray:
    """[aids] strengths of mean 0, from wins [winner, loser]."""
    strengths = choix.ilsr_pairwise_dense(wins, alpha=_PRIOR)
    return np.asarray(strengths - strengths.mean())


def _drawn(wins: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """[resamples, aids] strengths of readers drawn anew; none of one reader."""
    n = len(wins)
    if n < 2:
        return np.zeros((0, wins.shape[1]))
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return np.array([_strengths(np.tensordot(count, wins, axes=1)) for count in counts])


def _intervals(drawn: np.ndarray, alpha: float) -> list[Result]:
    if not len(drawn):
        return [{"low": None, "high": None}] * drawn.shape[1]
    low, high = np.percentile(drawn, [100 * alpha / 2, 100 * (1 - alpha / 2)], axis=0)
    return [{"low": float(a), "high": float(b)} for a, b in zip(low, high, strict=True)]
