"""The four arms read as two by two: does the explanation have text, and does it point at the photo?

The primary contrast, rationale with regions less Grad-CAM, changes both at once. Two readings tell them apart: what
text and what pointing do on average of the other (main effects, and their interaction), and the two steps that add up
to the primary contrast, from map to map with text and from there to text that points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from skinclip.study.analysis.analysis_plan import AnalysisPlan
from skinclip.study.analysis.arm_model import arm_model
from skinclip.study.analysis.mixed import attempt, described
from skinclip.study.errors import NotEstimable
from skinclip.study.protocol.arms import arm_named

Result = dict[str, Any]
_MAIN = {"text": "Text, averaged over pointing", "pointing": "Pointing, averaged over text"}


def two_by_two(cases: pd.DataFrame, arms: Sequence[str], plan: AnalysisPlan) -> list[Result]:
    """Main effects of text and pointing, their interaction, and the two steps, on the primary endpoint.

    Empty where the study does not have exactly one arm of each of the four kinds. Described, not tested.
    """
    cells = _cells(arms)
    if cells is None:
        return []
    endpoint = plan.primary_endpoint
    try:
        model = arm_model(cases, endpoint.of(cases), deserved=endpoint.deserved)
    except NotEstimable as reason:
        return [{"effect": name, "label": label, "not_estimable": str(reason)} for name, label, _ in _effects(cells)]
    rows = []
    for name, label, weights in _effects(cells):
        rows.append({"effect": name, "label": label, **described(attempt(model.combination, weights, plan.alpha))})
    return rows


def _cells(arms: Sequence[str]) -> dict[tuple[bool, bool], str] | None:
    """(text, pointing) -> arm, where each of the four has one arm."""
    cells = {(arm_named(arm).text != "none", arm_named(arm).points): arm for arm in arms}
    return cells if len(cells) == len(arms) == 4 else None


def _effects(cells: Mapping[tuple[bool, bool], str]) -> list[tuple[str, str, dict[str, float]]]:
    """Name, label and weights of the arms' means of each effect."""
    sign = {True: 1.0, False: -1.0}
    text = {arm: sign[t] / 2 for (t, _), arm in cells.items()}
    pointing = {arm: sign[p] / 2 for (_, p), arm in cells.items()}
    interaction = {arm: sign[t] * sign[p] for (t, p), arm in cells.items()}
    map_alone, both, text_alone = cells[False, True], cells[True, True], cells[True, False]
    return [
        ("text", _MAIN["text"], text),
        ("pointing", _MAIN["pointing"], pointing),
        ("interaction", "Interaction: pointing with text, less pointing without", interaction),
        ("text_step", "Step 1: text beside the map", {text_alone: 1.0, map_alone: -1.0}),
        ("pointing_step", "Step 2: text that points, in place of both", {both: 1.0, text_alone: -1.0}),
    ]
