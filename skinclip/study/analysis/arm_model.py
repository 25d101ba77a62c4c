"""The mixed model of a per-case outcome by arm, and the arms' differences that it estimates.

Trust, or another rating, by arm, stratum and block, with random effects of reader, case, reader x arm and case x arm.
The last two matter: arms vary within readers and within cases, and without them readers who differ in how an aid sways
them would pass for certainty. AI errors are enriched in a study: arm effects are estimated within strata and averaged
by the strata's shares in practice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from skinclip.study.analysis.analysis_plan import Contrast
from skinclip.study.analysis.mixed import MixedFit, fit
from skinclip.study.errors import NotEstimable

Result = dict[str, Any]


@dataclass(frozen=True)
class ArmModel:
    """The mixed model of one outcome, with the shares of the strata by which arm effects are averaged."""

    fit: MixedFit
    cells: dict[str, dict[str, float]]  # arm -> weights of the fixed effects that make its mean

    def difference(self, contrast: Contrast, alpha: float) -> Result:
        """Estimate of `contrast`: value, low, high, p, error, degrees.

        Raises:
            NotEstimable: An arm has no answers.
        """
        return self._estimate(_less(self._mean(contrast.arm), self._mean(contrast.reference)), alpha)

    def mean(self, arm: str, alpha: float) -> Result:
        return self._estimate(self._mean(arm), alpha)

    def _mean(self, arm: str) -> dict[str, float]:
        if arm not in self.cells:
            raise NotEstimable(f"no answers in the arm {arm}")
        return self.cells[arm]

    def _estimate(self, weights: dict[str, float], alpha: float) -> Result:
        return {**asdict(self.fit.contrast(weights, alpha)), "n": self.fit.n}


def arm_model(cases: pd.DataFrame, outcome: np.ndarray, weighted: bool = True) -> ArmModel:
    """Fits outcome by arm, stratum and block, with random effects of reader, case, reader x arm and case x arm.

    Args:
        cases: rows of the table of cases.
        outcome: [n]; rows where it is NaN do not count, nothing is imputed.
        weighted: average the strata by their shares in practice; else by the numbers of cases in the study.

    Raises:
        NotEstimable: Too few readers, cases or answers, or no variation.
    """
    known = np.isfinite(outcome)
    rows, y = cases[known], outcome[known]
    if rows["reader"].nunique() < 2:
        raise NotEstimable("answers of fewer than two readers")
    if rows["case"].nunique() < 2:
        raise NotEstimable("answers to fewer than two cases")
    design, cells = _design(rows, _stratum_shares(rows, weighted))
    return ArmModel(fit(y, design, _groups(rows)), cells)


def _groups(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """The random effects; an effect by arm is left out where it is the same as the effect itself."""
    reader, case, arm = (rows[name].to_numpy(dtype=str) for name in ("reader", "case", "arm"))
    groups = {"reader": reader, "case": case}
    for name, of in (("reader x arm", reader), ("case x arm", case)):
        by_arm = np.char.add(np.char.add(of, "|"), arm)
        if len(np.unique(by_arm)) > len(np.unique(of)):
            groups[name] = by_arm
    return groups


def _stratum_shares(rows: pd.DataFrame, weighted: bool) -> pd.Series:
    cases = rows.drop_duplicates("case")
    size = cases["weight"] if weighted else pd.Series(1.0, index=cases.index)
    total = size.groupby(cases["stratum"]).sum()
    return total / total.sum()


def _design(rows: pd.DataFrame, shares: pd.Series) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """Fixed effects [n, p], and for each arm the weights of effects that make its mean at the strata's shares.

    One mean for each arm in each stratum; where a combination has no answers, one for each arm and one shift for each
    stratum. The session's blocks come in as centred indicators, so that learning and fatigue do not count as effects.
    """
    arms, strata = sorted(rows["arm"].unique()), list(shares.index)
    cell = rows["arm"] + "|" + rows["stratum"]
    if cell.nunique() == len(arms) * len(strata):
        columns = {f"{arm}|{s}": (cell == f"{arm}|{s}").astype(float) for arm in arms for s in strata}
        cells = {arm: {f"{arm}|{s}": float(shares[s]) for s in strata} for arm in arms}
    else:
        columns = {arm: (rows["arm"] == arm).astype(float) for arm in arms}
        columns |= {f"stratum {s}": (rows["stratum"] == s) - float(shares[s]) for s in strata[1:]}
        cells = {arm: {arm: 1.0} for arm in arms}
    design = pd.DataFrame(columns)
    for block in sorted(rows["block"].dropna().unique())[1:]:
        indicator = (rows["block"] == block).fillna(False).astype(float)
        wider = design.assign(**{f"block {block}": indicator - indicator.mean()})
        if np.linalg.matrix_rank(wider) == wider.shape[1]:  # with few readers, an arm and a block may be one
            design = wider
    return design, cells


def _less(first: dict[str, float], second: dict[str, float]) -> dict[str, float]:
    return {name: first.get(name, 0.0) - second.get(name, 0.0) for name in {**first, **second}}
