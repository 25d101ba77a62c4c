"""Side-by-side preferences: the Bradley-Terry model (1952) with an effect of the side, and an exact test over readers.

    logit P(the aid on side A is chosen) = side + strength of A - strength of B

Fitted by logistic regression with Firth's penalty (1993; Heinze and Schemper 2002), which keeps an aid that won or lost
every pair at a finite strength with little bias. One reader's choices are no independent evidence: errors are the
larger of the model's and of a jackknife over readers, with Student's t on readers less one; the jackknife alone would
be 0 where all readers agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit

from skinclip.study.errors import NotEstimable

Result = dict[str, Any]
EXACT_READERS = 16  # 65,536 sign patterns
_DRAWN_PATTERNS = 99_999
_STEPS, _LONGEST, _TOLERANCE = 100, 2.0, 1e-8  # of Fisher's scoring


def preferences(pairs: pd.DataFrame, alpha: float) -> Result:
    """Bradley-Terry strengths (log-odds, mean 0) with intervals over readers, wins of each pair, and the side's effect.

    Raises:
        NotEstimable: No pair was answered.
    """
    comparisons = _Comparisons.of(pairs)
    wins, aids = comparisons.wins, comparisons.aids
    centred = np.eye(len(aids)) - 1 / len(aids)
    on_a, of = int(comparisons.on_a.sum()), len(comparisons.on_a)
    return {
        "pairs": of,
        "readers": comparisons.readers,
        "strengths": [
            {"arm": aid, **comparisons.estimate(np.append(centred[i], 0.0), alpha)} for i, aid in enumerate(aids)
        ],
        "wins": [
            {"arm": a, "against": b, "won": int(wins[:, i, j].sum()), "of": int((wins[:, i, j] + wins[:, j, i]).sum())}
            for i, a in enumerate(aids)
            for j, b in enumerate(aids)
            if i != j
        ],
        "side_a": {"chosen": on_a, "of": of, **comparisons.estimate(np.append(np.zeros(len(aids)), 1.0), alpha)},
    }


def preferred(pairs: pd.DataFrame, arm: str, against: str, seed: int, alpha: float) -> Result:
    """`arm` less `against` in Bradley-Terry strength, log-odds, with the p of a sign-flip test over readers.

    The test takes each reader's pairs of just these two aids, wins less losses: without a preference a reader's sum is
    as likely to be its opposite. All sign patterns are counted for up to `EXACT_READERS` readers who do not balance, so
    that the p is exact however few they are; beyond, patterns are drawn. The interval is open (None) on the side to
    which all readers lean: their answers do not bound how far.

    Raises:
        NotEstimable: No pair was answered, one of the two was in none, or one reader only.
    """
    comparisons = _Comparisons.of(pairs)
    wins, aids = comparisons.wins, comparisons.aids
    absent = [one for one in (arm, against) if one not in aids]
    if absent:
        raise NotEstimable(f"{absent[0]} was never shown side by side")
    if comparisons.readers < 2:
        raise NotEstimable("preferences of fewer than two readers")
    first, second = aids.index(arm), aids.index(against)
    leanings = wins[:, first, second] - wins[:, second, first]
    weights = np.zeros(len(aids) + 1)
    weights[first], weights[second] = 1.0, -1.0
    row = comparisons.estimate(weights, alpha)
    if not wins[:, second, first].any():
        row["high"] = None
    if not wins[:, first, second].any():
        row["low"] = None
    return {"readers": comparisons.readers, **row, "p": sign_flip_p(leanings, seed)}


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


# --- the model ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Comparisons:
    """The pairs of which one side was chosen; n of them, of `len(aids)` aids.

    Attributes:
        on_a: [n] whether side A was chosen; `a` and `b` [n] the aids on the sides, as places in `aids`.
        reader: [n] the reader's number, from 0.
    """

    aids: list[str]
    a: np.ndarray
    b: np.ndarray
    on_a: np.ndarray
    reader: np.ndarray

    @classmethod
    def of(cls, pairs: pd.DataFrame) -> _Comparisons:
        """The answered pairs. Raises NotEstimable where there is none."""
        chosen = pairs.dropna(subset="chosen")
        chosen = chosen[(chosen["chosen"] == chosen["side_a"]) | (chosen["chosen"] == chosen["side_b"])]
        if chosen.empty:
            raise NotEstimable("no preferences were answered")
        aids = sorted(set(chosen["side_a"]) | set(chosen["side_b"]))
        place = {aid: i for i, aid in enumerate(aids)}
        a, b = (chosen[side].map(place).to_numpy(dtype=int) for side in ("side_a", "side_b"))
        reader = np.unique(chosen["reader"].to_numpy(dtype=str), return_inverse=True)[1]
        return cls(aids, a, b, (chosen["chosen"] == chosen["side_a"]).to_numpy(dtype=bool), reader)

    @property
    def readers(self) -> int:
        return int(self.reader.max()) + 1

    @cached_property
    def wins(self) -> np.ndarray:
        """Pairs won [reader, winner, loser]."""
        wins = np.zeros((self.readers, len(self.aids), len(self.aids)))
        won, lost = np.where(self.on_a, self.a, self.b), np.where(self.on_a, self.b, self.a)
        np.add.at(wins, (self.reader, won, lost), 1.0)
        return wins

    @cached_property
    def _cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct (A, B) as rows of the design [c, aids + 1], and counts [reader, c, 2] of A and of B chosen.

        The last column is the side's; it is 0 where the aids decide the side, whose effect then cannot be told apart.
        """
        sides, cell = np.unique(np.stack([self.a, self.b], axis=1), axis=0, return_inverse=True)
        design = np.zeros((len(sides), len(self.aids) + 1))
        design[np.arange(len(sides)), sides[:, 0]] += 1.0
        design[np.arange(len(sides)), sides[:, 1]] -= 1.0
        if np.linalg.matrix_rank(np.column_stack([design[:, :-1], np.ones(len(sides))])) > np.linalg.matrix_rank(
            design
        ):
            design[:, -1] = 1.0
        counts = np.zeros((self.readers, len(sides), 2))
        np.add.at(counts, (self.reader, cell.ravel(), np.where(self.on_a, 0, 1)), 1.0)
        return design, counts

    @cached_property
    def _fits(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Strengths and side [aids + 1], their covariance by the model, and the estimates with each reader left out."""
        design, counts = self._cells
        total = counts.sum(axis=0)
        estimate, covariance = firth(design, total)
        if self.readers < 2:
            return estimate, covariance, np.zeros((0, len(estimate)))
        return estimate, covariance, np.array([firth(design, total - own, estimate)[0] for own in counts])

    def estimate(self, weights: np.ndarray, alpha: float) -> Result:
        """A weighted sum of strengths and side [aids + 1] with its interval, None of one reader."""
        estimate, covariance, without = self._fits
        value, n = float(weights @ estimate), self.readers
        if n < 2:
            return {"value": value, "low": None, "high": None}
        left_out = without @ weights
        jackknife = (n - 1) / n * float(np.sum((left_out - left_out.mean()) ** 2))
        error = float(np.sqrt(max(jackknife, float(weights @ covariance @ weights))))
        if error == 0.0:  # not in the design
            return {"value": None, "low": None, "high": None}
        reach = float(stats.t.ppf(1 - alpha / 2, n - 1)) * error
        return {"value": value, "low": value - reach, "high": value + reach}


def firth(design: np.ndarray, counts: np.ndarray, start: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression with Firth's penalty, half the logarithm of the information's determinant.

    Args:
        design: [c, p] covariates of each kind of row; need not be of full rank, the shortest solution is taken.
        counts: [c, 2] rows of each kind that are 1 and 0.
        start: [p] where the search begins.

    Returns:
        Coefficients [p] and their covariance [p, p], the inverse of the information.
    """
    n = counts.sum(axis=1)
    beta = np.zeros(design.shape[1]) if start is None else np.array(start, dtype=np.float64)
    covariance = np.zeros((len(beta), len(beta)))
    for _ in range(_STEPS):
        p = expit(design @ beta)
        weight = n * p * (1 - p)
        covariance = np.linalg.pinv(design.T @ (weight[:, None] * design), hermitian=True)
        leverage = weight * np.einsum("ij,jk,ik->i", design, covariance, design)  # of all rows of a kind together
        step = covariance @ (design.T @ (counts[:, 0] - n * p + leverage * (0.5 - p)))
        longest = float(np.max(np.abs(step)))
        beta = beta + step * min(1.0, _LONGEST / longest if longest > 0 else 1.0)
        if longest < _TOLERANCE:
            break
    return beta, covariance
