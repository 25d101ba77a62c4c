"""A model that knows a part of the vocabulary, and a checkpoint from before the rest of it was there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from skinclip.core.assessment import Context
from skinclip.core.known import FIRST_CRITERIA, FIRST_DIAGNOSES
from skinclip.core.vocabulary import CRITERIA, DIAGNOSIS_CODES, EVIDENCE_STATES
from skinclip.model.checkpoint import load_model, save_model
from skinclip.model.criteria import criterion_log_probs
from skinclip.model.errors import CheckpointError
from skinclip.model.evidence import symmetric_orthogonalize
from skinclip.model.finders import make_evidence_finder
from skinclip.model.skinclip_vl import STATE_AXES, SkinClipVL, new_model

FIRST = [DIAGNOSIS_CODES.index(code) for code in FIRST_DIAGNOSES]
STATES = [k for k, state in enumerate(EVIDENCE_STATES) if state.criterion in FIRST_CRITERIA]
LATER = [k for k in range(len(EVIDENCE_STATES)) if k not in STATES]


@pytest.fixture(scope="module")
def first_model(tmp_path_factory: pytest.TempPathFactory, tiny_config) -> SkinClipVL:
    """A model of the first seven diagnoses and criteria."""
    torch.manual_seed(3)
    config = replace(tiny_config, diagnoses=FIRST_DIAGNOSES, criteria=FIRST_CRITERIA)
    model = new_model(config, tmp_path_factory.mktemp("first"))
    with torch.no_grad():
        model.reasoner.checklist.weight.normal_(std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def old_checkpoint(tmp_path_factory: pytest.TempPathFactory, first_model: SkinClipVL) -> Path:
    """It as it was saved when there were twelve states: shorter tensors, and a config that names no vocabulary."""
    folder = tmp_path_factory.mktemp("old")
    save_model(first_model, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["diagnoses"], config["criteria"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    heads = load_file(folder / "heads.safetensors")
    for name, axis in STATE_AXES.items():
        heads[name] = heads[name].index_select(axis, torch.tensor(STATES)).contiguous()
    save_file(heads, folder / "heads.safetensors")
    return folder


def answers(model: SkinClipVL, photos: torch.Tensor):
    with torch.inference_mode():
        seen = model.perceive(photos)
        evidence = model.find_evidence(seen)
        prompts = model.reasoner.writer.write([Context(60, "male", "back"), Context()])
        return seen, evidence, model.reason(prompts, seen, evidence).logits


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    return torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def test_a_checkpoint_from_before_opens_and_answers_as_it_did(first_model, old_checkpoint, photos) -> None:
    again = load_model(old_checkpoint)
    assert again.config.diagnoses == FIRST_DIAGNOSES and again.config.criteria == FIRST_CRITERIA
    before, after = answers(first_model, photos), answers(again, photos)
    assert torch.equal(before[1].scores, after[1].scores) and torch.equal(before[2], after[2])


def test_its_evidence_is_that_of_a_finder_of_twelve_states(first_model, old_checkpoint, photos) -> None:
    """Put together here of the parts alone, with as many states as there were, in the directions they then had."""
    seen, evidence, _ = answers(load_model(old_checkpoint), photos)
    perception = first_model.perception
    finder = make_evidence_finder(first_model.config.evidence, perception, len(STATES)).eval()
    heads = load_file(old_checkpoint / "heads.safetensors")
    finder.load_state_dict({k.removeprefix("evidence."): v for k, v in heads.items() if k.startswith("evidence.")})
    with torch.inference_mode():
        words = perception.embed_texts([EVIDENCE_STATES[k].descriptions[0] for k in STATES])
        alone = finder.find(seen, symmetric_orthogonalize(words))
    torch.testing.assert_close(evidence.scores[:, STATES], alone.scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(evidence.maps[:, STATES], alone.maps, atol=1e-5, rtol=0)
    torch.testing.assert_close(evidence.features[:, STATES], alone.features, atol=1e-5, rtol=0)
    assert torch.equal(evidence.mask_logits, alone.mask_logits)


def test_the_prompt_has_one_token_for_each_state_that_is_known(first_model, tiny_model) -> None:
    assert first_model.reasoner.writer.n_evidence == 1 + 12
    assert tiny_model.reasoner.writer.n_evidence == 1 + len(EVIDENCE_STATES)


def test_nothing_unknown_is_ever_said(first_model, photos) -> None:
    _, evidence, logits = answers(first_model, photos)
    later = [c for c in range(len(DIAGNOSIS_CODES)) if c not in FIRST]
    assert torch.isinf(logits[:, later]).all() and torch.isfinite(logits[:, FIRST]).all()
    assert (logits.double().softmax(-1)[:, later] == 0).all()
    for criterion, row in zip(CRITERIA, criterion_log_probs(evidence.scores), strict=True):
        if criterion.code not in FIRST_CRITERIA:
            assert (row[:, 1:].exp() < 1e-6).all()


def test_what_is_not_known_changes_no_answer(first_model, photos) -> None:
    """Features of the later states, whatever they are, are read by nothing."""
    seen, evidence, logits = answers(first_model, photos)
    features = evidence.features.clone()
    features[:, LATER] = 9.0
    prompts = first_model.reasoner.writer.write([Context(60, "male", "back"), Context()])
    with torch.inference_mode():
        forced = first_model.reason(prompts, seen, replace(evidence, features=features)).logits
    assert torch.equal(forced, logits)


def test_training_sees_finite_logits(first_model, photos) -> None:
    prompts = first_model.reasoner.writer.write([Context(), Context()])
    first_model.train()
    try:
        seen = first_model.perceive(photos)
        logits = first_model.reason(prompts, seen, first_model.find_evidence(seen)).logits
    finally:
        first_model.eval()
    assert torch.isfinite(logits).all() and (logits[:, 7:] < -1000).all()


def test_heads_of_another_shape_are_refused_by_name(first_model, tiny_model) -> None:
    heads = first_model.heads() | {"evidence.bias": torch.zeros(5)}
    with pytest.raises(CheckpointError, match=r"evidence.bias is \[5\], expected \[14\].*config.yaml"):
        first_model.load_heads(heads)
    own, twelve = tiny_model.heads(), torch.tensor(STATES)
    old = {name: own[name].index_select(axis, twelve) for name, axis in STATE_AXES.items()}
    with pytest.raises(CheckpointError, match=r"\[12\], expected \[14\]"):  # it says that it knows all of them
        tiny_model.load_heads(own | old)
