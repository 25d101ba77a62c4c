"""The analysis of a reader study, as its plan fixed it in advance: tables in, one dictionary of results out.

`analyse` is the whole story in order: who took part, the primary endpoint, the safety endpoint, the secondary ones
under Holm's correction, sensitivity analyses, then what describes. Each result is either a figure with its interval or
`{"not_estimable": reason}`: small or odd data end in words, never in an exception.

The primary model is linear and mixed: trust by arm and stratum, with random effects of reader, case, reader x arm and
case x arm. The last two matter. Arms vary within readers and within cases; without them, readers who differ in how an
aid sways them would pass for certainty. AI errors are enriched in the study: arm effects are estimated within strata
and averaged by the strata's shares in practice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests
from threadpoolctl import threadpool_limits

from skinclip import RESEARCH_USE_ONLY, __version__
from skinclip.study import agreement, opinions, reliance
from skinclip.study.mixed import MixedFit, NotEstimable, attempt, fit
from skinclip.study.resampling import TwoWayBootstrap
from skinclip.study.tables import AID_ITEMS, StudyTables, numbers, primary_cases

Result = dict[str, Any]


@dataclass(frozen=True)
class Contrast:
    """A difference between two arms: `arm` less `against`."""

    arm: str
    against: str

    @property
    def text(self) -> str:
        return f"{self.arm} - {self.against}"


@dataclass(frozen=True)
class Endpoint:
    """A per-case outcome of the mixed model.

    Attributes:
        key: name in the results.
        label, unit: for the report.
        column: of the table of cases; `minus` is subtracted from it where given.
        log: the model takes logarithms, and differences come out as ratios.
    """

    key: str
    label: str
    unit: str
    column: str
    minus: str = ""
    log: bool = False

    def of(self, cases: pd.DataFrame) -> np.ndarray:
        """[n] the outcome, NaN where it is missing."""
        values = numbers(cases, self.column) - (numbers(cases, self.minus) if self.minus else 0.0)
        return np.log(np.where(values > 0, values, np.nan)) if self.log else values


TRUST = Endpoint("trust", "Trust in this answer", "points, 1-7", "trust")
CONFIDENCE = Endpoint(
    "confidence_change", "Confidence, after less before", "points, 0-100", "confidence_after", "confidence_before"
)
TIME = Endpoint("time", "Time with the aid", "ratio of seconds", "seconds_after", log=True)
ENDPOINTS: dict[str, Endpoint] = {
    e.key: e
    for e in (
        TRUST,
        CONFIDENCE,
        *(Endpoint(item, f"Explanation {item}", "points, 1-5", item) for item in AID_ITEMS),
        TIME,
    )
}


@dataclass(frozen=True)
class AnalysisPlan:
    """What was fixed before the first answer; the protocol's plan maps onto it.

    Attributes:
        primary: contrast of the primary and the safety endpoint.
        endpoint: key in `ENDPOINTS` of the primary endpoint.
        safety_margin: highest tolerated difference in the switch-to-wrong rate, as a share of cases where the AI errs.
        alpha: two-sided; intervals are 1 - alpha.
        secondary: endpoints of the primary contrast, and `secondary_contrasts` of the primary endpoint, under Holm.
        completion: least share of a reader's cases answered to count as a completer.
        time_limits: seconds with the aid outside of which an answer was interrupted or a slip; they are left out
            of one sensitivity analysis and of no other.
        resamples, seed: of the bootstraps.
    """

    primary: Contrast = Contrast("regions", "grad_cam")
    endpoint: str = "trust"
    safety_margin: float = 0.05
    alpha: float = 0.05
    secondary: tuple[str, ...] = ("correct", "grounded", "complete", "harmful", "confidence_change", "time")
    secondary_contrasts: tuple[Contrast, ...] = (
        Contrast("regions", "none"),
        Contrast("regions", "grad_cam_text"),
        Contrast("grad_cam_text", "grad_cam"),
        Contrast("grad_cam", "none"),
    )
    completion: float = 0.9
    time_limits: tuple[float, float] = (1.0, 300.0)
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [key for key in (self.endpoint, *self.secondary) if key not in ENDPOINTS]
        if unknown:
            raise ValueError(f"unknown endpoint {unknown[0]}; choose from {', '.join(ENDPOINTS)}")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha is {self.alpha}; it must lie between 0 and 1, such as 0.05")
        if not 0 < self.safety_margin < 1:
            raise ValueError(f"safety_margin is {self.safety_margin}; it is a share of cases between 0 and 1")


DEFAULT_PLAN = AnalysisPlan()


@threadpool_limits.wrap(limits=1, user_api="blas")
def analyse(tables: StudyTables, plan: AnalysisPlan = DEFAULT_PLAN) -> Result:
    """Every analysis of the plan; the result is plain data that `json` can write."""
    cases = primary_cases(tables.cases)
    arms = [arm for arm in ("none", "grad_cam", "grad_cam_text", "regions") if arm in set(tables.cases["arm"])]
    arms += sorted(set(tables.cases["arm"]) - set(arms))
    bootstrap = reliance.bootstrap_of(cases, plan.resamples, plan.seed)
    pair = (plan.primary.arm, plan.primary.against)
    return {
        **_about(tables, plan),
        "arms": arms,
        "flow": flow(tables, plan),
        "missing": missing(cases),
        "primary": attempt(primary_result, cases, plan),
        "safety": attempt(reliance.safety, cases, *pair, bootstrap, plan.safety_margin, plan.alpha),
        "secondary": secondary(cases, plan, bootstrap),
        "sensitivity": sensitivity(tables, plan),
        "time_without_outliers": time_without_outliers(cases, plan),
        "trust_by_arm": trust_by_arm(cases, arms, plan),
        "wilcoxon": wilcoxon(cases, plan),
        "accuracy": reliance.accuracy(cases, arms, bootstrap, plan.alpha),
        "switching": reliance.switching(cases, arms, bootstrap, plan.alpha),
        "mcnemar": reliance.mcnemar(cases, arms),
        "agreement": agreement.between_readers(cases, arms, plan.resamples, plan.seed, plan.alpha),
        "retest": agreement.within_readers(tables.cases),
        "scales": opinions.scales(tables.blocks, arms, *pair, plan.alpha),
        "preferences": attempt(opinions.preferences, tables.preferences, plan.resamples, plan.seed, plan.alpha),
        "ood": out_of_distribution(tables.cases, arms, plan),
        "calibration": reliance.calibration(cases, arms),
        "switches": reliance.switches(cases, arms),
        "reader_means": reader_means(cases, ENDPOINTS[plan.endpoint]),
    }


# --- the mixed model ----------------------------------------------------------------------------------------------


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
        return self._estimate(_less(self._mean(contrast.arm), self._mean(contrast.against)), alpha)

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


# --- the plan's questions -----------------------------------------------------------------------------------------


def primary_result(cases: pd.DataFrame, plan: AnalysisPlan, weighted: bool = True) -> Result:
    """The primary contrast with the model's variance components.

    Raises:
        NotEstimable: See `arm_model`.
    """
    model = arm_model(cases, ENDPOINTS[plan.endpoint].of(cases), weighted)
    return {
        "contrast": plan.primary.text,
        "endpoint": plan.endpoint,
        **model.difference(plan.primary, plan.alpha),
        "variances": model.fit.variances,
        "readers": int(cases["reader"].nunique()),
        "cases": int(cases["case"].nunique()),
    }


def secondary(cases: pd.DataFrame, plan: AnalysisPlan, bootstrap: TwoWayBootstrap) -> list[Result]:
    """Endpoints of the primary contrast and further contrasts of the primary endpoint, with Holm's p over all.

    `standardised` is the difference over the outcome's standard deviation, for one axis of unlike units.
    """
    rows = [_endpoint_row(cases, ENDPOINTS[key], plan) for key in plan.secondary]
    rows += _contrast_rows(cases, plan)
    pair = (plan.primary.arm, plan.primary.against)
    for key, label in (("balanced_accuracy", "Balanced accuracy with the aid"), ("to_right", "Switch to right")):
        drawn = attempt(reliance.difference, cases, key, *pair, bootstrap, plan.alpha)
        rows.append({"endpoint": key, "label": label, "unit": "share", "contrast": plan.primary.text, **drawn})
    return _with_holm(rows)


def _endpoint_row(cases: pd.DataFrame, endpoint: Endpoint, plan: AnalysisPlan) -> Result:
    outcome = endpoint.of(cases)
    head = {"endpoint": endpoint.key, "label": endpoint.label, "unit": endpoint.unit, "contrast": plan.primary.text}
    found = attempt(_difference, cases, outcome, plan)
    return {**head, **_finished(found, outcome, endpoint.log)}


def _difference(cases: pd.DataFrame, outcome: np.ndarray, plan: AnalysisPlan) -> Result:
    return arm_model(cases, outcome).difference(plan.primary, plan.alpha)


def _contrast_rows(cases: pd.DataFrame, plan: AnalysisPlan) -> list[Result]:
    endpoint = ENDPOINTS[plan.endpoint]
    outcome = endpoint.of(cases)
    head = {"endpoint": endpoint.key, "label": endpoint.label, "unit": endpoint.unit}
    try:
        model = arm_model(cases, outcome)
    except NotEstimable as reason:
        return [{**head, "contrast": c.text, "not_estimable": str(reason)} for c in plan.secondary_contrasts]
    found = [(c, attempt(model.difference, c, plan.alpha)) for c in plan.secondary_contrasts]
    return [{**head, "contrast": c.text, **_finished(row, outcome, endpoint.log)} for c, row in found]


def _finished(found: Result, outcome: np.ndarray, log: bool) -> Result:
    """Adds the standardised difference; turns differences of logarithms into ratios."""
    if "not_estimable" in found:
        return found
    spread = float(np.nanstd(outcome, ddof=1))
    ends = ("value", "low", "high")
    found["standardised"] = {end: found[end] / spread for end in ends} if spread > 0 else None
    return {**found, **{end: float(np.exp(found[end])) for end in ends}} if log else found


def _with_holm(rows: list[Result]) -> list[Result]:
    """Adds `p_holm` to the rows that have a p (Holm 1979); what was not estimable tests nothing."""
    tested = [row for row in rows if row.get("p") is not None]
    if tested:
        adjusted = multipletests([row["p"] for row in tested], method="holm")[1]
        for row, p in zip(tested, adjusted, strict=True):
            row["p_holm"] = float(p)
    return rows


def sensitivity(tables: StudyTables, plan: AnalysisPlan) -> list[Result]:
    """The primary contrast under other choices of rows and weights."""
    cases = primary_cases(tables.cases)
    done = cases[cases["reader"].isin(completers(tables, plan))]
    timed = cases[_on_task(cases, plan)]
    return [
        {"analysis": "Completers only", **attempt(primary_result, done, plan)},
        {"analysis": "Without outlier times", **attempt(primary_result, timed, plan)},
        {"analysis": "Unweighted strata", **attempt(primary_result, cases, plan, False)},
    ]


def time_without_outliers(cases: pd.DataFrame, plan: AnalysisPlan) -> Result:
    """The primary contrast in time with the aid, answers outside the plan's limits left out, and how many they are."""
    timed, known = _on_task(cases, plan), np.isfinite(numbers(cases, "seconds_after"))
    found = _endpoint_row(cases[timed], TIME, plan)
    return {**found, "label": "Time with the aid, without outliers", "left_out": int((known & ~timed).sum())}


