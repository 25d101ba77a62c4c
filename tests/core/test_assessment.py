"""The Assessment is checked when it is made and read strictly from JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest
from pydantic import ValidationError

from skinclip.core.assessment import Assessment, Finding, Malignancy, Region
from tests.reporting.test_phrasing import combination


def changed(**values: object) -> str:
    return json.dumps(combination(1).to_dict() | values)


def test_json_gives_the_same_assessment_again() -> None:
    for seed in range(20):
        one = combination(seed)
        assert Assessment.from_json(one.to_json()) == one
        assert Assessment.from_json(one.to_json()).to_json() == one.to_json()


def test_json_written_before_a_field_was_added_still_opens() -> None:
    old = combination(2).to_dict()
    del old["dependence"], old["malignancy"]["sensitivity"]
    again = Assessment.from_json(json.dumps(old))
    assert again.dependence is None and again.malignancy.sensitivity is None
    assert again.findings == combination(2).findings


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (changed(abstained="no"), "abstained"),
        (changed(colour="red"), "colour"),
        (changed(malignancy={"probability": "0.5", "threshold": 0.1, "refer": True}), "malignancy.probability"),
        ("[]", "document"),
        ("{", "document"),
    ],
)
def test_what_is_wrong_with_a_document_is_named(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"not an Assessment: .*{problem}"):
        Assessment.from_json(text)


def test_values_are_checked_when_a_record_is_made() -> None:
    with pytest.raises(ValidationError):
        Malignancy("0.5", 0.1, True)  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Malignancy(0.5, 0.1, True).refer = False  # type: ignore[misc]


def test_a_finding_knows_the_key_of_its_state() -> None:
    assert Finding("r1", "streaks", "irregular", 0.5, Region((0, 0, 1, 1), ())).key == "streaks:irregular"
