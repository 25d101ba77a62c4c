"""A criterion explained by the methods that explain diagnoses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skinclip.explain.criterion import CriterionSubject, states_of
from skinclip.explain.methods import METHODS
from skinclip.explain.subject import Subject, on_grid
from skinclip.imaging.examples import draw
from skinclip.imaging.photo import from_array
from skinclip.model.criteria import criterion_probabilities
from skinclip.pipeline.assessor import Assessor


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Assessor.load("mini").subject(from_array(draw("melanoma", 3, (160, 160))))


def test_the_score_is_the_log_odds_of_what_an_assessment_says(subject: Subject) -> None:
    said = criterion_probabilities(subject.output.evidence.scores[0])
    for criterion in subject.predictor.model.known.known_criteria:
        score = CriterionSubject.of(subject, criterion.code).score
        assert 1 / (1 + np.exp(-score)) == pytest.approx(1 - said[criterion.code]["absent"], abs=1e-5)


def test_the_path_gives_the_score_of_one_view(subject: Subject) -> None:
    one = CriterionSubject.of(subject, "streaks")
    model = subject.predictor.model
    with torch.inference_mode():
        evidence = model.evidence.find(model.perceive(one.photo, own_too=False), model.state_embeddings)
        wanted = evidence.scores[:, states_of("streaks")].exp().sum(1).log()
    assert torch.allclose(one.path(one.photo)[:, 0], wanted, atol=1e-5)
    assert one.answer(one.photo) == pytest.approx(wanted.sigmoid().numpy(), abs=1e-5)


def test_ours_is_the_map_that_the_score_was_pooled_from(subject: Subject) -> None:
    one = CriterionSubject.of(subject, "pigment_network")
    maps = subject.output.evidence.maps[0, states_of("pigment_network")]
    heat = METHODS["evidence"].maps(one)[0].heat
    assert heat == pytest.approx(maps.exp().sum(0).log().numpy(), abs=1e-5)


@pytest.mark.parametrize("key", ["grad_cam", "layer_cam", "rise", "lesion_mask"])
def test_methods_explain_the_criterion_that_is_asked_for(subject: Subject, key: str) -> None:
    maps = [METHODS[key].maps(CriterionSubject.of(subject, c))[0] for c in ("streaks", "blue_whitish_veil")]
    assert [m.label for m in maps] == ["streaks", "blue-whitish veil"]
    same = np.allclose(*(on_grid(m.heat) for m in maps))
    assert same != METHODS[key].uses_model


def test_a_criterion_without_a_map_is_refused(subject: Subject) -> None:
    with pytest.raises(ValueError, match="no map of 'milia'"):
        CriterionSubject.of(subject, "milia")
