"""The states of each criterion that a photo's labels leave possible, and how sure they are.

Labels of criteria come in three strengths. A labelled state (Derm7pt) is one state, for sure. An attribute that an
expert drew (ISIC 2018 Task 2) is there, in whichever state; one that was not drawn is probably absent. A criterion that
a dermatologist marked on a photo is there in the state it stands for; one that was offered and left is "not marked",
weaker than "absent": the other states stay possible, and the label counts little.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from skinclip.core.vocabulary import CRITERION_BY_CODE, STATE_BY_KEY
from skinclip.data.cases import Case
from skinclip.data.dermatologist_criteria import OFFERED

NOT_DRAWN = 0.5  # weight of an attribute that was looked for and not drawn
NOT_MARKED = 0.3  # weight of a criterion that was offered and not marked
ATTRIBUTE_CRITERIA: dict[str, str] = {  # attribute of ISIC 2018 Task 2 -> the criterion that it is
    "pigment_network": "pigment_network",
    "negative_network": "negative_network",
    "streaks": "streaks",
    "milia_like_cyst": "milia_like_cysts",
    "globules": "dots_and_globules",
}


@dataclass(frozen=True)
class PossibleStates:
    """States of a criterion, "absent" among them where it may be, and the weight of the label, above 0 to 1."""

    states: frozenset[str]
    weight: float = 1.0


def possible_states(case: Case) -> dict[str, PossibleStates]:
    """Criterion -> what the labels of `case` say of it, the strongest kind where there are several.

    A criterion that is not among the keys was not labelled.
    """
    return {
        **_read_by_dermatologists(case),
        **_drawn_by_experts(case),
        **{code: PossibleStates(frozenset((state,))) for code, state in case.criteria.items()},
    }


def certain_labels(case: Case) -> dict[str, str]:
    """Criterion -> its state where that is labelled, or follows from a drawing because the criterion has only one."""
    drawn = {code: _only_state(code, p) for code, p in _drawn_by_experts(case).items()}
    return {code: state for code, state in drawn.items() if state is not None} | case.criteria


def _only_state(code: str, possible: PossibleStates) -> str | None:
    """The state of a criterion that is there in one way or not at all."""
    return next(iter(possible.states)) if len(CRITERION_BY_CODE[code].states) == 1 else None


def _drawn_by_experts(case: Case) -> dict[str, PossibleStates]:
    labels: dict[str, PossibleStates] = {}
    for attribute, mask in case.attribute_masks.items():
        code = ATTRIBUTE_CRITERIA.get(attribute)
        if code is not None:
            there = frozenset(state.code for state in CRITERION_BY_CODE[code].states)
            absent = PossibleStates(frozenset(("absent",)), NOT_DRAWN)
            labels[code] = absent if mask is None else PossibleStates(there)
    return labels


def _read_by_dermatologists(case: Case) -> dict[str, PossibleStates]:
    """Several readings are taken together: a mark by one of them counts by the share of those who made it."""
    offered = OFFERED.get(case.diagnosis or "", {})
    readings = [r for r in case.readings if r.marked]  # one without any mark says nothing about any criterion
    answers: Mapping[str, list[frozenset[str]]] = defaultdict(list)
    for reading in readings:
        seen: dict[str, set[str]] = defaultdict(set)
        for mark, key in offered.items():
            if mark in reading.marked | reading.not_marked:
                states = seen[STATE_BY_KEY[key].criterion]
                if mark in reading.marked:
                    states.add(STATE_BY_KEY[key].code)
        for code, states in seen.items():
            answers[code].append(frozenset(states))
    return {code: _together(code, states, offered) for code, states in answers.items()}


def _together(code: str, readings: list[frozenset[str]], offered: Mapping[str, str]) -> PossibleStates:
    """One label of the states that each reading marked, none in some."""
    marked = frozenset().union(*readings)
    if marked:
        return PossibleStates(marked, sum(bool(states) for states in readings) / len(readings))
    asked = {STATE_BY_KEY[key].code for key in offered.values() if STATE_BY_KEY[key].criterion == code}
    return PossibleStates(frozenset(CRITERION_BY_CODE[code].labels) - asked, NOT_MARKED)
