from __future__ import annotations

import dataclasses

import pytest

from skinclip.core import assessment as record
from skinclip.pipeline.settings import Settings, at_threshold, shifted
from tests.reporting.test_assessment_pdf import made_up

OWN = dataclasses.replace(made_up(), malignancy=record.Malignancy(0.65, 0.2, True, 0.92, 0.7, 0.2))


def test_no_choice_changes_nothing() -> None:
    assert at_threshold(OWN, None) is OWN


def test_odds_are_scaled_by_those_of_the_prevalence() -> None:
    assert shifted(0.5, 0.2, 0.5) == pytest.approx(0.8)  # odds 1 * (1 / 0.25)
    assert shifted(0.3, 0.2, 0.2) == 0.3


def test_a_threshold_decides_anew() -> None:
    assert not at_threshold(OWN, 0.7).malignancy.refer and at_threshold(OWN, 0.6).malignancy.refer
    assert at_threshold(OWN, 0.6).malignancy.sensitivity is None  # that of another threshold


def test_impossible_shares_are_refused() -> None:
    for wrong in ({"threshold": 0.0}, {"prevalence": 1.0}, {"prevalence": -0.2}):
        with pytest.raises(ValueError, match="no share"):
            Settings(**wrong)
