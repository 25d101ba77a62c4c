from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest

from skinclip.core.assessment import Context
from skinclip.core.vocabulary import DIAGNOSES, EVIDENCE_STATES, STATE_BY_KEY
from skinclip.explain.cited import cited_regions, joined
from skinclip.explain.faithfulness import without
from skinclip.explain.methods import METHODS
from skinclip.explain.subject import GRID, Subject, on_grid, on_photo
from skinclip.imaging.examples import draw
from skinclip.imaging.photo import from_array
from skinclip.pipeline.assessor import Assessor

EVIDENCE_KEYS = {state.key for state in EVIDENCE_STATES}


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Assessor.load("mini").subject(from_array(draw("melanoma", 7, (400, 300))), Context(60, "male", "back"))


@pytest.mark.parametrize("key", METHODS)
def test_every_method_gives_a_finite_map_of_the_window_and_the_same_twice(subject: Subject, key: str) -> None:
    first, again = METHODS[key].maps(subject), METHODS[key].maps(subject)
    assert first[0].label == DIAGNOSES[subject.target].name
    for a, b in zip(first, again, strict=True):
        assert a.heat.ndim == 2 and np.isfinite(a.heat).all() and a.heat.max() > a.heat.min()
        np.testing.assert_array_equal(a.heat, b.heat)
    fine = on_grid(first[0].heat)
    assert fine.shape == (GRID, GRID) and fine.min() == 0 and fine.max() == 1


def test_controls_know_nothing_of_the_diagnosis(subject: Subject) -> None:
    other = replace(subject, target=(subject.target + 1) % 7)
    for method in METHODS.values():
        same = np.array_equal(method.maps(subject)[0].heat, method.maps(other)[0].heat)
        assert same != method.uses_model, method.key


def test_evidence_has_a_part_for_each_cited_criterion(subject: Subject) -> None:
    parts = METHODS["evidence"].maps(subject)[1:]
    cited = [STATE_BY_KEY[f.key].phrase for f in subject.findings]
    assert [p.label for p in parts] == cited[: len(parts)]


def test_the_whole_of_the_evidence_lies_in_the_lesion(subject: Subject) -> None:
    whole = METHODS["evidence"].maps(subject)[0].heat
    assert whole.shape == (GRID, GRID) and not whole[~subject.lesion].any() and whole[subject.lesion].min() == 0


def test_the_cited_region_is_what_a_reader_sees_and_no_more_than_its_share(subject: Subject) -> None:
    regions = cited_regions(subject)
    whole = joined(list(regions.values()), subject.lesion)
    assert regions and not any((region & ~subject.lesion).any() for region in regions.values())
    assert np.count_nonzero(whole) <= 0.42 * np.count_nonzero(subject.lesion)  # a region's own share, and its rim
    measured = dataclasses.replace(subject, findings=[f for f in subject.findings if f.key not in EVIDENCE_KEYS])
    assert cited_regions(measured) == {}  # what was measured has the lesion as its region


def test_regions_are_joined_as_far_as_they_fit() -> None:
    lesion = np.ones((10, 10), bool)
    rows = [np.zeros((10, 10), bool) for _ in range(3)]
    rows[0][:3], rows[1][3:6], rows[2][3:4] = True, True, True  # 30, 30 and 10 of 100 places
    assert np.array_equal(joined(rows, lesion), rows[0] | rows[2])


def test_on_photo_fills_the_window_alone(subject: Subject) -> None:
    heat = on_photo(np.array([[-1.0, 0.5], [0.5, 2.0]], np.float32), subject)
    window = subject.window
    assert heat.shape == (subject.image.height, subject.image.width)
    assert heat.min() == 0 and heat.max() <= 1
    outside = np.ones(heat.shape, bool)
    window.crop(outside)[:] = False
    assert not heat[outside].any()
    assert not on_photo(np.zeros((4, 4), np.float32), subject).any()


def test_a_map_ends_softly_inside_a_photo_and_not_at_its_rim(subject: Subject) -> None:
    heat, window = on_photo(np.ones((4, 4), np.float32), subject), subject.window
    assert window.x > 0 and window.x + window.side < subject.image.width and window.side == subject.image.height
    inside = heat[:, window.x : window.x + window.side]
    assert inside[:, 0].max() < 0.05 and inside[:, -1].max() < 0.05  # the window's own edges, in the photo
    assert inside[[0, -1], 40:-40].min() > 0.999  # those that are the photo's as well
    assert np.all(np.diff(inside[0, :40]) > -1e-6)


def test_an_assessment_measures_the_effect_of_each_region(subject: Subject) -> None:
    """The effect of a region is that of blurring it in the photo the model reads."""
    assessment = Assessor.load("mini").assess(subject.image, subject.context)
    effects = {f.ref: f.effect for f in assessment.findings if f.effect is not None}
    regions = cited_regions(subject)
    assert set(effects) == set(regions)
    ref, region = next(iter(regions.items()))
    nothing, rest = np.zeros_like(region), subject.lesion & ~region
    p = subject.answer(without(subject.photo, np.stack([nothing, region, subject.lesion, rest]))).astype(np.float64)
    odds = np.log(p / (1 - p))
    assert effects[ref] == pytest.approx((odds[0] - odds[1]) + (odds[3] - odds[2]), abs=1e-3)


def test_every_method_explains_a_big_preset(big_assessor) -> None:
    """Its tower is a vision transformer, and Qwen's own reads the photo beside it."""
    photo = from_array(draw("melanoma", 7))
    subject = big_assessor.subject(photo)
    for key, method in METHODS.items():
        heat = on_photo(method.maps(subject)[0].heat, subject)
        assert heat.shape == (photo.height, photo.width) and np.isfinite(heat).all(), key
    assert on_photo(METHODS["grad_cam"].maps(subject)[0].heat, subject).max() > 0.5
