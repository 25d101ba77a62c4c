from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from skinclip.assess import Assessor
from skinclip.assessment import Context
from skinclip.clinical import DIAGNOSES, EVIDENCE_STATES, STATE_BY_KEY
from skinclip.examples import draw
from skinclip.explain.methods import GRID, METHODS, Subject, cited_regions, joined, on_grid, on_photo
from skinclip.images import from_array

EVIDENCE_KEYS = {state.key for state in EVIDENCE_STATES}


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject.of(Assessor.load("mini"), from_array(draw("melanoma", 7, (400, 300))), Context(60, "male", "back"))


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
    other = dataclasses.replace(subject, target=(subject.target + 1) % 7)
    for method in METHODS.values():
        same = np.array_equal(method.maps(subject)[0].heat, method.maps(other)[0].heat)
        assert same != method.knows, method.key


def test_evidence_has_a_part_for_each_cited_criterion(subject: Subject) -> None:
    parts = METHODS["evidence"].maps(subject)[1:]
    cited = [STATE_BY_KEY[f"{f.criterion}:{f.state}"].phrase for f in subject.findings]
    assert [p.label for p in parts] == cited[: len(parts)]


def test_the_whole_of_the_evidence_lies_in_the_lesion(subject: Subject) -> None:
    whole = METHODS["evidence"].maps(subject)[0].heat
    assert whole.shape == (GRID, GRID) and not whole[~subject.lesion].any() and whole[subject.lesion].min() == 0


def test_the_cited_region_is_what_a_reader_sees_and_no_more_than_its_share(subject: Subject) -> None:
    regions = cited_regions(subject)
    whole = joined(regions, subject.lesion)
    assert regions and not any((region & ~subject.lesion).any() for region in regions)
    assert np.count_nonzero(whole) <= 0.42 * np.count_nonzero(subject.lesion)  # a region's own share, and its rim
    subject.__dict__["findings"] = [f for f in subject.findings if f"{f.criterion}:{f.state}" not in EVIDENCE_KEYS]
    try:
        assert cited_regions(subject) == []  # what was measured has the lesion as its region
    finally:
        del subject.__dict__["findings"]


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
    outside[window.y : window.y + window.side, window.x : window.x + window.side] = False
    assert not heat[outside].any()
    assert not on_photo(np.zeros((4, 4), np.float32), subject).any()
