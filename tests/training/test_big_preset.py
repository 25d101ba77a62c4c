"""A big preset the whole way: tiny base, trained by the command line, loaded again, asked about a photo."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from skinclip.cli import main as cli
from skinclip.core.assessment import Assessment, Context
from skinclip.core.config import ModelConfig, TrainConfig, load_yaml
from skinclip.data.cases import DataError
from skinclip.imaging.photo import load_photo
from skinclip.language.rationale_check import check_rationale
from skinclip.model.adapters import files as adapters
from skinclip.model.perception import Perception
from skinclip.pipeline.assessor import Assessor
from skinclip.training.checkpoints import load_checkpoint
from skinclip.training.run import claim, find_published, train
from tests.helpers.tiny_hub import tiny_base
from tests.training.conftest import BIG_RECIPE


def test_from_base_to_rationale(
    big: ModelConfig, hub: Path, command: Callable[..., list[str]], tmp_path, capsys
) -> None:
    assert cli.main(command("work")) == 0
    out = tmp_path / "work-out"
    assert f"--preset qwen-3b --weights {out}" in capsys.readouterr().out
    held = {p.name for p in out.iterdir()}
    assert {"adapter.safetensors", "heads.safetensors", "trust.safetensors", "recipe.yaml", "tokenizer"} <= held
    assert not held & {"reasoner", "perception.safetensors"}  # what is published stays where it is
    assert load_yaml(TrainConfig, out / "recipe.yaml") == dataclasses.replace(BIG_RECIPE)

    adapters.check(out)  # whole, nothing beside it, and it says what it was made for

    assessor = Assessor.load("qwen-3b", out)
    clip = Perception(big.perception).tower.weights()
    for name, value in assessor.model.perception.tower.weights().items():
        assert torch.allclose(value, clip[name], atol=1e-3), name  # rounded to half precision, not trained
    said: list[Assessment] = []
    rows = (hub / "data/drawn/manifest.csv").read_text().splitlines()  # a photo as those that it is calibrated on
    photo = load_photo(hub / "data/drawn" / next(r for r in rows if ",calib," in r).split(",")[0])
    assessment = assessor.assess(photo, Context(50, "male", "back"), on_partial=said.append)
    assert Assessment.from_json(assessment.to_json()) == assessment and not assessment.abstained
    assert assessment.rationale == said[-1].rationale and len(said) > 2
    first, second = (d.code for d in assessment.diagnosis[:2])
    findings = [f.key for f in assessment.findings]
    assert check_rationale(assessment.rationale, findings, [first, second]) == []


def test_what_is_trained_and_what_is_not(big: ModelConfig, hub: Path, tmp_path) -> None:
    trained = train(big, BIG_RECIPE, hub / "data", tmp_path / "work", tmp_path / "out")
    assert trained is not None
    base = load_base(hub / "base")
    for name, value in trained.model.reasoner.base.state_dict().items():
        name = name.replace(".base_layer", "")
        if name in base and "language_model.layers" not in name:
            assert torch.equal(value, base[name].float()), name
    adapter = load_file(tmp_path / "out/adapter.safetensors")
    assert all(v.abs().max() > 0 for n, v in adapter.items() if "lora_B" in n)  # where LoRA starts they are zero
    masks = torch.load(tmp_path / "work/masks.pt", weights_only=False)["head"]
    for name, value in trained.model.evidence.mask_head.state_dict().items():
        assert torch.equal(value, masks[name]), name  # learnt before stage 2, and not by it


def load_base(folder: Path) -> dict[str, torch.Tensor]:
    tensors = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors


def test_what_is_wrong_is_said(
    big: ModelConfig, hub: Path, command: Callable[..., list[str]], tmp_path, capsys
) -> None:
    def complaint(words: list[str]) -> str:
        assert cli.main(words) == 2
        return capsys.readouterr().err

    words = command("work")
    recipe = tmp_path / "work.yaml"
    for text, what in (
        ("stage2: {micro_batches: 4}", "line 1: there is no field stage2.micro_batches"),
        ("stage2: {rationale_targets: 40}", "rationale_targets must lie in 0 to batch_size"),
        ("stage2: {cached_views: 1}", "cached_views must be 0, or 2 or more"),
        ("stage2: 5", "is not a recipe"),
        ("[stage2]", "does not hold a mapping"),
    ):
        recipe.write_text(text)
        said = complaint(words)
        assert what in said and str(recipe) in said and said.count("\n") == 1

    manifest = (hub / "data/drawn/manifest.csv").read_text()
    bare = tmp_path / "bare/drawn"
    bare.mkdir(parents=True)
    (bare / "images").symlink_to(hub / "data/drawn/images")
    (bare / "manifest.csv").write_text("\n".join(_without_mask(line) for line in manifest.splitlines()))
    with pytest.raises(DataError, match="no training photo has a lesion mask"):
        train(big, BIG_RECIPE, tmp_path / "bare", tmp_path / "work", tmp_path / "out")


def test_without_published_weights_nothing_is_begun(hub: Path, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("SKINCLIP_HOME", str(tmp_path / "empty"))
    words = ["train", "--preset", "qwen-3b", "--data", str(hub / "data"), "--work", str(tmp_path / "work")]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "run `python -m skinclip fetch --preset qwen-3b`" in said and said.count("\n") == 1
    assert not (tmp_path / "work").exists()


def _without_mask(line: str) -> str:
    image, _, rest = line.split(",", 2)
    return f"{image},mask,{rest}" if image == "image" else f"{image},,{rest}"


def test_a_work_folder_belongs_to_one_recipe_model_and_base(big: ModelConfig, tmp_path) -> None:
    base, identity = find_published(big)
    assert base.name == "base"
    claim(tmp_path, BIG_RECIPE, big, identity)
    claim(tmp_path, BIG_RECIPE, big, identity)  # the same again: a resumption
    other = dataclasses.replace(big, evidence=dataclasses.replace(big.evidence, adapter_width=8))
    for recipe, model, weights, what in (
        (dataclasses.replace(BIG_RECIPE, seed=7), big, identity, "another recipe"),
        (BIG_RECIPE, other, identity, "another model"),
        (BIG_RECIPE, big, "ab" * 32, "other weights"),
    ):
        with pytest.raises(DataError, match=f"{what}.*give another --work"):
            claim(tmp_path, recipe, model, weights)


def test_other_weights_of_the_same_shape_are_told_apart(big: ModelConfig, tmp_path) -> None:
    ours = find_published(big)[1]
    other = dataclasses.replace(big.reasoner, base=str(tiny_base(tmp_path / "other", seed=3, layers=3)))
    assert find_published(dataclasses.replace(big, reasoner=other))[1] != ours


def test_the_state_of_another_version_is_not_resumed(tmp_path) -> None:
    torch.save({"step": 3}, tmp_path / "stage2.pt")
    with pytest.raises(DataError, match="saved by another version"):
        load_checkpoint(tmp_path / "stage2.pt")