def completers(tables: StudyTables, plan: AnalysisPlan) -> set[str]:
    """Readers who reached the end, did not withdraw and rated at least the plan's share of the cases they saw."""
    cases = primary_cases(tables.cases)
    answered = pd.Series(np.isfinite(ENDPOINTS[plan.endpoint].of(cases)), index=cases.index)
    share = answered.groupby(cases["reader"]).mean()
    enough = set(share[share >= plan.completion].index)
    readers = tables.readers
    return enough & set(readers.loc[readers["completed"] & ~readers["withdrawn"], "reader"])


def _on_task(cases: pd.DataFrame, plan: AnalysisPlan) -> np.ndarray:
    """[n] whether the time with the aid is known and within the plan's limits."""
    seconds = numbers(cases, "seconds_after")
    low, high = plan.time_limits
    return (seconds >= low) & (seconds <= high)


def trust_by_arm(cases: pd.DataFrame, arms: Sequence[str], plan: AnalysisPlan) -> list[Result]:
    """The model's mean of the primary endpoint in each arm, at the strata's shares in practice."""
    outcome = ENDPOINTS[plan.endpoint].of(cases)
    try:
        model = arm_model(cases, outcome)
    except NotEstimable as reason:
        return [{"arm": arm, "not_estimable": str(reason)} for arm in arms]
    return [{"arm": arm, **attempt(model.mean, arm, plan.alpha)} for arm in arms]


