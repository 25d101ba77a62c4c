"""The prevalence that a user states, from the command line's argument to the numbers of an Assessment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from skinclip.calibration.calibrator import Calibrator, StyleSample
from skinclip.calibration.outputs import DERMOSCOPY, LabelledOutputs
from skinclip.calibration.prevalence import GENERAL_PRACTICE
from skinclip.core.assessment import Assessment, ModelInfo, SkinTone
from skinclip.core.strict_yaml import ConfigError
from skinclip.core.vocabulary import CRITERION_CODES, DIAGNOSIS_CODES
from skinclip.imaging.examples import draw
from skinclip.imaging.photo import from_array
from skinclip.imaging.transform import PhotoTransform
from skinclip.pipeline.assessor import Assessor
from skinclip.reporting import phrasing

C = len(DIAGNOSIS_CODES)


@pytest.fixture(scope="module")
def assessor(tiny_model) -> Assessor:
    rng = np.random.default_rng(0)
    labels = np.arange(200) % C
    photos = LabelledOutputs.of_diagnoses(rng.normal(size=(200, C)) + 2 * np.eye(C)[labels], labels)
    style = rng.normal(size=(50, sum(tiny_model.perception.level_widths)))
    trust = Calibrator.fit(photos, {DERMOSCOPY: StyleSample(style, style)}, np.full(C, 1 / C), np.zeros(C))
    usual = replace(trust.shift, calibration_distances=np.array([np.inf], np.float32))
    trust = replace(trust, by_kind={DERMOSCOPY: replace(trust.first, shift=usual, ita_range=(-90.0, -80.0))})
    transform, never = PhotoTransform(tiny_model.config.perception.image_size), dict.fromkeys(CRITERION_CODES, 2.0)
    return Assessor(tiny_model, transform, trust, never, ModelInfo("mini", "test", "ab" * 32))


@pytest.fixture(scope="module")
def photo():
    return from_array(draw("nevus", 3))


def test_an_assessment_says_at_which_prevalence_it_is(assessor, photo):
    usual, there = assessor.assess(photo), assessor.assess(photo, prevalence="general-practice")
    assert usual.prevalence.name == "training photos" and there.prevalence.name == "general-practice"
    assert there.prevalence.shares["mel"] == pytest.approx(GENERAL_PRACTICE.vector()[DIAGNOSIS_CODES.index("mel")])
    assert Assessment.from_json(there.to_json()) == there
    p = {d.code: d.probability for d in usual.diagnosis}
    weighed = {code: p[code] * there.prevalence.shares[code] / usual.prevalence.shares[code] for code in p}
    for d in there.diagnosis:
        assert d.probability == pytest.approx(weighed[d.code] / sum(weighed.values()), rel=1e-9)
    assert there.malignancy.threshold != usual.malignancy.threshold
    assert assessor.assess(photo) == usual  # nothing of it stays


def test_everything_inside_the_block_is_at_that_prevalence(assessor, photo):
    with assessor.at_prevalence(GENERAL_PRACTICE):
        inside = assessor.predict([photo], [assessor.assess(photo).context])[0]
        assert assessor.calibrator.prevalence == "general-practice"
    outside = assessor.predict([photo], [assessor.assess(photo).context])[0]
    assert inside.balanced == pytest.approx(outside.balanced)
    assert not np.allclose(inside.probabilities, outside.probabilities)


def test_an_error_inside_the_block_leaves_the_prevalence_as_it_was(assessor):
    with pytest.raises(RuntimeError), assessor.at_prevalence("milk10k"):
        raise RuntimeError
    assert assessor.calibrator.prevalence == "training photos"
    with pytest.raises(ConfigError, match="neither a prevalence"):
        assessor.assess(from_array(draw("nevus", 3)), prevalence="somewhere")


def test_an_old_checkpoint_says_that_it_has_only_its_own(assessor, photo):
    known = assessor.predictor
    assessor.predictor = replace(known, calibrator=replace(known.calibrator, photos=None))
    try:
        with pytest.raises(ValueError, match="fit its calibration again"):
            assessor.assess(photo, prevalence="milk10k")
        assert assessor.assess(photo).prevalence.name == "training photos"
    finally:
        assessor.predictor = known


def test_skin_outside_the_range_is_said_and_read_back(assessor, photo):
    a = assessor.assess(photo)
    assert a.skin_tone is not None and a.skin_tone.ita is not None and a.skin_tone.in_range is False
    (caution,) = phrasing.skin_tone(a)
    assert f"ITA {a.skin_tone.ita:.0f}" in caution and caution in phrasing.cautions(a)
    assert phrasing.skin_tone(replace(a, skin_tone=SkinTone(20.0, True))) == []
    assert phrasing.skin_tone(replace(a, skin_tone=SkinTone(None, None))) == []
    assert phrasing.skin_tone(replace(a, skin_tone=None)) == []
    assert assessor.predict([photo], [a.context])[0].ita == a.skin_tone.ita


def test_a_photo_with_too_little_evidence_for_its_kind_is_not_answered(assessor, photo):
    known = assessor.predictor
    strict = replace(known.calibrator.first, min_confidence=1.1)
    assessor.predictor = replace(known, calibrator=replace(known.calibrator, by_kind={DERMOSCOPY: strict}))
    try:
        a = assessor.assess(photo)
        assert a.abstained and not a.rationale and a.shift.in_domain
        assert any("too weak" in line for line in phrasing.cautions(a))
    finally:
        assessor.predictor = known
    assert not assessor.assess(photo).abstained or not assessor.assess(photo).photo.quality.usable
