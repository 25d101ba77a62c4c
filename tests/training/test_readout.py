"""The linear readout that the answer starts from, and how it is fitted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from skinclip.core.assessment import Context
from skinclip.core.config import LossConfig, ModelConfig, Stage2Config, TrainConfig
from skinclip.core.known import KnownVocabulary
from skinclip.core.patient_context import CONTEXT_NUMBERS, context_numbers
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.data.cases import Case, DataError
from skinclip.model.criteria import STATE_COUNTS
from skinclip.model.perception import VisualTokens
from skinclip.model.reasoner import InputWidths, Readout
from skinclip.model.skinclip_vl import new_model
from skinclip.training.losses import MISSING, CFAInputs, CFALoss
from skinclip.training.losses.cfa import departure
from skinclip.training.photo_sets import PhotoSet
from skinclip.training.readout import fit_criteria_readout, fit_readout, learn_readout, pass_scores_on

E, S, VIEWS = 4, 6, 2
MEL, NV = DIAGNOSIS_CODES.index("mel"), DIAGNOSIS_CODES.index("nv")


def widths(known: KnownVocabulary | None = None) -> InputWidths:
    return InputWidths(8, E, 8, 14, S, known or KnownVocabulary())


def seen(embedding: torch.Tensor, style: torch.Tensor) -> VisualTokens:
    levels = [style[:, :, None, None]]
    return VisualTokens(torch.zeros(len(style), 1, 8), (1, 1), embedding, levels, None, style)


def labelled(diagnosis: torch.Tensor, ages: list[float | None], unseen: torch.Tensor) -> PhotoSet:
    cases = [
        Case(Path(f"{i}.png"), str(i), "made", str(i), context=Context(age=age), split="train")
        for i, age in enumerate(ages)
    ]
    nothing = torch.zeros(len(cases), 0, dtype=torch.uint8)
    return PhotoSet(cases, nothing, nothing, diagnosis, torch.zeros(len(cases), 9, dtype=torch.long), unseen)


def made_up(n: int = 200) -> tuple[PhotoSet, torch.Tensor, torch.Tensor]:
    """Photos whose diagnosis shows in one value of the style, on a scale far from 1; some have no label."""
    torch.manual_seed(5)
    diagnosis = torch.where(torch.arange(n) % 2 == 0, MEL, NV)
    style = torch.randn(n * VIEWS, S) * 30 + 100
    style[:, 2] += torch.where(diagnosis.repeat_interleave(VIEWS) == MEL, 90.0, -90.0)
    embedding = torch.nn.functional.normalize(torch.randn(n * VIEWS, E), dim=1)
    diagnosis[::10] = MISSING
    ages = [70.0 if d == MEL else 30.0 for d in diagnosis.tolist()]
    return labelled(diagnosis, ages, torch.zeros(n, dtype=torch.bool)), embedding, style


def test_it_reads_what_the_style_shows_and_nothing_of_photos_without_a_label() -> None:
    photos, embedding, style = made_up()
    readout = Readout(widths())
    fit_readout(readout, photos, embedding, style, Stage2Config(), by_source=True)
    none = torch.zeros(len(style), CONTEXT_NUMBERS)
    guess = readout(seen(embedding, style), none)[:, [MEL, NV]].argmax(1)
    truth = torch.where(torch.arange(len(photos)) % 2 == 0, 0, 1).repeat_interleave(VIEWS)
    assert (guess == truth).float().mean() > 0.98
    changed = dataclasses.replace(photos, diagnosis=photos.diagnosis.clone())
    style = style.clone()
    style[: 1 * VIEWS] += 1e4  # photo 0 has no label: whatever it looks like, nothing is learnt from it
    again = Readout(widths())
    fit_readout(again, changed, embedding, style, Stage2Config(), by_source=True)
    torch.testing.assert_close(again.photo.weight, readout.photo.weight)


def test_a_penalty_keeps_the_weights_small() -> None:
    photos, embedding, style = made_up()
    sizes = []
    for decay in (0.001, 1.0):
        readout = Readout(widths())
        fit_readout(readout, photos, embedding, style, Stage2Config(readout_decay=decay), by_source=False)
        sizes.append(readout.photo.weight[:, E:].norm())
    assert sizes[1] < 0.1 * sizes[0]


def test_context_is_learnt_from_lesions_that_the_tower_never_saw_alone() -> None:
    photos, embedding, _ = made_up()
    style = torch.zeros(len(embedding), S)  # the photo says nothing
    readout = Readout(widths())
    fit_readout(readout, photos, embedding, style, Stage2Config(), by_source=True)
    assert not readout.context.weight.any()
    photos.unseen[:] = True
    fit_readout(readout, photos, embedding, style, Stage2Config(), by_source=True)
    old, young, unknown = (
        readout(seen(embedding[:1], style[:1]), torch.tensor([context_numbers(Context(age=age))])).softmax(1)[0]
        for age in (70.0, 30.0, None)
    )
    assert old[MEL] > unknown[MEL] > young[MEL]


def test_criteria_are_read_of_style_and_scores_and_those_without_labels_are_passed_on() -> None:
    photos, _, style = made_up()
    first = torch.where(torch.arange(len(photos)) % 2 == 0, 1, 0)  # a state of the first criterion, or absent
    photos.criteria[:] = MISSING
    photos.criteria[:, 0] = first
    scores = torch.randn(len(style), 14)
    readout = Readout(widths())
    fit_criteria_readout(readout, photos, style, scores, Stage2Config())
    read = readout.criterion_scores(style, scores)
    states = STATE_COUNTS[0]
    absent = torch.zeros(len(read), 1)
    guess = torch.cat([absent, read[:, :states]], 1).argmax(1)
    assert (guess == first.repeat_interleave(VIEWS)).float().mean() > 0.9
    torch.testing.assert_close(read[:, states:], scores[:, states:])
    pass_scores_on(readout)
    torch.testing.assert_close(readout.criterion_scores(style, scores), scores)


def test_nothing_given_says_nothing() -> None:
    assert not any(context_numbers(Context()))
    assert context_numbers(Context(age=75))[:3] == [1.0, 0.5, 0.25]
    assert len(context_numbers(Context(40, "male", "back"))) == CONTEXT_NUMBERS
    assert sum(context_numbers(Context(None, "male", "back"))) == 2


def test_a_diagnosis_that_the_model_does_not_know_is_not_read() -> None:
    known = KnownVocabulary(diagnoses=("mel", "nv"))
    readout = Readout(widths(known))
    assert readout.photo.out_features == 2
    logits = readout(seen(torch.randn(1, E), torch.randn(1, S)), torch.zeros(1, CONTEXT_NUMBERS))
    assert set(logits.nonzero()[:, 1].tolist()) == {MEL, NV}


def test_without_kept_views_there_is_nothing_to_fit_it_on() -> None:
    photos, *_ = made_up(4)
    with pytest.raises(DataError, match="set cached_views in the recipe's stage2"):
        learn_readout(Readout(widths()), TrainConfig(), photos, None)


def test_the_answer_starts_from_it(tiny_config: ModelConfig, tmp_path: Path) -> None:
    reasoner = dataclasses.replace(tiny_config.reasoner, readout=True, language_share=0.0)
    model = new_model(dataclasses.replace(tiny_config, reasoner=reasoner), tmp_path).eval()
    torch.manual_seed(7)
    with torch.no_grad():
        visual = model.perceive(torch.rand(2, 3, 160, 160))
        evidence = model.find_evidence(visual)
        prompts = model.reasoner.writer.write([Context(70, "male", "back"), Context()])
        answer = model.reason(prompts, visual, evidence)
        torch.testing.assert_close(answer.logits, answer.read)  # the checklist is 0 before it is trained
        torch.testing.assert_close(answer.read, model.reasoner.readout(visual, prompts.patient))
        model.reasoner.checklist.weight[:, 3] = model.descriptions[MEL] - model.descriptions.mean(0)
        torch.testing.assert_close(model.reason(prompts, visual, evidence).logits, answer.logits)  # known already
        edited = evidence.scores.clone()
        edited[:, 3] = 3.0
        changed = evidence.with_scores(edited)
        assert changed.found is evidence.scores and changed.with_scores(edited).found is evidence.scores
        checked = model.reason(prompts, visual, changed).logits
        assert (checked[:, MEL] > answer.logits[:, MEL]).all()  # an edit counts in full
        hidden = model.reason(prompts, visual, changed, show_clip=torch.tensor([True, False]))
        torch.testing.assert_close(hidden.logits[0], checked[0])
        assert hidden.read is not None and not hidden.read[1].any()
        assert not torch.allclose(hidden.logits[1], checked[1])


def test_a_departure_from_it_is_charged() -> None:
    read = torch.zeros(3, len(DIAGNOSIS_CODES))
    logits = read.clone()
    logits[1] = 2.0
    logits[2] = 9.0
    counted = torch.tensor([True, True, False])
    assert departure(logits, read, counted).item() == pytest.approx(2.0)
    assert departure(logits, read).item() == pytest.approx((4 + 81) / 3)
    target = torch.tensor([MEL, NV, MISSING])
    loss = CFALoss(LossConfig(w_departure=0.5))
    parts = loss(CFAInputs(logits=logits, target=target, read=read, has_read=counted))
    without = CFALoss(LossConfig())(CFAInputs(logits=logits, target=target, read=read))
    assert "departure" not in without
    assert parts["total"].item() == pytest.approx(without["total"].item() + 0.5 * parts["departure"].item(), rel=1e-5)
