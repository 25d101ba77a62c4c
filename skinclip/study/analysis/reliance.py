"""Reliance on the AI's answer: accuracy before and after it, switches to right and to wrong, calibration.

A switch to wrong is a right unaided diagnosis that became a wrong one; its rate is taken over all answers to cases
where the AI errs, so that no arm is judged on cases that its own readers selected. Means and differences are the mixed
model's (`arm_model`): outcomes of 0 and 1 with crossed random effects of readers and cases, whose intervals' coverage
`eval_study.trust_study.coverage` measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from skinclip.study.analysis.arm_model import ArmModel, arm_model
from skinclip.study.analysis.diagnoses import RATES, Diagnoses
from skinclip.study.analysis.mixed import attempt
from skinclip.study.analysis.tables import numbers
from skinclip.study.errors import NotEstimable
from skinclip.study.protocol.model import Contrast

Result = dict[str, Any]
_BINS = (0.0, 20.0, 40.0, 60.0, 80.0, 100.0)  # of confidence, for the calibration plot


def accuracy(cases: pd.DataFrame, arms: Sequence[str], alpha: float) -> list[Result]:
    """Balanced accuracy of each arm, unaided, aided and the change, at the strata's shares in practice."""
    diagnoses = Diagnoses.of(cases)
    names = {"before": "balanced_before", "after": "balanced", "change": "balanced_change"}
    models = {name: _model(cases, diagnoses.outcome(key)) for name, key in names.items()}
    rows = []
    for arm in arms:
        means = {name: _mean(model, arm, alpha) for name, model in models.items()}
        rows.append({"arm": arm, "n": int((diagnoses.known & (diagnoses.arm == arm)).sum()), **means})
    return rows


def switching(cases: pd.DataFrame, arms: Sequence[str], alpha: float) -> list[Result]:
    """Every rate of `RATES` in each arm, with the numbers behind it."""
    diagnoses = Diagnoses.of(cases)
    rows = []
    for key, label in RATES.items():
        hits, among = diagnoses.rate(key)
        model = _model(cases, diagnoses.outcome(key))
        for arm in arms:
            here = among & (diagnoses.arm == arm)
            counts = {"hits": int((hits & here).sum()), "n": int(here.sum())}
            rows.append({"rate": key, "label": label, "arm": arm, **_mean(model, arm, alpha), **counts})
    return rows


def _model(cases: pd.DataFrame, outcome: np.ndarray) -> ArmModel | NotEstimable:
    try:
        return arm_model(cases, outcome)
    except NotEstimable as reason:
        return reason


def _mean(model: ArmModel | NotEstimable, arm: str, alpha: float) -> Result:
    if isinstance(model, NotEstimable):
        return {"not_estimable": str(model)}
    return attempt(model.mean, arm, alpha)


def safety(cases: pd.DataFrame, contrast: Contrast, margin: float, alpha: float) -> Result:
    """Non-inferiority of `contrast.arm` to its reference in switches to wrong where the AI errs, by `margin`.

    The linear mixed model of the 0/1 outcome (a linear probability model with crossed random effects of reader, case,
    and both by arm), whose contrast is the difference of the two rates. Its interval's coverage is simulated in
    `eval_study.trust_study.coverage`. Non-inferior where the upper end of the 1 - alpha interval lies below the margin,
    a one-sided test at alpha / 2; inferior where the lower end lies above it. `of_right` is the same difference among
    answers that were right before the aid, which alone can be led astray.

    Raises:
        NotEstimable: No answers to cases where the AI errs in one of the arms, too few to fit, or no switch in either
            arm, from which no model has an interval of any width, whatever the number of answers.
    """
    diagnoses = Diagnoses.of(cases)
    switched, among = diagnoses.rate("to_wrong")
    if not among.any():
        raise NotEstimable("no answers to cases where the AI errs and the truth is known")
    pair = (contrast.arm, contrast.reference)
    here = among & np.isin(diagnoses.arm, pair)
    if here.any() and not switched[here].any():
        raise NotEstimable(f"none of {int(here.sum())} answers in the two arms switched to wrong: nothing to compare")
    observed = [_share(switched[among & (diagnoses.arm == arm)]) for arm in pair]
    try:
        difference = arm_model(cases, diagnoses.outcome("to_wrong")).difference(contrast, alpha)
    except NotEstimable as reason:
        shares = " against ".join("no answers" if share is None else f"{share:.1%}" for share in observed)
        raise NotEstimable(f"{reason}; observed: {shares} of answers switched to wrong") from reason
    difference.pop("p")  # of no difference, which is not the question
    return {
        "contrast": contrast.text,
        "test": "mixed model",
        **difference,
        "rate": observed[0],
        "rate_reference": observed[1],
        "margin": margin,
        "decision": _decision(difference, margin),
        "of_right": attempt(_of_right, cases, diagnoses, contrast, alpha),
    }


def _decision(difference: Result, margin: float) -> str:
    if difference["high"] < margin:
        return "non-inferior"
    return "inferior" if difference["low"] > margin else "not shown"


def _of_right(cases: pd.DataFrame, diagnoses: Diagnoses, contrast: Contrast, alpha: float) -> Result:
    """The difference among answers that were right before the aid, described beside the planned analysis."""
    outcome = diagnoses.outcome("to_wrong_of_right")
    difference = arm_model(cases, outcome).difference(contrast, alpha)
    difference.pop("p")
    here = [outcome[np.isfinite(outcome) & (diagnoses.arm == arm)] for arm in (contrast.arm, contrast.reference)]
    return {**difference, "rate": _share(here[0]), "rate_reference": _share(here[1])}


def _share(hits: np.ndarray) -> float | None:
    return float(hits.mean()) if len(hits) else None


def calibration(cases: pd.DataFrame, arms: Sequence[str]) -> list[Result]:
    """Share right by stated confidence, unaided and aided, each arm: five bins, weighted by sampling weights."""
    answers, weights = Diagnoses.of(cases), numbers(cases, "weight")
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
    answers = Diagnoses.of(cases)
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
