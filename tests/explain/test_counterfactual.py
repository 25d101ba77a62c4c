from __future__ import annotations

import numpy as np
import pytest
import torch

from skinclip.calibration.calibrated_model import CalibratedOutput
from skinclip.core.assessment import Context, Region
from skinclip.core.vocabulary import CRITERIA, DIAGNOSIS_CODES, EVIDENCE_STATES
from skinclip.explain.counterfactual import edited_scores, region_mask, what_if, without_region
from skinclip.imaging.examples import draw
from skinclip.imaging.photo import LesionImage, from_array
from skinclip.model.evidence import CLEAR
from skinclip.pipeline.assessor import Assessor

MEL = DIAGNOSIS_CODES.index("mel")
KEYS = [state.key for state in EVIDENCE_STATES]


@pytest.fixture(scope="module")
def assessor() -> Assessor:
    return Assessor.load("mini")


@pytest.fixture(scope="module")
def image() -> LesionImage:
    return from_array(draw("nevus", 3, (400, 300)))


@pytest.fixture(scope="module")
def seen(assessor, image) -> CalibratedOutput:
    return assessor.forward([image], [Context()])


def square(x0: float, y0: float, x1: float, y1: float) -> Region:
    return Region((x0, y0, x1, y1), (((x0, y0), (x1, y0), (x1, y1), (x0, y1)),))


def test_a_region_is_found_again_in_the_window() -> None:
    mask = region_mask(square(60, 30, 80, 50), side=50, offset=(50, 20), scale=0.5)
    assert mask[5:15, 5:15].all() and not mask[:4].any() and not mask[16:].any() and not mask[:, :4].any()
    assert 100 <= mask.sum() <= 144  # OpenCV fills the rim too
    assert not region_mask(Region((0, 0, 0, 0), ()), 50, (0, 0), 1.0).any()


def test_without_a_region_the_rest_of_the_photo_stays(assessor, image, seen) -> None:
    window = seen.windows[0]
    inside = square(window.x + 100, window.y + 100, window.x + 160, window.y + 160)
    without = without_region(assessor.predictor, image, Context(), seen, inside)
    cut = window.crop(image.pixels)
    changed = (without.pixels != cut).any(2)
    mask = region_mask(inside, window.side, (window.x, window.y), 1.0)
    assert changed[mask].mean() > 0.5 and not changed[~mask].any()
    left = without.calibrated.probabilities[0]
    assert left.sum() == pytest.approx(1) and left.shape == (len(DIAGNOSIS_CODES),)


def test_without_nothing_the_answer_is_the_same(assessor, image, seen) -> None:
    without = without_region(assessor.predictor, image, Context(), seen, Region((0, 0, 0, 0), ()))
    np.testing.assert_allclose(without.calibrated.probabilities[0], seen.calibrated.probabilities[0], atol=1e-5)


def test_edits_set_a_criterion_and_leave_the_others() -> None:
    scores = torch.zeros(1, len(KEYS))
    edited = edited_scores(scores, {"pigment_network": "atypical", "blue_whitish_veil": "absent"})
    expected = dict.fromkeys(KEYS, 0.0) | {
        "pigment_network:typical": -CLEAR,
        "pigment_network:atypical": CLEAR,
        "blue_whitish_veil:present": -CLEAR,
    }
    assert edited[0].tolist() == list(expected.values()) and not scores.any()
    with pytest.raises(ValueError, match="no criterion 'colour'"):
        edited_scores(scores, {"colour": "absent"})
    with pytest.raises(ValueError, match="streaks has no state 'present'; it has absent, regular, irregular"):
        edited_scores(scores, {"streaks": "present"})


def test_no_edit_no_change_and_melanoma_criteria_raise_melanoma(assessor, seen) -> None:
    plain = what_if(assessor.predictor, seen, Context(), {})
    np.testing.assert_allclose(plain.probabilities, seen.calibrated.probabilities, atol=1e-9)
    for edits in ({"pigment_network": "atypical"}, {"blue_whitish_veil": "present"}):
        absent = what_if(assessor.predictor, seen, Context(), dict.fromkeys(edits, "absent"))
        edited = what_if(assessor.predictor, seen, Context(), edits)
        assert edited.probabilities[0, MEL] > absent.probabilities[0, MEL]
    known = assessor.config.known.known_criteria
    worst = {c.code: c.labels[-1] for c in known}  # the last state of each is the irregular one
    assert what_if(assessor.predictor, seen, Context(), worst).probabilities[0, MEL] > plain.probabilities[0, MEL]


def test_a_criterion_that_the_model_does_not_know_cannot_be_edited(assessor, seen) -> None:
    for code in [c.code for c in CRITERIA if c.code not in assessor.config.criteria]:
        with pytest.raises(ValueError, match=f"the model has no criterion '{code}'; it has pigment_network"):
            what_if(assessor.predictor, seen, Context(), {code: "present"})
