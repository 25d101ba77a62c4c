"""The analysis plan: endpoints, contrasts and levels, as a protocol fixed them in advance.

Endpoints carry the names that a protocol gives them. One that is answered case by case is an `Endpoint`, a column of
the table of cases; `DERIVED` are computed from several answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from types import MappingProxyType

import numpy as np
import pandas as pd

from skinclip.study.analysis.diagnoses import Diagnoses
from skinclip.study.analysis.tables import AID_ITEMS, answer_column, numbers
from skinclip.study.protocol.model import GATES
from skinclip.study.protocol.protocol import Contrast, Protocol, Question


@dataclass(frozen=True)
class Endpoint:
    """An outcome of each case.

    Attributes:
        key: its name in plan and results.
        label, unit: for the report.
        column: of the table of cases; `minus` is subtracted from it where given.
        log: the model takes logarithms, and differences come out as ratios.
        share: yes or no; arms differ in the share of yes.
        rate: outcome made of the diagnoses, as `Diagnoses.outcome` names it; then there is no column.
        deserved: an arm's figure is its mean where the AI is right less its mean where the AI errs.
    """

    key: str
    label: str
    unit: str
    column: str = ""
    minus: str = ""
    log: bool = False
    share: bool = False
    rate: str = ""
    deserved: bool = False

    def of(self, cases: pd.DataFrame) -> np.ndarray:
        """[n] the outcome, NaN where it is missing."""
        if self.rate:
            return Diagnoses.of(cases).outcome(self.rate)
        if self.column not in cases:
            return np.full(len(cases), np.nan)
        values = numbers(cases, self.column) - (numbers(cases, self.minus) if self.minus else 0.0)
        return np.log(np.where(values > 0, values, np.nan)) if self.log else values

    def by_reader(self, cases: pd.DataFrame) -> pd.DataFrame:
        """Mean of each reader (rows) in each arm (columns), cases unweighted; NaN where a reader has none."""
        outcome = pd.Series(self.of(cases), index=cases.index)
        if not self.deserved:
            return outcome.groupby([cases["reader"], cases["arm"]]).mean().unstack()
        means = outcome.groupby([cases["reader"], cases["arm"], cases["stratum"]]).mean().unstack()
        means = means.reindex(columns=["right", "wrong"])
        return (means["right"] - means["wrong"]).unstack()

    def was_answered(self, cases: pd.DataFrame) -> pd.Series:
        """[n] whether the question behind the endpoint was answered, whatever is known of the truth."""
        if self.rate:
            return cases["diagnosis_after"].notna()
        return pd.Series(np.isfinite(self.of(cases)), index=cases.index)


TRUST = Endpoint("trust", "Trust in this answer", "points, 1-7", "trust")
ENDPOINTS: Mapping[str, Endpoint] = MappingProxyType(
    {
        e.key: e
        for e in (
            TRUST,
            *(Endpoint(item, f"Explanation {item}", "points, 1-5", item) for item in AID_ITEMS),
            Endpoint(
                "confidence", "Confidence, after less before", "points, 0-100", "confidence_after", "confidence_before"
            ),
            Endpoint("act", "Would biopsy or refer, with the aid", "share", "act_after", share=True),
            Endpoint("seconds", "Time with the aid", "ratio of seconds", "seconds_after", log=True),
            Endpoint("accuracy", "Right diagnosis with the aid", "share", rate="right", share=True),
            Endpoint("balanced_accuracy", "Balanced accuracy with the aid", "share", rate="balanced", share=True),
            Endpoint(
                *("switch_to_right", "Switch to right where the AI is right", "share"), rate="to_right", share=True
            ),
            Endpoint(
                *("following", "Took over the AI's answer where it differed", "share"), rate="followed", share=True
            ),
            Endpoint(
                *("deserved_trust", "Trust where the AI is right, less where it errs", "points, 1-7", "trust"),
                deserved=True,
            ),
            Endpoint(
                *("deserved_following", "Took over the AI's answer where it is right, less where it errs", "share"),
                rate="followed",
                share=True,
                deserved=True,
            ),
        )
    }
)
DERIVED: Mapping[str, tuple[str, str]] = MappingProxyType(  # key -> label and unit
    {
        "satisfaction": ("Explanation satisfaction", "points, 1-5"),
        "trust_scale": ("Trust scale", "points, 1-7"),
        "distrust_scale": ("Distrust scale", "points, 1-7"),
        "preference": ("Preferred side by side", "log-odds"),
    }
)
CONTRASTS = (
    Contrast("regions", "none"),
    Contrast("regions", "grad_cam_text"),
    Contrast("grad_cam_text", "grad_cam"),
    Contrast("grad_cam", "none"),
)


_DEFAULT_SECONDARY = (
    *("deserved_trust", *AID_ITEMS, "confidence", "act", "seconds", "balanced_accuracy", "switch_to_right"),
    *DERIVED,
)
_REGIONS_OVER_GRAD_CAM = Contrast("regions", "grad_cam")


@dataclass(frozen=True)
class AnalysisPlan:
    """The choices fixed before the first answer.

    The defaults are those of `eval_study/trust_study/protocol/trust_study.yaml`.

    Attributes:
        primary: contrast of the primary and of all secondary endpoints.
        endpoint: key of the primary endpoint, one that is answered case by case.
        safety: contrast of the safety endpoint, switch to wrong where the AI errs.
        gatekeeping: the steps of `GATES` in the order in which they are tested, each only where all before it
            succeeded; empty where each is tested by itself.
        safety_margin: highest tolerated difference in that rate, as a share of cases where the AI errs.
        alpha: two-sided; intervals are 1 - alpha.
        secondary: keys of the secondary endpoints.
        secondary_contrasts: further contrasts of the primary endpoint; with `secondary` they are Holm's one family.
        further: endpoints that are a study's own questions.
        smallest_effect, power: what the study was planned to find, in points of the primary endpoint, and how surely.
        completion: least share of `cases` rated to count as a completer.
        cases: those that each reader is to see, repeats and practice apart; None is the most that any reader saw.
        time_limits: seconds with the aid outside of which an answer was interrupted or a slip; they are left out
            of one sensitivity analysis and of no other.
        resamples, seed: of the bootstraps.
    """

    primary: Contrast = _REGIONS_OVER_GRAD_CAM
    endpoint: str = "trust"
    safety: Contrast = _REGIONS_OVER_GRAD_CAM
    safety_margin: float = 0.1
    alpha: float = 0.05
    secondary: tuple[str, ...] = _DEFAULT_SECONDARY
    secondary_contrasts: tuple[Contrast, ...] = CONTRASTS
    further: tuple[Endpoint, ...] = ()
    smallest_effect: float = 0.3
    power: float = 0.8
    completion: float = 0.9
    cases: int | None = None
    time_limits: tuple[float, float] = (3.0, 600.0)
    resamples: int = 1000
    seed: int = 0
    gatekeeping: tuple[str, ...] = GATES
    washout_days: int = 0

    def __post_init__(self) -> None:
        known = {*self.rated, *DERIVED}
        unknown = [key for key in (self.endpoint, *self.secondary) if key not in known]
        if unknown:
            raise ValueError(f"unknown endpoint {unknown[0]}; choose from {', '.join((*self.rated, *DERIVED))}")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha is {self.alpha}; it must lie between 0 and 1, such as 0.05")
        if not 0 < self.safety_margin < 1:
            raise ValueError(f"safety_margin is {self.safety_margin}; it is a share of cases between 0 and 1")

    @property
    def rated(self) -> dict[str, Endpoint]:
        """Every endpoint that is answered case by case, the study's own questions included."""
        return {**ENDPOINTS, **{endpoint.key: endpoint for endpoint in self.further}}

    @property
    def primary_endpoint(self) -> Endpoint:
        return self.rated[self.endpoint]


