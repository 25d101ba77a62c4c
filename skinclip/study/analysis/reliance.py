"""Reliance on the AI's answer: accuracy before and after it, switches to right and to wrong, calibration.

A switch to wrong is a right unaided diagnosis that became a wrong one; its rate is taken over all answers to cases
where the AI errs, so that no arm is judged on cases that its own readers selected. "Cannot tell" is not right. Cases of
unknown truth do not count. Intervals are of the reader x case bootstrap, but for the safety endpoint's, which is the
mixed model's: the bootstrap triples residual variance and is far too wide there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from skinclip.evaluation import metrics
from skinclip.evaluation.metrics import Metric
from skinclip.study.analysis.arm_model import arm_model
from skinclip.study.analysis.mixed import attempt
from skinclip.study.analysis.resampling import BootstrapEstimate, TwoWayBootstrap
from skinclip.study.analysis.tables import ANSWERS, numbers
from skinclip.study.errors import NotEstimable
from skinclip.study.protocol.model import Contrast

Result = dict[str, Any]
_BINS = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)  # of confidence, for the calibration plot
RATES: Mapping[str, str] = {
    "to_wrong": "switch to wrong, of answers where the AI errs",
    "to_right": "switch to right, of answers where the AI is right",
    "to_wrong_of_right": "switch to wrong, of right unaided answers where the AI errs",
    "followed_wrong": "took over the AI's error, of answers that differed from it",
    "followed_right": "took over the AI's right answer, of answers that differed from it",
}


@dataclass(frozen=True)
class _Answers:
    """The diagnoses as numbers [n]: -1 unknown, the last "cannot tell"."""

    truth: np.ndarray
    ai: np.ndarray
    before: np.ndarray
    after: np.ndarray
    arm: np.ndarray

    @classmethod
    def of(cls, cases: pd.DataFrame) -> _Answers:
        places = {code: i for i, code in enumerate(ANSWERS)}
        columns = ("truth", "ai_leading", "diagnosis_before", "diagnosis_after")
        truth, ai, before, after = (cases[name].map(places).fillna(-1).to_numpy(dtype=int) for name in columns)
        return cls(truth, ai, before, after, cases["arm"].to_numpy(dtype=str))

    @property
    def known(self) -> np.ndarray:
        return (self.truth >= 0) & (self.before >= 0) & (self.after >= 0)

    def rate(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """(hits [n], among which rows [n]) of one of `RATES`."""
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
        }[key]


def bootstrap_of(cases: pd.DataFrame, n: int, seed: int) -> TwoWayBootstrap:
    """Resamples of these rows' readers and cases, with their sampling weights."""
    return TwoWayBootstrap(cases["reader"].to_list(), cases["case"].to_list(), numbers(cases, "weight"), n, seed)


def accuracy(cases: pd.DataFrame, arms: Sequence[str], bootstrap: TwoWayBootstrap, alpha: float) -> list[Result]:
    """Balanced accuracy of each arm, unaided, aided and the change, over the classes that the arm's cases have."""
    answers = _Answers.of(cases)
    rows = []
    for arm in arms:
        before, after = (_balanced(answers, arm, phase, bootstrap) for phase in ("before", "after"))
        drawn = {"before": before, "after": after, "change": after - before}
        intervals = {name: attempt(figure.interval, alpha) for name, figure in drawn.items()}
        rows.append({"arm": arm, "n": int((answers.known & (answers.arm == arm)).sum()), **intervals})
    return rows


def switching(cases: pd.DataFrame, arms: Sequence[str], bootstrap: TwoWayBootstrap, alpha: float) -> list[Result]:
    """Every rate of `RATES` in each arm, with the numbers behind it."""
    answers = _Answers.of(cases)
    rows = []
    for key, label in RATES.items():
        hits, among = answers.rate(key)
        for arm in arms:
            here = among & (answers.arm == arm)
            interval = attempt(_rate(answers, key, arm, bootstrap).interval, alpha)
            counts = {"hits": int((hits & here).sum()), "n": int(here.sum())}
            rows.append({"rate": key, "label": label, "arm": arm, **counts, **interval})
    return rows


def difference(
    cases: pd.DataFrame, key: str, arm: str, against: str, bootstrap: TwoWayBootstrap, alpha: float
) -> Result:
    """`arm` less `against` in a rate, or in aided balanced accuracy (`balanced_accuracy`).

    Raises:
        NotEstimable: One of the arms has no answers of this kind.
    """
    answers = _Answers.of(cases)
    if key == "balanced_accuracy":
        pair = [_balanced(answers, one, "after", bootstrap) for one in (arm, against)]
    else:
        pair = [_rate(answers, key, one, bootstrap) for one in (arm, against)]
    return (pair[0] - pair[1]).interval(alpha)


