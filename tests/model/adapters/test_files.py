"""Adapters as files: their card, merged into the base, copied, and handed on through a hub on this computer."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from huggingface_hub import constants
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from skinclip import RESEARCH_USE_ONLY
from skinclip.cli import main as cli
from skinclip.core.assessment import Context
from skinclip.core.config import ModelConfig, TrainConfig, load_yaml, save_yaml
from skinclip.hub import MissingWeights
from skinclip.imaging.examples import draw
from skinclip.imaging.photo import from_array
from skinclip.language.prompt import RationaleTarget
from skinclip.model import memory
from skinclip.model.adapters import files as adapters
from skinclip.model.adapters.card import card_name, model_card, write_card
from skinclip.model.adapters.files import AdapterError, check, info, list_adapters, merge, on_hub, pull, push
from skinclip.model.checkpoint import CARRIED, load_model, save_model, weights_sha256
from skinclip.model.errors import CheckpointError
from skinclip.pipeline.assessor import Assessor
from skinclip.ui import weights_download
from skinclip.ui.server import StartupError
from tests.helpers.fake_hub import FakeHub
from tests.helpers.tiny_hub import OWN_SIDE, tiny_checkpoint

REVISION, NAME = "c" * 40, "lab/skin-adapter"


@pytest.fixture
def adapter(big_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(big_checkpoint, tmp_path / "mine")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    fake = FakeHub(REVISION)
    monkeypatch.setenv("HF_ENDPOINT", fake.endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield fake
    fake.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def changed(adapter: Path, **fields: object) -> ModelConfig:
    config = load_yaml(ModelConfig, adapter / "config.yaml")
    config = dataclasses.replace(config, reasoner=dataclasses.replace(config.reasoner, **fields))
    save_yaml(config, adapter / "config.yaml")
    return config


# --- the card -----------------------------------------------------------------------------------------------------


def test_the_card_says_what_an_adapter_is_and_what_was_measured(adapter: Path, tmp_path: Path) -> None:
    card = (adapter / "README.md").read_text()  # written with the checkpoint
    assert RESEARCH_USE_ONLY in card and "None were measured yet" in card and "No recipe" in card
    save_yaml(TrainConfig(seed=7), adapter / "recipe.yaml")
    figure = {"value": 0.7, "low": 0.6, "high": 0.8}
    report = {
        "n": 12,
        "balanced_accuracy": figure,
        "curves": {},
        "meta": {
            "system": {"sha256": weights_sha256(adapter)},
            "data": ["drawn"],
            "split": "test",
            "seed": 0,
            "command": "python -m skinclip evaluate --data /home/someone/photos/drawn --out=/tmp/report.json",
        },
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    write_card(adapter, [tmp_path / "report.json"])
    card = (adapter / "README.md").read_text()
    assert "| Balanced accuracy | 0.700 (0.600 to 0.800) |" in card and "seed 7" in card and "12 photos" in card
    assert "--data .../drawn" in card and "someone" not in card
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "other" and "base_model" not in front  # a base of unknown origin
    assert card_name(adapter) == "SkinCLIP-VL qwen-3b, mine"

    report["meta"]["system"]["sha256"] = "0" * 64
    (tmp_path / "report.json").write_text(json.dumps(report))
    with pytest.raises(CheckpointError, match="is of the weights 000000000000"):
        write_card(adapter, [tmp_path / "report.json"])


def test_a_card_names_the_licence_of_a_known_base(adapter: Path) -> None:
    stored = json.loads((adapter / "base.json").read_text())
    stored["base"] |= {"hub_id": "Qwen/Qwen2.5-VL-3B-Instruct", "revision": "d" * 40}
    (adapter / "base.json").write_text(json.dumps(stored))
    card = model_card(adapter)
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert "Qwen Research License" in card and "d" * 40 in card


def test_adapters_are_listed_with_what_speaks_against_them(adapter: Path, embedded_weights: Path) -> None:
    broken = shutil.copytree(adapter, adapter.parent / "broken")
    (broken / "heads.safetensors").write_bytes(b"none")
    shutil.copytree(embedded_weights, adapter.parent / "whole")
    (adapter.parent / "nothing").mkdir()
    found = {a.folder.name: a for a in list_adapters(adapter.parent)}
    assert list(found) == ["broken", "mine", "whole"]
    assert found["mine"].problem is None and found["mine"].weights_sha256 == weights_sha256(adapter)
    assert "is damaged" in str(found["broken"].problem) and "carries its own base" in str(found["whole"].problem)
    with pytest.raises(AdapterError, match="no folder"):
        list_adapters(adapter.parent / "elsewhere")
    with pytest.raises(AdapterError, match="no checkpoint"):
        info(adapter.parent / "nothing")


# --- merging ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def logits(folder: Path) -> tuple[Tensor, Tensor]:
    """Of the language model at every place of two prompts, and of the diagnosis."""
    model = load_model(folder)
    seen = model.perceive(torch.rand(2, 3, OWN_SIDE, OWN_SIDE, generator=torch.Generator().manual_seed(3)))
    evidence = model.find_evidence(seen)
    prompts = model.reasoner.writer.write(
        [Context(), Context(60)], [RationaleTarget(["streaks:irregular"], "mel", "nv")] * 2
    )
    hidden = model.reasoner.hidden(prompts, model.reasoner.inputs(prompts, seen, evidence))
    shown = prompts.attention_mask.bool()
    return model.reasoner.base.lm_head(hidden)[shown], model.reason(prompts, seen, evidence).logits


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 4e-3), (torch.float16, 5e-4)])
def test_merged_in_16_bit_it_answers_as_base_and_adapter_unquantized(adapter: Path, dtype, most: float) -> None:
    out = adapter.parent / "merged"
    merge(adapter, out, dtype)
    config = load_yaml(ModelConfig, out / "config.yaml")
    assert (
        config.reasoner.base == CARRIED and not config.reasoner.quantize and not (out / "adapter.safetensors").exists()
    )
    stored = Qwen2_5_VLForConditionalGeneration.from_pretrained(out / "reasoner", dtype="auto")
    assert {p.dtype for p in stored.parameters()} == {dtype}
    four_bit = logits(adapter)
    changed(adapter, quantize=False)
    dense, merged = logits(adapter), logits(out)
    assert apart(merged[0], dense[0]) < most and apart(merged[1], dense[1]) < most
    assert apart(four_bit[0], dense[0]) > 0.02  # what rounding to four bits costs, and why it must not be merged in
    changed(out, quantize=True)
    assert apart(logits(out)[0], four_bit[0]) > 0.02  # nor is NF4 of the sum the sum of NF4 and LoRA


def test_a_merged_checkpoint_is_whole_and_stands_alone(adapter: Path, big_assessor) -> None:
    out = adapter.parent / "merged"
    merge(adapter, out)
    photo = from_array(draw("nevus", 3))
    merged = Assessor.load("qwen-3b", out)
    assert merged.assess(photo).rationale
    with pytest.raises(CheckpointError, match="carries its own base"):
        big_assessor.switch(out)
    with pytest.raises(CheckpointError, match="carries its own base"):
        push(out, str(adapter.parent / "pushed"), agree=bool)
    save_model(merged.model, adapter.parent / "again")  # with the base it carries
    merged.save_calibration(adapter.parent / "again")
    assert Assessor.load("qwen-3b", adapter.parent / "again").predict([photo], [Context()])[0].malignancy == (
        merged.predict([photo], [Context()])[0].malignancy
    )


def test_what_cannot_be_merged_leaves_nothing_behind(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = adapter.parent / "merged"
    out.mkdir()
    (out / "mine.txt").touch()
    with pytest.raises(AdapterError, match="there already"):
        merge(adapter, out)
    assert [p.name for p in out.iterdir()] == ["mine.txt"]

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(adapters.card, "write_card", full)
    with pytest.raises(OSError, match="No space"):
        merge(adapter, adapter.parent / "second")
    assert sorted(p.name for p in adapter.parent.iterdir()) == ["merged", "mine"]


def test_too_little_memory_to_merge_is_told_before_the_base_is_read(adapter: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10_000_000)
    monkeypatch.setattr(adapters, "merged_language_model", lambda *_: pytest.fail("it was read"))
    with pytest.raises(memory.TooLittleMemory, match=r"merging needs about 1\.\d GB of memory, 0\.0 GB are free"):
        merge(adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


# --- handing on ---------------------------------------------------------------------------------------------------


def test_a_copy_is_the_same_and_answers_the_same(adapter: Path, big_assessor, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    assert push(adapter, str(shelf / "mine"), agree=pytest.fail) == str(shelf / "mine")
    pull(str(shelf / "mine"), tmp_path / "back")
    assert contents(tmp_path / "back") == contents(adapter)
    photo = from_array(draw("melanoma", 7))
    assert Assessor.load("qwen-3b", tmp_path / "back").assess(photo) == big_assessor.assess(photo)
    with pytest.raises(AdapterError, match="there already"):
        push(adapter, str(shelf / "mine"), agree=pytest.fail)
    assert sorted(p.name for p in shelf.iterdir()) == ["mine"]


def test_a_copy_that_does_not_arrive_whole_is_not_kept(adapter: Path, tmp_path: Path, monkeypatch) -> None:
    def damaged(source: Path, target: Path) -> None:
        data = source.read_bytes()
        target.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if source.name == "heads.safetensors" else data)

    monkeypatch.setattr(adapters.shutil, "copyfile", damaged)
    with pytest.raises(AdapterError, match=r"heads\.safetensors did not arrive as it was sent"):
        push(adapter, str(tmp_path / "shelf" / "mine"), agree=pytest.fail)
    assert not list((tmp_path / "shelf").iterdir())


def test_nothing_but_an_adapter_is_handed_on(adapter: Path, tmp_path: Path, hub: FakeHub) -> None:
    """Photos, caches, links and damaged files are refused before anything is copied or sent."""
    changed(adapter, base="Qwen/Qwen2.5-VL-3B-Instruct")
    strange = [
        adapter / "photo.jpg",
        adapter / "tokenizer" / "notes.txt",
        adapter / ".cache" / "x",
        adapter / "trace.csv",
    ]
    for path in strange:
        path.parent.mkdir(exist_ok=True)
        path.touch()
        for target in (str(tmp_path / "shelf"), NAME):
            with pytest.raises(AdapterError, match="do not belong to an adapter"):
                push(adapter, target, agree=lambda: True)
        path.unlink()
        if path.parent.name == ".cache":
            path.parent.rmdir()
    (adapter / "recipe.yaml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AdapterError, match=r"do not belong to an adapter: recipe\.yaml"):
        check(adapter)
    (adapter / "recipe.yaml").unlink()
    (adapter / "heads.safetensors").write_bytes(b"\xff\xd8\xff\xe0 a photo by another name")
    with pytest.raises(AdapterError, match="damaged"):
        push(adapter, NAME, agree=lambda: True)
    assert not hub.requests and not (tmp_path / "shelf").exists()


def test_paths_of_this_computer_and_what_nobody_agreed_to_are_not_uploaded(adapter: Path, hub: FakeHub) -> None:
    with pytest.raises(AdapterError, match="reasoner.base in config.yaml is a path of this computer"):
        push(adapter, NAME, agree=lambda: True)
    config = changed(adapter, base="Qwen/Qwen2.5-VL-3B-Instruct")
    with pytest.raises(AdapterError, match="perception.pretrained in config.yaml is a path"):
        push(adapter, NAME, agree=lambda: True)
    perception = dataclasses.replace(config.perception, pretrained="openai")
    save_yaml(dataclasses.replace(config, perception=perception), adapter / "config.yaml")
    with pytest.raises(AdapterError, match="nothing was uploaded"):
        push(adapter, NAME, agree=lambda: False)
    assert not hub.requests


@pytest.fixture
def published(adapter: Path) -> Path:
    config = changed(adapter, base="Qwen/Qwen2.5-VL-3B-Instruct")
    perception = dataclasses.replace(config.perception, pretrained="openai")
    save_yaml(dataclasses.replace(config, perception=perception), adapter / "config.yaml")
    return adapter


class Uploads:
    """Takes the place of huggingface_hub's client for the two calls that write; puts what it gets into a `FakeHub`."""

    def __init__(self, hub: FakeHub, damage: bool = False) -> None:
        self.hub, self.damage, self.calls = hub, damage, []

    def __call__(self, endpoint: str | None) -> Uploads:
        assert endpoint == self.hub.endpoint
        return self

    def create_repo(self, name: str, **settings: object) -> None:
        self.calls.append(("create", name, settings))

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], commit_message: str
    ) -> SimpleNamespace:
        self.calls.append(("upload", repo_id, commit_message))
        files = {name: (folder_path / name).read_bytes() for name in allow_patterns}
        if self.damage:
            files["findings.json"] += b" "
        self.hub.repositories[repo_id] = files | {".gitattributes": b"*.safetensors filter=lfs\n"}
        return SimpleNamespace(oid=REVISION)