DEFAULT_PLAN = AnalysisPlan()
_RESAMPLES = 1000


def from_protocol(protocol: Protocol) -> AnalysisPlan:
    """The protocol's plan as the statistics take it."""
    plan = protocol.plan
    family = len(plan.secondary) + len(plan.contrasts)
    asked = {q.key: q for q in protocol.questions["after"]}
    return AnalysisPlan(
        primary=Contrast(plan.primary.arm, plan.primary.reference),
        endpoint=plan.primary.endpoint,
        safety=Contrast(plan.safety.arm, plan.safety.reference),
        safety_margin=plan.safety.margin,
        alpha=plan.alpha,
        secondary=plan.secondary,
        secondary_contrasts=plan.contrasts,
        further=tuple(_further(q) for q in asked.values() if q.key not in ENDPOINTS and q.scale.type.analysed),
        smallest_effect=plan.primary.smallest_effect,
        power=plan.power,
        completion=protocol.completion.min_cases_share,
        cases=protocol.cases.n * protocol.sessions,
        time_limits=(plan.time_outliers.min_seconds, plan.time_outliers.max_seconds),
        # The smallest p of a bootstrap is 2 / (resamples + 1): Holm's factor must leave it below alpha.
        resamples=max(_RESAMPLES, ceil(4 * family / plan.alpha)),
        seed=protocol.seed % 2**32,
        gatekeeping=plan.gatekeeping,
        washout_days=0 if protocol.second_session is None else protocol.second_session.days,
    )


def _further(question: Question) -> Endpoint:
    """A question of the study's own, asked after each case."""
    entry, label = question.scale.type, question.key.replace("_", " ").capitalize()
    unit, column = entry.unit(question.scale), answer_column(question.key)
    return Endpoint(question.key, label, unit, column, share=entry.analysed == "share")