def safety(cases: pd.DataFrame, contrast: Contrast, margin: float, alpha: float) -> Result:
    """Non-inferiority of `contrast.arm` to its reference in switches to wrong where the AI errs, by `margin`.

    The linear mixed model of the 0/1 outcome (a linear probability model with crossed random effects of reader, case,
    and both by arm), whose contrast is the difference of the two rates. Its interval's coverage is simulated in
    `eval_study.trust_study.coverage`. Non-inferior where the upper end of the 1 - alpha interval lies below the margin,
    a one-sided test at alpha / 2; inferior where the lower end lies above it.

    Raises:
        NotEstimable: No answers to cases where the AI errs in one of the arms, too few to fit, or no switch in either
            arm, from which no model has an interval of any width, whatever the number of answers.
    """
    answers = _Answers.of(cases)
    switched, among = answers.rate("to_wrong")
    if not among.any():
        raise NotEstimable("no answers to cases where the AI errs and the truth is known")
    pair = (contrast.arm, contrast.reference)
    here = among & np.isin(answers.arm, pair)
    if here.any() and not switched[here].any():
        raise NotEstimable(f"none of {int(here.sum())} answers in the two arms switched to wrong: nothing to compare")
    rows, outcome = cases[among], switched[among].astype(np.float64)
    observed = [_share(switched[among & (answers.arm == arm)]) for arm in pair]
    try:
        difference = arm_model(rows, outcome).difference(contrast, alpha)
    except NotEstimable as reason:
        shares = " against ".join("no answers" if share is None else f"{share:.1%}" for share in observed)
        raise NotEstimable(f"{reason}; observed: {shares} of answers switched to wrong") from reason
    difference.pop("p")  # of no difference, which is not the question
    decision = (
        "non-inferior" if difference["high"] < margin else "inferior" if difference["low"] > margin else "not shown"
    )
    rates = {"rate": observed[0], "rate_reference": observed[1]}
    return {
        "contrast": contrast.text,
        "test": "mixed model",
        **difference,
        **rates,
        "margin": margin,
        "decision": decision,
    }


def _share(hits: np.ndarray) -> float | None:
    return float(hits.mean()) if len(hits) else None


def calibration(cases: pd.DataFrame, arms: Sequence[str]) -> list[Result]:
    """Share right by stated confidence, unaided and aided, each arm: five bins, weighted by sampling weights."""
    answers, weights = _Answers.of(cases), numbers(cases, "weight")
    rows = []
    for arm in arms:
        for phase, answer in (("before", answers.before), ("after", answers.after)):
            confidence = numbers(cases, f"confidence_{phase}")
            here = (answers.truth >= 0) & (answer >= 0) & np.isfinite(confidence) & (answers.arm == arm)
            place = np.clip(np.digitize(confidence, _BINS[1:-1]), 0, len(_BINS) - 2)
            for b in range(len(_BINS) - 1):
                inside = here & (place == b)
                if inside.any():
                    mean = {
                        "confidence": float(np.average(confidence[inside], weights=weights[inside])) / 100,
                        "right": float(np.average((answer == answers.truth)[inside], weights=weights[inside])),
                    }
                    rows.append({"arm": arm, "phase": phase, "n": int(inside.sum()), **mean})
    return rows


def switches(cases: pd.DataFrame, arms: Sequence[str]) -> list[Result]:
    """Counts of answers from right or wrong before to right or wrong after, by arm and by whether the AI erred."""
    answers = _Answers.of(cases)
    with_ai = answers.known & (answers.ai >= 0)
    rows = []
    for arm in arms:
        for ai_right in (True, False):
            here = with_ai & (answers.arm == arm) & ((answers.ai == answers.truth) == ai_right)
            for before in (True, False):
                for after in (True, False):
                    moved = ((answers.before == answers.truth) == before) & ((answers.after == answers.truth) == after)
                    counts = {"n": int((here & moved).sum()), "of": int(here.sum())}
                    rows.append({"arm": arm, "ai_right": ai_right, "before": before, "after": after, **counts})
    return rows


def _balanced(answers: _Answers, arm: str, phase: str, bootstrap: TwoWayBootstrap) -> BootstrapEstimate:
    among = answers.known & (answers.arm == arm)
    given = answers.before if phase == "before" else answers.after
    return bootstrap.draw(metrics.balanced_accuracy(answers.truth[among], given[among]), among)


def _rate(answers: _Answers, key: str, arm: str, bootstrap: TwoWayBootstrap) -> BootstrapEstimate:
    hits, among = answers.rate(key)
    here = among & (answers.arm == arm)
    metric: Metric = metrics.mean(hits[here].astype(np.float64))
    return bootstrap.draw(metric, here)
