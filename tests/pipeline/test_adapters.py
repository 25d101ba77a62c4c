"""Adapters of the big presets, on a tiny base: switched while serving, refused where they do not belong."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from skinclip.core.assessment import Assessment, Context
from skinclip.core.config import LoraConfig, ModelConfig, load_yaml, save_yaml
from skinclip.imaging.examples import draw
from skinclip.imaging.photo import LesionImage, from_array
from skinclip.model.checkpoint import save_model, weights_sha256
from skinclip.model.errors import CheckpointError
from skinclip.pipeline.assessor import Assessor
from tests.helpers.tiny_hub import tiny_base, tiny_checkpoint

PRESET, CONTEXT = "qwen-3b", Context(55, "male", "back")


@pytest.fixture(scope="module")
def photo() -> LesionImage:
    return from_array(draw("melanoma", 7))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, big_config: ModelConfig) -> Path:
    """Another adapter for the same base, with another rank and other words around the photo."""
    reasoner = dataclasses.replace(
        big_config.reasoner,
        lora=LoraConfig(r=3, alpha=5, dropout=0.0),
        clip_grid=5,
        prompt=dataclasses.replace(big_config.reasoner.prompt, opening="<|im_start|>user\n"),
    )
    config = dataclasses.replace(big_config, reasoner=reasoner)
    return tiny_checkpoint(tmp_path_factory.mktemp("other"), config, seed=11)


@pytest.fixture
def assessor(big_checkpoint: Path) -> Assessor:
    return Assessor.load(PRESET, big_checkpoint)


def test_another_adapter_is_put_in_force_without_loading_the_base_again(assessor, other, big_checkpoint, photo) -> None:
    """What it answers is exactly what it answers when it is loaded by itself; the way back leads back."""
    base = assessor.model.reasoner.base
    kept = {name: p.data_ptr() for name, p in base.named_parameters() if "lora_" not in name}
    first = assessor.assess(photo, CONTEXT)
    fresh = Assessor.load(PRESET, other)
    expected = fresh.assess(photo, CONTEXT)
    assert expected.diagnosis != first.diagnosis

    assessor.switch(other)
    assert assessor.assess(photo, CONTEXT) == expected
    assert assessor.predict([photo], [CONTEXT])[0].probabilities.tolist() == [
        *fresh.predict([photo], [CONTEXT])[0].probabilities
    ]
    assert expected.model.weights_sha256 == weights_sha256(other)
    assessor.switch(big_checkpoint)
    assert assessor.assess(photo, CONTEXT) == first
    assert {name: p.data_ptr() for name, p in base.named_parameters() if "lora_" not in name} == kept
    assert list(assessor.model.reasoner.language_model.peft_config) == [assessor.model.reasoner.adapter]


def test_a_switched_model_saves_what_was_loaded(assessor, other, tmp_path) -> None:
    assessor.switch(other)
    save_model(assessor.model, tmp_path / "again")
    assessor.save_calibration(tmp_path / "again")
    assert weights_sha256(tmp_path / "again") == weights_sha256(other)
    for name in ("config.yaml", "base.json", "findings.json"):
        assert (tmp_path / "again" / name).read_text() == (other / name).read_text()


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def changed(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        state = load_file(folder / name)
        change(state)
        save_file(state, folder / name)

    return damage


def wider(state: dict[str, torch.Tensor]) -> None:
    state.update({k: v.repeat(1, 2) for k, v in state.items() if "lora_A" in k})


def cut(folder: Path) -> None:
    path = folder / "heads.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def dense(folder: Path) -> None:
    config = load_yaml(ModelConfig, folder / "config.yaml")
    save_yaml(
        dataclasses.replace(config, reasoner=dataclasses.replace(config.reasoner, quantize=False)),
        folder / "config.yaml",
    )


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (without("base.json"), "base.json is missing"),
        (without("trust.safetensors"), "trust.safetensors is missing"),
        (lambda folder: (folder / "base.json").write_text("{}"), "does not say what the adapter was made for"),
        (lambda folder: (folder / "findings.json").write_text("{}"), "threshold for each criterion"),
        (lambda folder: (folder / "config.yaml").write_text("preset: [1"), "cannot be activated"),
        (changed("heads.safetensors", dict.clear), "keys missing"),
        (changed("adapter.safetensors", lambda s: s.popitem()), "does not fit: missing"),
        (changed("adapter.safetensors", wider), "size mismatch"),
        (cut, "cannot be activated"),
        (dense, "made on a base in full precision, while here is a quantized base"),
    ],
)
def test_an_adapter_that_is_not_whole_leaves_the_one_before_in_force(
    big_assessor, other, photo, tmp_path, damage, reason
) -> None:
    before, model = big_assessor.assess(photo), big_assessor.model
    shutil.copytree(other, tmp_path / "damaged")
    damage(tmp_path / "damaged")
    with pytest.raises(CheckpointError, match=reason):
        big_assessor.switch(tmp_path / "damaged")
    assert big_assessor.model is model and list(model.reasoner.language_model.peft_config) == ["default"]
    assert big_assessor.assess(photo) == before


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory, big_config: ModelConfig) -> dict[str, Path]:
    """Adapters made for another size of the base, for other weights of it, and for another CLIP."""
    folder = tmp_path_factory.mktemp("strangers")
    clip = folder / "clip.safetensors"
    state = load_file(str(big_config.perception.pretrained))
    save_file({k: v * 1.5 if k.endswith("c_fc.weight") else v for k, v in state.items()}, clip)
    bases = {"size": tiny_base(folder / "wide", hidden=96), "weights": tiny_base(folder / "seed", seed=1)}
    configs = {kind: dataclasses.replace(big_config.reasoner, base=str(base)) for kind, base in bases.items()}
    made = {kind: dataclasses.replace(big_config, reasoner=reasoner) for kind, reasoner in configs.items()}
    perception = dataclasses.replace(big_config.perception, pretrained=str(clip))
    made["clip"] = dataclasses.replace(big_config, perception=perception)
    return {kind: tiny_checkpoint(folder / f"adapter-{kind}", config) for kind, config in made.items()}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("size", r"2 layers, 96 wide.*of another shape.*2 layers, 64 wide"),
        ("weights", "same shape and other weights"),
        ("clip", "made for another CLIP"),
    ],
)
def test_an_adapter_made_for_another_base_is_refused(
    big_assessor, big_config, strangers, photo, kind: str, reason: str, tmp_path: Path
) -> None:
    before = big_assessor.assess(photo)
    with pytest.raises(CheckpointError, match=reason):
        big_assessor.switch(strangers[kind])
    with pytest.raises(CheckpointError, match=reason):
        big_assessor.offer(strangers[kind])
    assert big_assessor.assess(photo) == before
    # and so it is when it is loaded on the base that is here
    moved = shutil.copytree(strangers[kind], tmp_path / "moved")
    save_yaml(big_config, moved / "config.yaml")
    with pytest.raises(CheckpointError, match=reason):
        Assessor.load(PRESET, moved)


def test_a_checkpoint_that_carries_its_base_is_not_switched(big_assessor, big_checkpoint, embedded_weights) -> None:
    with pytest.raises(CheckpointError, match="carries its own base; load it by itself"):
        big_assessor.switch(embedded_weights)
    with pytest.raises(CheckpointError, match="this model carries its own base"):
        Assessor.load("mini").switch(big_checkpoint)


def test_a_switch_waits_for_the_assessment_that_is_running(assessor, other, big_checkpoint, photo) -> None:
    expected = assessor.assess(photo)
    seen: list[Assessment] = []
    writing, may_go_on, switched = threading.Event(), threading.Event(), threading.Event()

    def on_partial(partial: Assessment) -> None:
        writing.set()
        assert may_go_on.wait(20)

    def switch() -> None:
        assessor.switch(other)
        switched.set()

    reader = threading.Thread(target=lambda: seen.append(assessor.assess(photo, on_partial=on_partial)))
    reader.start()
    assert writing.wait(20)
    switcher = threading.Thread(target=switch)
    switcher.start()
    assert not switched.wait(0.3)
    may_go_on.set()
    reader.join(20)
    switcher.join(20)
    assert switched.is_set() and seen == [expected]
    assert assessor.model_info.weights_sha256 == weights_sha256(other)


def test_what_was_made_by_an_adapter_is_asked_of_it_again(assessor, other, big_checkpoint, photo) -> None:
    assessor.offer(other)
    shas = [weights_sha256(folder) for folder in (big_checkpoint, other)]
    assert list(assessor.checkpoints) == shas
    for sha in (*shas, shas[0]):
        with assessor.using(sha):
            assert assessor.assess(photo).model.weights_sha256 == sha
    with assessor.using(None):
        assert assessor.model_info.weights_sha256 == shas[0]
    with pytest.raises(CheckpointError, match="no longer here"), assessor.using("f" * 64):
        pass


def test_a_base_is_told_by_its_weights_and_not_by_its_place(big_config, big_checkpoint, photo, tmp_path) -> None:
    base = shutil.copytree(str(big_config.reasoner.base), tmp_path / "elsewhere")
    clip = shutil.copy(str(big_config.perception.pretrained), tmp_path / "clip.safetensors")
    moved = shutil.copytree(big_checkpoint, tmp_path / "moved")
    config = dataclasses.replace(
        big_config,
        reasoner=dataclasses.replace(big_config.reasoner, base=str(base)),
        perception=dataclasses.replace(big_config.perception, pretrained=str(clip)),
    )
    save_yaml(config, moved / "config.yaml")
    assert Assessor.load(PRESET, moved).assess(photo) == Assessor.load(PRESET, big_checkpoint).assess(photo)
    stored = json.loads((moved / "base.json").read_text())
    assert set(stored) == {"base", "clip"} and str(tmp_path) not in json.dumps(stored)