def test_an_adapter_goes_to_the_hub_and_comes_back(published: Path, hub: FakeHub, tmp_path: Path, monkeypatch) -> None:
    uploads = Uploads(hub)
    monkeypatch.setattr(adapters, "HfApi", uploads)
    told: list[str] = []
    assert push(published, NAME, agree=lambda: True, tell=told.append) == REVISION
    assert uploads.calls == [
        ("create", NAME, {"private": True, "exist_ok": True}),
        ("upload", NAME, f"{card_name(published)}, weights {weights_sha256(published)[:12]}"),
    ]
    assert REVISION in told[-1]
    hub.repositories[NAME]["photo.jpg"] = b"not ours"
    pull(NAME, tmp_path / "back", REVISION, tell=told.append)
    assert contents(tmp_path / "back") == contents(published)
    assert any("photo.jpg" in line for line in told) and "photo.jpg" not in hub.downloads()


def test_an_upload_that_arrived_otherwise_is_told(published: Path, hub: FakeHub, monkeypatch) -> None:
    monkeypatch.setattr(adapters, "HfApi", Uploads(hub, damage=True))
    with pytest.raises(AdapterError, match=r"does not hold what was sent: findings\.json"):
        push(published, NAME, agree=lambda: True)


def test_a_download_that_is_cut_damaged_or_not_an_adapter_leaves_nothing(
    published: Path, hub: FakeHub, tmp_path: Path
) -> None:
    out = tmp_path / "out" / "back"
    with pytest.raises(MissingWeights, match="has no lab/skin-adapter"):
        pull(NAME, out, REVISION)
    hub.repositories[NAME] = contents(published)
    with pytest.raises(AdapterError, match="not a full commit"):
        pull(NAME, out, "main")
    with pytest.raises(MissingWeights, match="no revision"):
        pull(NAME, out, "e" * 40)
    hub.damaged.add("heads.safetensors")
    with pytest.raises(AdapterError, match=r"heads\.safetensors of lab/skin-adapter came with another hash"):
        pull(NAME, out, REVISION)
    hub.damaged.clear()
    del hub.repositories[NAME]["trust.safetensors"]
    with pytest.raises(AdapterError, match=r"trust\.safetensors missing"):
        pull(NAME, out, REVISION)
    hub.repositories[NAME] = contents(published)
    assert not list(out.parent.iterdir())


