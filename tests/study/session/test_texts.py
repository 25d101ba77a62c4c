"""Default texts speak only of the parts that a study has."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from skinclip.study.protocol.protocol import Protocol
from skinclip.study.session.texts import texts_of
from tests.study import tiny


def protocol(**cases: Any) -> Protocol:
    values = tiny.protocol()
    values["cases"].update(cases)
    return Protocol.from_dict(values)


def test_with_all_parts_the_texts_are_those_of_the_plan(trust_study: Protocol) -> None:
    assert texts_of(trust_study) == trust_study.texts


@pytest.mark.parametrize(
    ("cases", "name", "absent", "kept"),
    [
        ({"ood_share": 0}, "debrief", "not made for", "practice. Its answers were never altered."),
        ({"practice": 0}, "instructions", "Practice cases", "Please work alone"),
        ({"repeat_share": 0}, "instructions", "photos return", "At the end some photos are shown with two aids"),
        ({"preference_pairs": 0}, "instructions", "side by side", "At the end some photos return."),
        ({"repeat_share": 0, "preference_pairs": 0}, "instructions", "At the end", "in that part".replace("in ", "")),
    ],
)
def test_a_part_that_a_study_lacks_is_not_spoken_of(cases: dict[str, Any], name: str, absent: str, kept: str) -> None:
    shown = getattr(texts_of(protocol(**cases)), name)
    assert absent in getattr(protocol().texts, name) and absent not in shown
    assert kept in shown


def test_a_study_keeps_its_own_texts(trust_study: Protocol) -> None:
    own = dataclasses.replace(trust_study.texts, debrief="Thank you {{ 1 + 1 }}.")
    assert texts_of(dataclasses.replace(trust_study, texts=own)).debrief == "Thank you {{ 1 + 1 }}."
