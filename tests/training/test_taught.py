"""Photo sets with labels of three strengths, and what a model trained on them knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from skinclip.core.config import ModelConfig
from skinclip.core.known import FIRST_CRITERIA, FIRST_DIAGNOSES
from skinclip.core.vocabulary import CRITERION_CODES, DIAGNOSIS_CODES
from skinclip.data.cases import Case, CriteriaReading
from skinclip.training.losses import MISSING
from skinclip.training.photo_sets import PhotoSet, criterion_labels, diagnosis_labels
from skinclip.training.sampling import favour_criteria
from skinclip.training.taught import taught

MARKED = CriteriaReading(frozenset(("TRBL",)), frozenset(("PRL",)))


def photo_set(*cases: Case) -> PhotoSet:
    n = len(cases)
    criteria = torch.tensor([criterion_labels(c) for c in cases])
    empty = torch.zeros(n, 3, 2, 2, dtype=torch.uint8)
    return PhotoSet(
        list(cases), empty, empty[:, 0], diagnosis_labels(cases), criteria, torch.zeros(n, dtype=torch.bool)
    )


def case(name: str, **labels) -> Case:
    return Case(Path(f"{name}.jpg"), name, "made", name, split="train", **labels)


DERM7PT = case("a", diagnosis="nv", criteria={"streaks": "irregular", "pigment_network": "absent"})
DRAWN = case("b", attribute_masks={"globules": Path("m.png"), "milia_like_cyst": None})
READ = case("c", diagnosis="mel", readings=(MARKED,))
PLAIN = case("d", diagnosis="scc")


def test_targets_hold_the_labels_of_every_strength() -> None:
    photos = photo_set(DERM7PT, DRAWN, READ, PLAIN)
    targets, q = photos.criterion_targets, {code: i for i, code in enumerate(CRITERION_CODES)}
    assert targets.weight[0].nonzero().flatten().tolist() == [q["pigment_network"], q["streaks"]]
    assert targets.possible[0, q["streaks"]].tolist() == [False, False, True]
    assert targets.possible[1, q["dots_and_globules"]].tolist() == [False, True, True]
    assert targets.weight[1, q["milia_like_cysts"]] == 0.5 and targets.possible[1, q["milia_like_cysts"], 0]
    assert targets.weight[2, q["streaks"]] == pytest.approx(0.3)
    assert targets.possible[2, q["streaks"]].tolist() == [True, True, False]
    assert not targets.weight[3].any()
    kept = photos.subset(torch.tensor([2, 3])).criterion_targets
    assert torch.equal(kept.weight, targets.weight[2:]) and torch.equal(kept.possible, targets.possible[2:])


def test_only_sure_labels_are_labels() -> None:
    labels = photo_set(DERM7PT, DRAWN, READ).criteria
    q = {code: i for i, code in enumerate(CRITERION_CODES)}
    assert labels[0, q["streaks"]] == 2 and labels[1, q["milia_like_cysts"]] == 0
    assert labels[1, q["dots_and_globules"]] == MISSING  # there, but of which type is not said
    assert (labels[2] == MISSING).all()


def test_a_photo_is_drawn_the_more_often_the_more_its_labels_say() -> None:
    known = photo_set(DERM7PT, READ, PLAIN, PLAIN).criterion_targets.weight
    drawn = favour_criteria(torch.full((4,), 0.25), known, 0.4)
    assert drawn.sum().item() == pytest.approx(1) and drawn[:2].sum().item() == pytest.approx(0.4)
    assert (drawn[0] / drawn[1]).item() == pytest.approx(2 / 1.3)
    kept_out = favour_criteria(torch.tensor([0.0, 0.0, 1.0, 3.0]), known, 0.4)  # no labelled photo is drawn at all
    assert kept_out.tolist() == [0, 0, 0.25, 0.75]


def test_a_model_knows_what_its_photos_teach(caplog: pytest.LogCaptureFixture) -> None:
    config = taught(ModelConfig(), photo_set(DERM7PT, READ))
    assert config.diagnoses == FIRST_DIAGNOSES and config.criteria == FIRST_CRITERIA
    assert "scc, other, negative_network, milia_like_cysts: the model will not know them" in caplog.text
    config = taught(ModelConfig(), photo_set(DERM7PT, DRAWN, PLAIN))
    assert config.diagnoses == (*FIRST_DIAGNOSES, "scc") and config.criteria == (*FIRST_CRITERIA, "milia_like_cysts")
    drawn = replace(DRAWN, attribute_masks={"negative_network": Path("n.png"), "milia_like_cyst": None})
    whole = taught(ModelConfig(), photo_set(PLAIN, drawn, case("e", diagnosis="other")))
    assert whole.diagnoses == DIAGNOSIS_CODES and whole.criteria == CRITERION_CODES
