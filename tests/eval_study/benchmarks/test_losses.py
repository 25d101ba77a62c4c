"""The loss ablation on made-up photos: arithmetic by hand, and that a run is kept and reported."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval_study.benchmarks import heads, losses
from eval_study.benchmarks.common import Bench
from eval_study.benchmarks.features import AssessedPhotos, Features, augmented, features_of
from skinclip.core.config import LossConfig, Stage2Config, TrainConfig
from skinclip.core.vocabulary import CRITERIA, DIAGNOSIS_CODES
from skinclip.data.cases import Case, DataError
from skinclip.imaging.photo import load_photo
from skinclip.imaging.transform import PhotoTransform
from skinclip.model.inference import forward_batch
from skinclip.reporting.markdown import section_markdown
from skinclip.training.answering import evidence_of
from skinclip.training.joint import Stage2
from skinclip.training.losses import CFAInputs
from skinclip.training.photo_sets import PhotoSet

COUNTS = [4000, 800, 800, 400, 200, 100, 80, 60, 50]


def photo_set(folder: Path, n: int, split: str = "train", side: int = 64) -> PhotoSet:
    cases = [
        Case(folder / f"{split}{i}.png", f"{split}{i}", "ham10000", f"L{split}{i}", DIAGNOSIS_CODES[i % 7], split=split)
        for i in range(n)
    ]
    g = torch.Generator().manual_seed(n)
    photos = torch.randint(0, 255, (n, 3, side, side), dtype=torch.uint8, generator=g)
    for case, pixels in zip(cases, photos, strict=True):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(case.image)
    masks = torch.zeros(n, side, side, dtype=torch.uint8)
    masks[:, 16:48, 16:48] = 1
    masks[0] = 255  # a photo without a mask
    criteria = torch.full((n, len(CRITERIA)), -1)
    criteria[: n // 2] = 0
    return PhotoSet(cases, photos, masks, torch.arange(n) % 7, criteria, torch.arange(n) % 4 == 0)


@pytest.fixture(scope="module")
def sets(tiny_model, tmp_path_factory) -> dict[str, Features]:
    folder = tmp_path_factory.mktemp("features")
    made = {"train": augmented(tiny_model, photo_set(folder, 28), TrainConfig(), folder)}
    for split in ("calib", "valid"):
        made[split] = features_of(tiny_model, AssessedPhotos(photo_set(folder, 14, split)), folder)
    return made


def test_ldam_lowers_the_true_logit_by_its_margin() -> None:
    loss = losses.LDAM([16, 1], largest=0.5, scale=10.0)
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [9.0, 9.0]])
    # margins 5 * (1/16)^(1/4) = 2.5 and 5
    by_hand = (math.log(1 + math.exp(1.0 - (2.0 - 2.5))) + math.log(1 + math.exp(0.0 - (3.0 - 5)))) / 2
    assert loss(logits, torch.tensor([0, 1, -1]), 0.5).item() == pytest.approx(by_hand, rel=1e-5)
    weight = loss.late_weight
    late = (weight[0] * math.log(1 + math.exp(1.5)) + weight[1] * math.log(1 + math.exp(2.0))) / weight.sum()
    assert loss(logits, torch.tensor([0, 1, -1]), 0.9).item() == pytest.approx(late.item(), rel=1e-5)


def test_logit_adjustment_adds_the_log_prior() -> None:
    logits, target = torch.randn(5, 9), torch.tensor([0, 3, 6, -1, 2])
    prior = torch.tensor(COUNTS).double() / sum(COUNTS)
    p = (logits.double().exp() * prior) / (logits.double().exp() * prior).sum(1, keepdim=True)
    by_hand = -sum(p[i, t].log() for i, t in enumerate(target.tolist()) if t >= 0) / 4
    value = losses.losses(COUNTS, TrainConfig())["logit_adjustment"].of(CFAInputs(logits, target), 0.0)
    assert value.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_every_named_loss_is_defined_and_less_means_less(sets, tiny_model) -> None:
    by_name = losses.losses(COUNTS, TrainConfig())
    assert set(by_name) == set(losses.TITLES)
    cfg, train = Stage2Config(batch_size=12, second_views=12, rationale_targets=0), sets["train"]
    recipe, views = TrainConfig(stage2=cfg), (train.views, train.store)
    stage = Stage2(tiny_model, recipe, train.photos, torch.Generator().manual_seed(0), views=views)
    drawn = stage.draw()
    x = stage.cfa_inputs(drawn, heads.WithoutLanguage(tiny_model)(stage.assemble(drawn, torch.arange(24))))
    whole = by_name["cfa"].of(x, 0.0)
    for name in ("cfa_less_alignment", "cfa_less_calibration", "cfa_less_consistency"):
        assert losses.losses(COUNTS, TrainConfig())[name].of(x, 0.0) < whole


def test_photos_to_measure_on_are_kept_as_an_assessment_looks_at_them(sets, tiny_model, tmp_path) -> None:
    train, valid = sets["train"].part("embedding"), sets["valid"]
    assert train.shape[:2] == (28, 2) and not torch.allclose(train[:, 0], train[:, 1])  # two augmentations
    images = [load_photo(c.image) for c in valid.photos.cases]
    output = forward_batch(
        tiny_model, PhotoTransform(tiny_model.config.photo_side), images, [c.context for c in valid.photos.cases]
    )
    assert tiny_model.config.perception.flips
    torch.testing.assert_close(valid.part("embedding")[:, 0], output.tokens.embedding, atol=1e-5, rtol=0)
    torch.testing.assert_close(valid.part("style")[:, 0], output.style, atol=1e-4, rtol=1e-4)
    index = torch.tensor([3, 1])
    read = valid.read(index, 0)
    found = evidence_of(tiny_model.evidence, read, tiny_model.state_embeddings)
    torch.testing.assert_close(found.scores, output.evidence.scores[index], atol=1e-2, rtol=1e-2)  # kept in half
    (tmp_path / "gone").mkdir()
    gone = photo_set(tmp_path / "gone", 2, "valid")
    gone.cases[1].image.write_bytes(b"no photo")
    with pytest.raises(DataError, match=r"cannot be read.*valid1\.png"):
        features_of(tiny_model, AssessedPhotos(gone), tmp_path)


def test_the_head_learns_and_hides_the_photo(sets, tiny_model) -> None:
    recipe = TrainConfig(stage2=Stage2Config(lr=5e-3))
    loss = losses.losses(COUNTS, TrainConfig())["cross_entropy"]
    train = sets["train"]
    # tokens that tell the class; random towers see noise alike
    same = with_parts(train, tokens=lambda tokens: codes(tokens, train.photos))
    trained = heads.train_head(tiny_model, same, recipe, loss, steps=60, batch_size=16, seed=0)
    logits, scores = heads.head_logits(trained.model, same)
    assert (logits.argmax(1) == train.photos.diagnosis.numpy()).mean() > 0.5
    assert scores.shape == (28, sum(len(c.states) for c in CRITERIA))
    mirrored = with_parts(same, embedding=lambda embedding: -embedding)
    blind, _ = heads.head_logits(trained.model, mirrored, True)
    assert np.allclose(blind, heads.head_logits(trained.model, same, True)[0])


def codes(tokens: torch.Tensor, photos: PhotoSet) -> torch.Tensor:
    """Tokens [n * V, N, D] that are the same everywhere in a photo, and in all photos of a diagnosis."""
    each = torch.randn(7, 1, tokens.shape[2], generator=torch.Generator().manual_seed(0))
    number = photos.diagnosis.repeat_interleave(len(tokens) // len(photos))
    return each[number].expand_as(tokens).to(tokens.dtype)


def with_parts(features: Features, **changed: Callable[[torch.Tensor], torch.Tensor]) -> Features:
    """The same features with some parts of what is kept changed, in memory alone."""
    store = copy.copy(features.store)
    store.parts = {k: changed[k](v) if k in changed else v for k, v in store.parts.items()}
    return dataclasses.replace(features, store=store)


def test_every_loss_knows_the_prior_that_it_trains_at() -> None:
    labels, drawn = torch.tensor([0, 0, 0, 5, -1]), torch.full((5,), 0.2)
    uniform = torch.full((9,), 1 / 9, dtype=torch.double)
    plain = losses.losses(COUNTS, TrainConfig())
    assert plain["cross_entropy"].prior(labels, drawn)[[0, 5]].tolist() == pytest.approx([0.75, 0.25], abs=1e-4)
    shares = torch.tensor([3.0 / 4000, 1.0 / 100])  # logit adjustment takes the shares of COUNTS out
    adjusted = plain["cfa"].prior(labels, drawn)[[0, 5]]
    assert (adjusted / adjusted.sum()).tolist() == pytest.approx((shares / shares.sum()).tolist(), rel=1e-3)
    sourced = losses.losses(COUNTS, TrainConfig(loss=LossConfig(by_source=True)))
    for name, loss in sourced.items():
        own_prior = name in ("cfa_weights", "cfa_unbalanced") or not name.startswith("cfa")
        assert loss.by_source != own_prior, name
        expected = plain[name].prior(labels, drawn) if own_prior else uniform
        assert torch.equal(loss.prior(labels, drawn), expected), name


def test_cfa_by_source_adjusts_each_photo_by_its_own_prior() -> None:
    """Without the class weights of all photos together, as stage 2 trains it."""
    config = LossConfig(by_source=True, w_align=0.0, w_cal=0.0, w_con=0.0)
    loss = losses.losses(COUNTS, TrainConfig(loss=config))["cfa"]
    logits, target = torch.randn(4, 9), torch.tensor([0, 3, 6, 2])
    log_prior = torch.randn(4, 9).log_softmax(1)
    x = CFAInputs(logits, target, log_prior=log_prior)
    by_hand = torch.nn.functional.cross_entropy(logits + log_prior, target)
    assert loss.of(x, 0.0).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_run_is_kept_and_reported(sets, tiny_model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(losses, "STEPS", 2)
    monkeypatch.setattr(losses, "BATCH_SIZE", 8)
    monkeypatch.setattr(losses, "feature_sets", lambda *_: sets)
    monkeypatch.setattr(losses, "HEAD_FROM", 5)
    bench = Bench(tmp_path, tmp_path / "out", tmp_path / "work", n_boot=20, command="a command")
    bench.__dict__["assessor"] = type("A", (), {"model": tiny_model})()
    bench.__dict__["sha"] = "ab" * 32
    bench.__dict__["recipe"] = TrainConfig()
    result = losses.run(bench, ("valid",), (0, 1))
    row = result["valid"]["losses"]["focal"]["balanced_accuracy"]
    assert len(row["seeds"]) == 2 and row["value"] == pytest.approx(np.mean(row["seeds"]), abs=1e-6)
    gap = row["cfa_less_this"]["value"]
    assert gap == pytest.approx(result["valid"]["losses"]["cfa"]["balanced_accuracy"]["value"] - row["value"], abs=1e-6)
    monkeypatch.setattr(losses, "train_head", lambda *_: pytest.fail("a kept run was trained again"))
    again = losses.run(bench, ("valid",), (0, 1))
    assert again["valid"] == result["valid"]
    bench.save("losses", result)
    text = section_markdown(losses.section(bench.kept("losses")))
    titles = {name: title for name, title in losses.TITLES.items() if name != "cfa_less_departure"}
    assert all(title in text for title in titles.values()) and losses.TITLES["cfa_less_departure"] not in text
    assert "(figures/losses.svg)" in text
