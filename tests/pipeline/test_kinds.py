"""Criteria of dermoscopy are asserted on no other kind of photo."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from skinclip.core.assessment import Assessment, Context
from skinclip.core.vocabulary import CRITERION_CODES
from skinclip.imaging.examples import draw
from skinclip.imaging.photo import from_array
from skinclip.pipeline.assessor import Assessor
from skinclip.pipeline.findings import asserted, findings_of, lesion_of
from skinclip.reporting.phrasing import cautions


@pytest.fixture(scope="module")
def assessor() -> Assessor:
    return Assessor.load("mini")


def test_criteria_are_of_dermoscopy() -> None:
    assert asserted(CRITERION_CODES, "dermoscopy") == asserted(CRITERION_CODES, None) == CRITERION_CODES
    assert asserted(CRITERION_CODES, "clinical") == asserted(CRITERION_CODES, "neither") == ()


@pytest.mark.parametrize("kind", ["clinical", "neither"])
def test_none_is_cited_on_a_clinical_photo_whatever_its_score(assessor: Assessor, kind: str) -> None:
    photo = from_array(draw("melanoma", 7))
    output = assessor.forward([photo], [Context()])
    every = dict.fromkeys(assessor.config.criteria, 0.0)  # all of them pass
    lesion = lesion_of(photo, output)
    cited = {f.criterion for f in findings_of(photo, output, lesion, every, kind)}
    assert not cited & set(CRITERION_CODES) and cited <= {"asymmetry", "border", "colour"}
    assert {f.criterion for f in findings_of(photo, output, lesion, every, "dermoscopy")} & set(CRITERION_CODES)


def test_an_assessment_of_a_clinical_photo_asserts_none(assessor: Assessor, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = from_array(draw("melanoma", 7))
    forward = type(assessor.predictor).forward

    def clinical(self, *args, **kwargs):
        output = forward(self, *args, **kwargs)
        kinds = ("clinical",) * len(output.calibrated.kinds)
        return replace(output, calibrated=replace(output.calibrated, kinds=kinds, photo_kinds=kinds))

    monkeypatch.setattr(type(assessor.predictor), "forward", clinical)
    found = assessor.assess(photo)
    assert found.criteria == {} and not {f.criterion for f in found.findings} & set(CRITERION_CODES)
    assert assessor.predict([photo], [Context()])[0].criteria == {}
    assert Assessment.from_json(found.to_json()) == found


def test_a_photo_says_its_kind_where_it_was_recognised(assessor: Assessor) -> None:
    found = assessor.assess(from_array(draw("nevus", 7)))
    known = len(assessor.calibrator.by_kind) > 1
    assert (found.photo.kind in ("dermoscopy", "clinical")) == known
    named = replace(found, photo=replace(found.photo, kind="neither", kind_probability=0.8))
    assert Assessment.from_json(named.to_json()).photo.kind_probability == 0.8
    with pytest.raises(ValueError, match="kind"):
        Assessment.from_json(named.to_json().replace('"neither"', '"x-ray"'))


def test_pictures_without_skin_are_of_neither_kind_and_the_answer_says_so(assessor: Assessor) -> None:
    if not assessor.tells_kinds:
        pytest.skip("the embedded model tells no kinds apart")
    y, x = np.mgrid[0:300, 0:400]
    squares = from_array(np.where((y // 40 + x // 40) % 2, 250, 5).astype(np.uint8)[..., None].repeat(3, 2))
    found = assessor.assess(squares)
    assert assessor.recognise([squares]) == ["neither"] and found.photo.kind == "neither"
    assert found.abstained and not found.shift.in_domain and found.criteria == {} and found.rationale == ""
    assert any("recognised as neither dermoscopy nor a close-up" in line for line in cautions(found))
    assert Assessment.from_json(found.to_json()) == found
    said = assessor.assess(replace(squares, kind="dermoscopy"))
    assert said.photo.kind == "dermoscopy" and said.photo.kind_recognised == "neither"
