"""One step of stage 2: what it computes, and that cutting the batch up does not change it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from skinclip.core.config import ModelConfig, Stage0Config, Stage2Config, TrainConfig
from skinclip.model.skinclip_vl import SkinClipVL, new_model
from skinclip.training.answering import teacher_forced_scores
from skinclip.training.checkpoints import seed_everything
from skinclip.training.joint import Stage2
from skinclip.training.losses import CFAInputs
from skinclip.training.photo_sets import PhotoSet
from skinclip.training.run import gather_calibrated, training_photos
from tests.training.tiny_train import without_dropout

RECIPE = TrainConfig(
    photo_size=72,
    stage0=Stage0Config(held_out=0.6),
    stage2=Stage2Config(batch_size=8, second_views=4, rationale_targets=3, paraphrases=8),
)
B, SECOND, RATIONALES, ALL = 8, 4, 3, 12


@pytest.fixture(scope="module")
def photos(made_up: Path, tmp_path_factory: pytest.TempPathFactory) -> PhotoSet:
    cache = tmp_path_factory.mktemp("cache")
    return training_photos(RECIPE, gather_calibrated(made_up, cache)["train"], cache)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory, tiny_config: ModelConfig, photos: PhotoSet) -> Callable[..., Stage2]:
    """A stage with the same weights and at the same place of all random generators each time."""
    folder: Path = tmp_path_factory.mktemp("made")
    new_model(tiny_config, folder)  # writes the language model, which draws random numbers

    def made(config: ModelConfig, **changes: int) -> Stage2:
        torch.manual_seed(1)
        model = new_model(config, folder).train()
        for name, parameter in model.reasoner.language_model.named_parameters():
            if "lora_B" in name:  # LoRA starts as the identity; its gradients should not be zero
                torch.nn.init.normal_(parameter, std=0.05)
        model.evidence.mask_head.requires_grad_(False).eval()
        recipe = dataclasses.replace(RECIPE, stage2=dataclasses.replace(RECIPE.stage2, **changes))
        return Stage2(model, recipe, photos, seed_everything(3))

    return made


def gradients(model: SkinClipVL) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def by_hand(stage: Stage2) -> dict[str, torch.Tensor]:
    """A step as one would write it down, one graph for the whole batch, on what the stage draws and tells."""
    model, train = stage.model, stage.train
    drawn, rows = stage.draw(), torch.arange(ALL)
    photo = drawn.views.photo
    views = stage.views.pixels(drawn.views, rows)
    seen = model.perceive(views[:, :3])
    evidence = model.find_evidence(seen)
    forced = dataclasses.replace(
        evidence, scores=teacher_forced_scores(evidence.scores, train.criteria[photo], drawn.forced)
    )
    rationale_targets = stage.with_targets(drawn, [stage.assemble(drawn, rows)])[0].rationale_targets
    write, with_text, without_text = model.reasoner.writer.write, rows[:RATIONALES], rows[RATIONALES:]
    quiet = model.reason(
        write(drawn.contexts[RATIONALES:]),
        seen.pick(without_text),
        forced.pick(without_text),
        drawn.show[without_text],
        drawn.descriptions,
    )
    loud = model.reason(
        write(drawn.contexts[:RATIONALES], rationale_targets),
        seen.pick(with_text),
        forced.pick(with_text),
        drawn.show[with_text],
        drawn.descriptions,
    )
    logits = torch.cat([loud.logits, quiet.logits])
    assert loud.spelled is not None
    first = slice(0, B)
    known = F.adaptive_avg_pool2d(views[first, 3:], seen.grid)[:, 0]
    has_mask = train.has_mask[photo[first]]
    losses = stage.loss(
        CFAInputs(
            logits=logits[first],
            target=train.diagnosis[photo[first]],
            logits_second_view=torch.cat([logits[B:], logits[: B - SECOND].detach()]),
            has_second_view=torch.arange(B) < SECOND,
            spelled_logits=torch.cat([loud.spelled, torch.zeros(B - RATIONALES, logits.shape[1])]),
            has_spelled=torch.arange(B) < RATIONALES,
            embeddings=evidence.pooled[first],
            descriptions=model.description_bank,
            criterion_scores=evidence.scores[first],
            criterion_labels=train.criteria[photo[first]],
            maps=evidence.maps[first].sigmoid(),
            lesion=torch.where(has_mask.view(-1, 1, 1), known, evidence.lesion[first].detach()),
            has_mask=has_mask,
            language_loss=loud.language_loss,
            confidence_mask=train.unseen[photo[first]],
        )
    )
    losses["total"].backward()
    return losses


def test_a_step_is_cfa_on_the_whole_batch_to_the_last_bit(make, tiny_config: ModelConfig) -> None:
    config = without_dropout(tiny_config)
    step, plain = make(config), make(config)
    for _ in range(2):  # the second finds the first in the calibration queue
        losses, expected = step.step(), by_hand(plain)
        assert losses.keys() == expected.keys() and losses["language"] > 0 and losses["calibration"] > 0
        assert {n: v.item() for n, v in losses.items()} == {n: v.item() for n, v in expected.items()}
    ours, theirs = gradients(step.model), gradients(plain.model)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_portions_change_neither_loss_nor_gradient(make, tiny_config: ModelConfig, size: int) -> None:
    config = without_dropout(tiny_config)
    whole, cut = make(config), make(config, micro_batch=size)
    assert sorted(torch.cat(cut.micro_batches()).tolist()) == list(range(ALL))
    for _ in range(2):
        losses, expected = cut.step(), whole.step()
        for name, value in expected.items():
            torch.testing.assert_close(losses[name], value, atol=2e-6, rtol=1e-5, msg=name)
    ours, theirs = gradients(cut.model), gradients(whole.model)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=2e-5, rtol=1e-3, msg=name)


def test_a_portion_goes_back_through_the_dropout_that_it_was_measured_with(make, tiny_config: ModelConfig) -> None:
    stage = make(tiny_config, micro_batch=4)
    given: list[torch.Tensor] = []
    answer = stage.forward_pass.answer

    def spy(part):  # type: ignore[no-untyped-def]
        answers = answer(part)
        given.append(answers["logits"].detach())
        return answers

    stage.forward_pass.answer = spy
    stage.step()
    n = len(stage.micro_batches())
    assert n == 4 and len(given) == 2 * n
    assert all(torch.equal(a, b) for a, b in zip(given[:n], given[n:], strict=True))
    before = [g.clone() for g in given[:n]]
    stage.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, given[2 * n : 3 * n], strict=True))


def test_a_part_of_cfa_without_weight_still_lets_every_process_go_back(make, tiny_config: ModelConfig) -> None:
    stage = make(without_dropout(tiny_config), micro_batch=4)
    stage.loss.weights["alignment"] = 0.0
    losses = stage.step()
    assert "contrast" not in losses
    found = gradients(stage.model)
    assert not found["evidence.to_pooled.weight"].any() and found["evidence.to_text.weight"].any()


def test_memory_saved_costs_nothing_but_time(make, tiny_config: ModelConfig) -> None:
    config = without_dropout(tiny_config)
    plain, sparing = make(config), make(config)
    sparing.model.reasoner.save_memory(None)
    layers, kept = sparing.model.reasoner.base.model.language_model.layers, []
    layers[0].mlp.register_forward_pre_hook(lambda *_: kept.append(1))
    losses, expected = sparing.step(), plain.step()
    assert len(kept) == 4  # two passes, each computed again on the way back
    assert all(torch.equal(losses[name], expected[name]) for name in losses)
    ours, theirs = gradients(sparing.model), gradients(plain.model)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-6, rtol=1e-5, msg=name)


def test_language_layers_alone_compute_in_half_precision(make, tiny_config: ModelConfig) -> None:
    """As on a GPU; here on a CPU, whose language model is stored in fp32 and computes in bfloat16."""
    config = without_dropout(tiny_config)
    plain, half = make(config), make(config)
    half.model.reasoner.save_memory(torch.bfloat16)
    types: dict[str, torch.dtype] = {}
    lora = next(m for n, m in half.model.named_modules() if n.endswith("q_proj.lora_A.default"))
    lora.register_forward_hook(lambda m, a, out: types.update(lora=out.dtype))
    half.model.reasoner.to_diagnosis.register_forward_hook(lambda m, a, out: types.update(head=out.dtype))
    half.model.evidence.to_text.register_forward_hook(lambda m, a, out: types.update(evidence=out.dtype))
    losses, expected = half.step(), plain.step()
    assert types == {"lora": torch.bfloat16, "head": torch.float32, "evidence": torch.float32}
    assert {p.dtype for p in half.trained()} == {torch.float32}
    assert torch.equal(losses["alignment"], expected["alignment"])  # nothing before the language model changes
    torch.testing.assert_close(losses["total"], expected["total"], atol=0.05, rtol=0.01)
    assert all(g.isfinite().all() for g in gradients(half.model).values())