def reader_means(cases: pd.DataFrame, endpoint: Endpoint) -> list[Result]:
    """Mean of the endpoint for each reader in each arm."""
    outcome = pd.Series(endpoint.of(cases), index=cases.index)
    means = outcome.groupby([cases["reader"], cases["arm"]]).mean().dropna()
    return [{"reader": reader, "arm": arm, "mean": float(mean)} for (reader, arm), mean in means.items()]


def wilcoxon(cases: pd.DataFrame, plan: AnalysisPlan) -> list[Result]:
    """Wilcoxon's signed-rank test of readers' means in the two arms, every endpoint, Holm over all.

    It takes ratings by rank and readers as the only source of chance: the check on treating 7 points as a length.
    `value` is the Hodges-Lehmann median of the differences, of log-seconds as a ratio.
    """
    keys = list(dict.fromkeys((plan.endpoint, *plan.secondary)))
    return _with_holm([_wilcoxon_row(cases, ENDPOINTS[key], plan) for key in keys])


def _wilcoxon_row(cases: pd.DataFrame, endpoint: Endpoint, plan: AnalysisPlan) -> Result:
    outcome = pd.Series(endpoint.of(cases), index=cases.index)
    means = outcome.groupby([cases["reader"], cases["arm"]]).mean().unstack()
    pair = [arm for arm in (plan.primary.arm, plan.primary.against) if arm in means]
    both = means[pair].dropna() if len(pair) == 2 else means.iloc[:0]
    head = {"endpoint": endpoint.key, "label": endpoint.label, "contrast": plan.primary.text, "readers": len(both)}
    if len(both) < 2:
        return {**head, "not_estimable": "fewer than two readers with answers in both arms"}
    differences = both.iloc[:, 0].to_numpy() - both.iloc[:, 1].to_numpy()
    if not np.any(differences):
        return {**head, "not_estimable": "no reader differs between the arms"}
    walsh = (differences[:, None] + differences[None, :])[np.triu_indices(len(differences))] / 2
    value = float(np.exp(np.median(walsh)) if endpoint.log else np.median(walsh))
    return {**head, "value": value, "p": float(stats.wilcoxon(differences).pvalue)}