def test_a_page_brings_the_adapter_it_is_told_to_by_a_process_of_its_own(
    published: Path, hub: FakeHub, tmp_path: Path, monkeypatch
) -> None:
    hub.repositories[NAME] = contents(published)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as in the page's own process
    told: list[str] = []
    weights_download.run_command(
        ["adapter", "pull", NAME, str(tmp_path / "here" / "back"), "--revision", REVISION], told.append
    )
    assert contents(tmp_path / "here" / "back") == contents(published)
    assert told[-1] == f"{tmp_path / 'here' / 'back'} holds revision {REVISION} of {NAME}"
    with pytest.raises(StartupError, match="has no lab/none"):
        weights_download.run_command(
            ["adapter", "pull", "lab/none", str(tmp_path / "none"), "--revision", REVISION], told.append
        )


def test_a_download_that_was_cut_goes_on(published: Path, hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories[NAME] = dict(sorted(contents(published).items()))
    hub.cut["heads.safetensors"] = 5_000
    with pytest.raises(MissingWeights, match=r"kept in .*back\.part, run the same command to go on"):
        pull(NAME, tmp_path / "back", REVISION)
    assert not (tmp_path / "back").exists()
    (tmp_path / "back.part" / "stray.txt").touch()
    hub.status = None
    hub.served.clear()
    pull(NAME, tmp_path / "back", REVISION)
    assert contents(tmp_path / "back") == contents(published) and not (tmp_path / "back.part").exists()
    assert hub.served["heads.safetensors"] and not hub.served["adapter.safetensors"]  # which had come whole


@pytest.mark.parametrize(
    ("place", "remote"),
    [
        ("lab/adapter", True),
        ("lab/adapter.v2", True),
        ("./lab/adapter", False),
        ("/lab/adapter", False),
        ("lab", False),
    ],
)
def test_a_repository_is_told_from_a_path(place: str, remote: bool, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert on_hub(place) == remote
    (tmp_path / "lab" / "adapter").mkdir(parents=True)
    assert not on_hub("lab/adapter")


# --- the command line ---------------------------------------------------------------------------------------------


def run(*words: object) -> int:
    return cli.main(["adapter", *map(str, words)])


def test_the_command_line(adapter: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    sha = weights_sha256(adapter)
    assert run("list", adapter.parent) == 0 and "mine: SkinCLIP-VL qwen-3b" in capsys.readouterr().out
    assert run("info", adapter) == 0
    said = capsys.readouterr().out
    assert sha in said and "2 layers, 64 wide" in said and RESEARCH_USE_ONLY in said
    assert run("card", adapter) == 0 and run("info", adapter, "--card") == 0
    assert "# Model card: SkinCLIP-VL qwen-3b, mine" in capsys.readouterr().out
    assert run("push", adapter, tmp_path / "shelf") == 0 and run("pull", tmp_path / "shelf", tmp_path / "back") == 0
    assert contents(tmp_path / "back") == contents(adapter)
    assert run("merge", adapter, "--out", tmp_path / "merged", "--dtype", "fp16") == 0
    capsys.readouterr()
    assert run("push", adapter, tmp_path / "shelf") == 2 and "there already" in capsys.readouterr().err
    assert run("info", tmp_path) == 2 and capsys.readouterr().err.count("\n") == 1


def test_the_command_line_asks_before_anything_leaves_the_computer(published: Path, hub: FakeHub, capsys) -> None:
    assert run("push", published, NAME) == 2
    streams = capsys.readouterr()
    assert "heads.safetensors" in streams.out and "--yes" in streams.err and "nothing was uploaded" in streams.err
    assert not hub.requests


def test_a_preset_name_is_not_needed_twice(big_config, tmp_path: Path) -> None:
    """A card is named after the folder an adapter lies in, unless that is the preset's own name."""
    assert card_name(tiny_checkpoint(tmp_path / "qwen-3b", big_config)) == "SkinCLIP-VL qwen-3b"
