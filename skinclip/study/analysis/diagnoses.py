"""Readers' diagnoses as numbers, and the rates that are made of them: right, followed, switched.

"Cannot tell" is not right. Cases of unknown truth do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

from skinclip.study.analysis.tables import ANSWERS, numbers

RATES: Mapping[str, str] = MappingProxyType(
    {
        "to_wrong": "switch to wrong, of answers where the AI errs",
        "to_right": "switch to right, of answers where the AI is right",
        "to_wrong_of_right": "switch to wrong, of right unaided answers where the AI errs",
        "followed_wrong": "took over the AI's error, of answers that differed from it",
        "followed_right": "took over the AI's right answer, of answers that differed from it",
    }
)


@dataclass(frozen=True)
class Diagnoses:
    """The diagnoses of n answers as numbers [n]: -1 unknown, the last "cannot tell"."""

    truth: np.ndarray
    ai: np.ndarray
    before: np.ndarray
    after: np.ndarray
    arm: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, cases: pd.DataFrame) -> Diagnoses:
        """The diagnoses in rows of the table of cases."""
        places = {code: i for i, code in enumerate(ANSWERS)}
        columns = ("truth", "ai_leading", "diagnosis_before", "diagnosis_after")
        truth, ai, before, after = (cases[name].map(places).fillna(-1).to_numpy(dtype=int) for name in columns)
        return cls(truth, ai, before, after, cases["arm"].to_numpy(dtype=str), numbers(cases, "weight"))

    @property
    def known(self) -> np.ndarray:
        """[n] whether truth and both answers are known."""
        return (self.truth >= 0) & (self.before >= 0) & (self.after >= 0)

    def rate(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Hits [n] and the rows [n] among which they count, of one of `RATES`, of `right`, `right_before` or
        `followed`."""
        right_before, right_after = self.before == self.truth, self.after == self.truth
        with_ai = self.known & (self.ai >= 0)
        errs, correct = with_ai & (self.ai != self.truth), with_ai & (self.ai == self.truth)
        differed, followed = self.before != self.ai, self.after == self.ai
        return {
            "to_wrong": (right_before & ~right_after, errs),
            "to_right": (~right_before & right_after, correct),
            "to_wrong_of_right": (~right_after, errs & right_before),
            "followed_wrong": (followed, errs & differed),
            "followed_right": (followed, correct & differed),
            "followed": (followed, with_ai & differed),
            "right": (right_after, self.known),
            "right_before": (right_before, self.known),
        }[key]

    def outcome(self, key: str) -> np.ndarray:
        """[n] a rate as an outcome of each answer: 1, 0, or NaN where the answer does not count.

        `balanced`, and `balanced_before`, is right or wrong over the sampling weights' share of the true diagnosis, so
        that its weighted mean is the balanced accuracy; `balanced_change` the difference of the two.
        """
        if key == "balanced_change":
            return self.outcome("balanced") - self.outcome("balanced_before")
        name = {"balanced": "right", "balanced_before": "right_before"}.get(key, key)
        hits, among = self.rate(name)
        if not key.startswith("balanced"):
            return np.where(among, hits.astype(np.float64), np.nan)
        outcome = np.full(len(hits), np.nan)
        classes = np.unique(self.truth[among])
        total = float(self.weight[among].sum())
        for truth in classes:
            here = among & (self.truth == truth)
            outcome[here] = hits[here] * total / (len(classes) * float(self.weight[here].sum()))
        return outcome