def out_of_distribution(cases: pd.DataFrame, arms: Sequence[str], plan: AnalysisPlan) -> Result:
    """The cases out of distribution on their own: how many, mean trust and confidence by arm, the primary contrast."""
    ood = cases[~cases["repeat"] & (cases["stratum"] == "ood")]
    rows = []
    for arm in arms:
        shown = ood[ood["arm"] == arm]
        means = {name: numbers(shown, name) for name in ("trust", "confidence_before", "confidence_after")}
        known = {n: float(np.nanmean(v)) if np.isfinite(v).any() else None for n, v in means.items()}
        rows.append({"arm": arm, "n": len(shown), **known})
    contrast = attempt(primary_result, ood, plan)
    return {"cases": int(ood["case"].nunique()), "by_arm": rows, "primary": contrast}


# --- who took part ------------------------------------------------------------------------------------------------


def flow(tables: StudyTables, plan: AnalysisPlan) -> Result:
    """Readers enrolled, withdrawn, finished, analysed and complete; cases and answers."""
    cases, readers = primary_cases(tables.cases), tables.readers
    return {
        "enrolled": len(readers),
        "withdrawn": int(readers["withdrawn"].sum()),
        "finished": int((readers["completed"] & ~readers["withdrawn"]).sum()),
        "analysed": int(cases["reader"].nunique()),
        "completers": len(completers(tables, plan)),
        "sites": int(readers["site"].nunique()),
        "cases": int(cases["case"].nunique()),
        "cases_ai_wrong": int(cases.loc[cases["stratum"] == "wrong", "case"].nunique()),
        "cases_ood": int(tables.cases.loc[tables.cases["stratum"] == "ood", "case"].nunique()),
        "answers": len(cases),
        "repeats": int(tables.cases["repeat"].sum()),
    }


def missing(cases: pd.DataFrame) -> list[Result]:
    """Answers missing of each item, among the rows where it was asked: an aid's items are not asked without one."""
    rows = []
    for column in ("diagnosis_before", "diagnosis_after", "confidence_after", "trust", *AID_ITEMS, "seconds_after"):
        asked = cases[cases["arm"] != "none"] if column in AID_ITEMS else cases
        rows.append({"item": column, "asked": len(asked), "missing": int(asked[column].isna().sum())})
    return rows


def _about(tables: StudyTables, plan: AnalysisPlan) -> Result:
    return {
        "study": tables.study,
        "simulated": tables.simulated,
        "data_kind": tables.mark or "answers of readers",
        "use": RESEARCH_USE_ONLY,
        "version": __version__,
        "plan_sha256": tables.plan_sha256,
        "plan": asdict(plan),
    }
