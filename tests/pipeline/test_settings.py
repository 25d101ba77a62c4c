from __future__ import annotations

import dataclasses

import pytest

from skinclip.core import assessment as record
from skinclip.core.vocabulary import MALIGNANT_CODES
from skinclip.pipeline.settings import Settings, at_settings, shifted
from tests.reporting.test_assessment_pdf import made_up

OWN = dataclasses.replace(made_up(), malignancy=record.Malignancy(0.65, 0.2, True, 0.92, 0.7, 0.2))


def test_no_choice_changes_nothing() -> None:
    assert at_settings(OWN, Settings()) is OWN


def test_a_prevalence_scales_the_odds_of_malignancy() -> None:
    assert shifted(0.5, 0.2, 0.5) == pytest.approx(0.8)  # odds 1 * (1 / 0.25)
    assert shifted(0.3, 0.2, 0.2) == 0.3
    rarer = at_settings(OWN, Settings(prevalence=0.05))
    assert rarer.malignancy.probability == pytest.approx(shifted(0.65, 0.2, 0.05))
    assert rarer.malignancy.prevalence == 0.05 and rarer.malignancy.sensitivity is None


def test_probabilities_still_sum_to_one_and_keep_their_proportions_within_a_group() -> None:
    total = sum(d.probability for d in OWN.diagnosis)
    malignant = sum(d.probability for d in OWN.diagnosis if d.code in MALIGNANT_CODES)
    own = dataclasses.replace(OWN, malignancy=dataclasses.replace(OWN.malignancy, probability=malignant))
    other = at_settings(own, Settings(prevalence=0.02))
    assert sum(d.probability for d in other.diagnosis) == pytest.approx(total)
    before = {d.code: d.probability for d in own.diagnosis if d.code in MALIGNANT_CODES}
    after = {d.code: d.probability for d in other.diagnosis if d.code in MALIGNANT_CODES}
    ratios = {after[code] / before[code] for code in before if before[code] > 1e-9}
    assert max(ratios) == pytest.approx(min(ratios))


def test_a_threshold_decides_anew() -> None:
    assert not at_settings(OWN, Settings(threshold=0.7)).malignancy.refer
    assert at_settings(OWN, Settings(threshold=0.6)).malignancy.refer


def test_impossible_shares_are_refused() -> None:
    for wrong in ({"threshold": 0.0}, {"prevalence": 1.0}, {"prevalence": -0.2}):
        with pytest.raises(ValueError, match="no share"):
            Settings(**wrong)


def test_an_assessment_of_before_keeps_its_probabilities() -> None:
    old = dataclasses.replace(OWN, malignancy=record.Malignancy(0.65, 0.2, True))
    assert at_settings(old, Settings(prevalence=0.5)).malignancy.probability == 0.65
