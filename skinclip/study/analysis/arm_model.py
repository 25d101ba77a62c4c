"""The mixed model of a per-case outcome by arm, and the arms' differences that it estimates.

Trust, or another rating, by arm, stratum and block, with random effects of reader, case, reader x arm and case x arm.
The last two matter: arms vary within readers and within cases, and without them readers who differ in how an aid sways
them would pass for certainty. AI errors are enriched in a study: arm effects are estimated within strata and averaged
by the strata's shares in practice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from skinclip.study.analysis.analysis_plan import Contrast
from skinclip.study.analysis.mixed import MixedFit, fit
from skinclip.study.analysis.tables import SESSION
from skinclip.study.errors import NotEstimable

Result = dict[str, Any]
SECOND = "second session"  # the fixed effect of a second session


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
        return self.combination({contrast.arm: 1.0, contrast.reference: -1.0}, alpha)

    def mean(self, arm: str, alpha: float) -> Result:
        return self._estimate(self._mean(arm), alpha)

    def combination(self, weights: Mapping[str, float], alpha: float) -> Result:
        """A weighted sum of arms' means, by arm.

        Raises:
            NotEstimable: An arm has no answers.
        """
        effects: dict[str, float] = {}
        for arm, weight in weights.items():
            for name, share in self._mean(arm).items():
                effects[name] = effects.get(name, 0.0) + weight * share
        return self._estimate(effects, alpha)

    def cell(self, arm: str, stratum: str, alpha: float) -> Result:
        """Mean of an arm in one stratum. Raises NotEstimable where it has no answers there."""
        return self._estimate({f"{arm}|{stratum}": 1.0}, alpha)

    def effect(self, name: str, alpha: float) -> Result:
        """A fixed effect by itself, such as `block 2`. Raises NotEstimable where the model has none of this name."""
        return self._estimate({name: 1.0}, alpha)

    def _mean(self, arm: str) -> dict[str, float]:
        if arm not in self.cells:
            raise NotEstimable(f"no answers in the arm {arm}")
        return self.cells[arm]

    def _estimate(self, weights: dict[str, float], alpha: float) -> Result:
        return {**asdict(self.fit.contrast(weights, alpha)), "n": self.fit.n}


def arm_model(
    cases: pd.DataFrame,
    outcome: np.ndarray,
    weighted: bool = True,
    deserved: bool = False,
    further: Mapping[str, np.ndarray] | None = None,
) -> ArmModel:
    """Fits outcome by arm, stratum and block, with random effects of reader, case, reader x arm and case x arm.

    Patients with several cases are one more random effect. With two sessions the second is a fixed effect, and a
    reader's two answers to a case share a random one.

    Args:
        cases: rows of the table of cases.
        outcome: [n]; rows where it is NaN do not count, nothing is imputed.
        weighted: average the strata by their shares in practice; else by the numbers of cases in the study.
        deserved: an arm's figure is its mean where the AI is right less its mean where it errs. Readers then differ in
            that difference too, by themselves and by arm, which are two more random effects.
        further: further fixed effects by name, [n] each; one that the others already decide is left out.

    Raises:
        NotEstimable: Too few readers, cases or answers, or no variation.
    """
    known = np.isfinite(outcome)
    rows, y = cases[known], outcome[known]
    if rows["reader"].nunique() < 2:
        raise NotEstimable("answers of fewer than two readers")
    if rows["case"].nunique() < 2:
        raise NotEstimable("answers to fewer than two cases")
    covariates = {name: np.asarray(values, dtype=np.float64)[known] for name, values in (further or {}).items()}
    if not deserved:
        design, cells = _design(rows, _stratum_shares(rows, weighted))
        return ArmModel(fit(y, _widened(design, covariates), _groups(rows), _pairs(rows)), cells)
    rows = rows.assign(stratum=rows["stratum"].where(rows["stratum"].isin(("right", "wrong"))))
    if not rows["stratum"].notna().all() or rows.groupby("arm")["stratum"].nunique().min() < 2:
        raise NotEstimable("an arm has no answers where the AI is right, or none where it errs")
    design, _ = _design(rows, _stratum_shares(rows, weighted))
    cells = {arm: {f"{arm}|right": 1.0, f"{arm}|wrong": -1.0} for arm in rows["arm"].unique()}
    return ArmModel(fit(y, _widened(design, covariates), _groups(rows, by_ai=True), _pairs(rows)), cells)


def _pairs(rows: pd.DataFrame) -> tuple[str, np.ndarray] | None:
    """The effect that one reader's answers to one case in two sessions share; None where there is one session."""
    if SESSION not in rows or rows[SESSION].nunique() < 2:
        return None
    reader, case = (rows[name].to_numpy(dtype=str) for name in ("reader", "case"))
    return "reader x case", _crossed(reader, case)


def _groups(rows: pd.DataFrame, by_ai: bool = False) -> dict[str, np.ndarray]:
    """The random effects; one that is no finer than the effect it refines is left out."""
    reader, case, arm, ai = (rows[name].to_numpy(dtype=str) for name in ("reader", "case", "arm", "stratum"))
    groups = {"reader": reader, "case": case}
    finer = [("reader x arm", reader, arm), ("case x arm", case, arm)]
    if by_ai:
        finer += [("reader x AI", reader, ai), ("reader x arm x AI", _crossed(reader, arm), ai)]
    for name, of, by in finer:
        crossed = _crossed(of, by)
        if len(np.unique(crossed)) > len(np.unique(of)):
            groups[name] = crossed
    patient = _patients(rows)
    if patient is not None:
        groups["patient"] = patient
    return groups


def _patients(rows: pd.DataFrame) -> np.ndarray | None:
    """[n] the patient of each answer, a case of unknown patient being its own; None where no patient has two cases."""
    if "patient" not in rows or rows["patient"].isna().all():
        return None
    patient = rows["patient"].astype(object).where(rows["patient"].notna(), "case " + rows["case"].astype(str))
    return patient.to_numpy(dtype=str) if patient.nunique() < rows["case"].nunique() else None


def _crossed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.char.add(np.char.add(first, "|"), second)


def _stratum_shares(rows: pd.DataFrame, weighted: bool) -> pd.Series:
    cases = rows.drop_duplicates("case")
    size = cases["weight"] if weighted else pd.Series(1.0, index=cases.index)
    total = size.groupby(cases["stratum"]).sum()
    return total / total.sum()


def _design(rows: pd.DataFrame, shares: pd.Series) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """Fixed effects [n, p], and for each arm the weights of effects that make its mean at the strata's shares.

    One mean for each arm in each stratum; where a combination has no answers, one for each arm and one shift for each
    stratum. Blocks, and a second session, come in as centred indicators, so that learning and fatigue do not count as
    effects.
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
    blocks = sorted(rows["block"].dropna().unique())[1:]
    indicators = {f"block {b}": (rows["block"] == b).fillna(False).to_numpy(dtype=np.float64) for b in blocks}
    if SESSION in rows and rows[SESSION].nunique() > 1:
        indicators[SECOND] = (rows[SESSION] == 2).to_numpy(dtype=np.float64)
    return _widened(design, indicators), cells


def _widened(design: pd.DataFrame, effects: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """The design with further effects, centred; one that the others decide is left out, as an arm and a block may be
    one where readers are few."""
    for name, values in effects.items():
        wider = design.assign(**{name: values - values.mean()})
        if np.linalg.matrix_rank(wider) == wider.shape[1]:
            design = wider
    return design
