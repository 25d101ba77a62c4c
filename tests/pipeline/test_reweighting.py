"""The figures of an answer at another prevalence: those of an assessment at it, without another look at the photo."""

from __future__ import annotations

from dataclasses import replace

import pytest

from skinclip.core.vocabulary import MALIGNANT_CODES
from skinclip.imaging.examples import draw
from skinclip.imaging.photo import from_array
from skinclip.pipeline.reweighting import chosen_prevalence, reweighted
from tests.pipeline.test_prevalence import assessor  # noqa: F401  a fixture


@pytest.fixture(scope="module")
def photo():
    return from_array(draw("nevus", 3))


@pytest.mark.parametrize("malignant", [0.02, 0.3, 0.9])
def test_the_page_shows_what_an_assessment_at_the_prevalence_gives(assessor, photo, malignant: float) -> None:  # noqa: F811
    usual = assessor.assess(photo)
    page = reweighted(assessor, usual, malignant)
    there = assessor.assess(photo, prevalence=chosen_prevalence(usual.prevalence.shares, malignant))
    assert [d.code for d in page.diagnosis] == [d.code for d in there.diagnosis]
    assert [d.probability for d in page.diagnosis] == pytest.approx([d.probability for d in there.diagnosis], rel=1e-9)
    assert page.prediction_set == there.prediction_set
    assert page.malignancy.probability == pytest.approx(there.malignancy.probability, rel=1e-9)
    exact = {"probability": there.malignancy.probability, "prevalence": there.malignancy.prevalence}
    assert replace(page.malignancy, **exact) == there.malignancy
    assert page.prevalence == there.prevalence and page.malignancy.prevalence == pytest.approx(malignant)
    assert (page.findings, page.rationale) == (usual.findings, usual.rationale)


def test_a_prevalence_keeps_the_proportions_within_each_group() -> None:
    chosen = chosen_prevalence({"mel": 0.1, "bcc": 0.1, "nv": 0.6, "bkl": 0.2}, 0.5)
    assert chosen.shares == pytest.approx({"mel": 0.25, "bcc": 0.25, "nv": 0.375, "bkl": 0.125})
    assert sum(share for code, share in chosen.shares.items() if code in MALIGNANT_CODES) == pytest.approx(0.5)


def test_a_checkpoint_of_before_keeps_set_and_threshold(assessor, photo) -> None:  # noqa: F811
    usual, known = assessor.assess(photo), assessor.predictor
    fitted = reweighted(assessor, usual, 0.05)
    assessor.predictor = replace(known, calibrator=replace(known.calibrator, photos=None))
    try:
        page = reweighted(assessor, usual, 0.05)
    finally:
        assessor.predictor = known
    assert [d.probability for d in page.diagnosis] == pytest.approx([d.probability for d in fitted.diagnosis])
    assert page.prediction_set == usual.prediction_set
    assert page.malignancy.threshold == usual.malignancy.threshold and page.malignancy.sensitivity is None
