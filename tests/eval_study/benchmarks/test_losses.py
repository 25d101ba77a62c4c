"""The loss ablation on made-up photos: arithmetic by hand, and that a run is kept and reported."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from eval_study.benchmarks import heads, losses
from eval_study.benchmarks.common import Bench
from eval_study.benchmarks.features import GRID, Features, features_of
from skinclip.core.config import Stage2Config, TrainConfig
from skinclip.core.vocabulary import CRITERIA, DIAGNOSIS_CODES
from skinclip.data.cases import Case
from skinclip.reporting.markdown import section_markdown
from skinclip.training.losses import CFAInputs
from skinclip.training.photo_sets import PhotoSet

COUNTS = [4000, 800, 800, 400, 200, 100, 80, 60, 50]


def photo_set(n: int, split: str = "train", side: int = 64) -> PhotoSet:
    cases = [
        Case(Path(f"{split}{i}.png"), f"{split}{i}", "ham10000", f"L{split}{i}", DIAGNOSIS_CODES[i % 7], split=split)
        for i in range(n)
    ]
    g = torch.Generator().manual_seed(n)
    photos = torch.randint(0, 255, (n, 3, side, side), dtype=torch.uint8, generator=g)
    masks = torch.zeros(n, side, side, dtype=torch.uint8)
    masks[:, 16:48, 16:48] = 1
    masks[0] = 255  # a photo without a mask
    criteria = torch.full((n, len(CRITERIA)), -1)
    criteria[: n // 2] = 0
    return PhotoSet(cases, photos, masks, torch.arange(n) % 7, criteria, torch.arange(n) % 4 == 0)


@pytest.fixture(scope="module")
def sets(tiny_model, tmp_path_factory) -> dict[str, Features]:
    folder = tmp_path_factory.mktemp("features")
    made = {"train": (28, 2), "calib": (14, 0), "valid": (14, 0)}
    return {k: features_of(tiny_model, photo_set(n, k), TrainConfig(), folder, v) for k, (n, v) in made.items()}


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
    head = heads.WithoutLanguage(tiny_model)
    generator = torch.Generator().manual_seed(0)
    x = heads._inputs(head, sets["train"], torch.arange(12), 0, True, 0.5, generator)
    whole = by_name["cfa"].of(x, 0.0)
    for name in ("cfa_less_alignment", "cfa_less_calibration", "cfa_less_consistency"):
        assert losses.losses(COUNTS, TrainConfig())[name].of(x, 0.0) < whole


def test_features_are_kept_and_labelled_masks_follow_the_photo(sets, tiny_model, tmp_path) -> None:
    train = sets["train"]
    assert train.tokens.shape == (2, 28, GRID * GRID, tiny_model.perception.width)
    assert train.labelled_lesion[:, 0].isnan().all() and not train.labelled_lesion[:, 1:].isnan().any()
    assert not torch.allclose(train.embeddings[0], train.embeddings[1])  # two augmentations
    photos = photo_set(14, "valid")
    first = features_of(tiny_model, photos, TrainConfig(), tmp_path)
    second = features_of(tiny_model, photos, TrainConfig(), tmp_path)
    assert torch.equal(first.embeddings, second.embeddings) and len(list(tmp_path.iterdir())) == 1


def test_the_head_learns_and_hides_the_photo(sets, tiny_model) -> None:
    cfg = dataclasses.replace(Stage2Config(), lr=5e-3)
    loss = losses.losses(COUNTS, TrainConfig())["cross_entropy"]
    train = sets["train"]
    # tokens that tell the class; random towers see noise alike
    codes = np.random.default_rng(0).normal(size=(7, 1, train.tokens.shape[-1])).astype(np.float16)
    tokens = np.repeat(codes[train.photos.diagnosis.numpy()], GRID * GRID, axis=1)[None]
    same = dataclasses.replace(train, tokens=tokens, embeddings=train.embeddings[:1], lesion=train.lesion[:1])
    trained = heads.train_head(tiny_model, same, cfg, loss, steps=60, batch_size=16, seed=0)
    logits, scores = heads.head_logits(trained.model, same)
    assert (logits.argmax(1) == train.photos.diagnosis.numpy()).mean() > 0.5
    assert scores.shape == (28, sum(len(c.states) for c in CRITERIA))
    blind, _ = heads.head_logits(trained.model, dataclasses.replace(same, embeddings=-same.embeddings), True)
    assert np.allclose(blind, heads.head_logits(trained.model, same, True)[0])


def test_run_is_kept_and_reported(sets, tiny_model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(losses, "STEPS", 2)
    monkeypatch.setattr(losses, "BATCH_SIZE", 8)
    monkeypatch.setattr(losses, "feature_sets", lambda *_: sets)
    monkeypatch.setattr(losses, "HEAD_FROM", 5)
    bench = Bench(tmp_path, tmp_path / "out", tmp_path / "work", n_boot=20, command="a command")
    bench.__dict__["assessor"] = type("A", (), {"model": tiny_model})()
    bench.__dict__["sha"] = "ab" * 32
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
    assert all(title in text for title in losses.TITLES.values()) and "(figures/losses.svg)" in text
