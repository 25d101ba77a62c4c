"""The memory budget: counts of the published models, bytes as they are really held, refusal before loading."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from eval_study.full_size.meter import held_bytes
from skinclip.core.config import LoraConfig, ModelConfig, preset, save_yaml
from skinclip.model import memory
from skinclip.model.memory import GB, PURPOSES, MemoryPlan, TooLittleMemory
from skinclip.model.qwen import UNQUANTIZED, quantization
from skinclip.model.skinclip_vl import SkinClipVL
from skinclip.pipeline.assessor import Assessor


def gb(name: str, plan: MemoryPlan, purpose: str) -> float:
    return memory.predict(preset(name), plan, purpose).gb


# ---- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "qwen", "vision", "linears"),
    # the totals that the hub shows for the published weights
    [("qwen-3b", 3_754_622_976, 668_684_288, 2_774_532_096), ("qwen-7b", 8_292_166_656, 676_550_144, 6_525_288_448)],
)
def test_counts_are_those_of_the_published_models(name: str, qwen: int, vision: int, linears: int) -> None:
    counted = memory.inventory(preset(name))
    own = ("vision", "embeddings", "language linears", "language norms and biases", "lm_head")
    assert counted.parameters(*own) == qwen
    assert counted.parameters("vision") == vision
    assert counted.parameters("language linears") == linears
    assert counted.parameters("clip") == 427_616_513  # ViT-L/14, both towers
    assert counted.parameters() == qwen + counted.parameters("clip", "lora", "heads")


@pytest.mark.parametrize("name", ["qwen-3b", "qwen-7b"])
def test_at_most_one_percent_is_trained(name: str) -> None:
    assert memory.inventory(preset(name)).trained_share <= 0.01


def test_lora_of_rank_16_would_be_more_than_one_percent_of_the_3b_model() -> None:
    config = preset("qwen-3b")
    wider = dataclasses.replace(config.reasoner, lora=LoraConfig(r=16))
    assert memory.inventory(dataclasses.replace(config, reasoner=wider)).trained_share > 0.01


def test_counts_are_those_of_a_real_model(tiny_model: SkinClipVL, tiny_config: ModelConfig) -> None:
    counted = memory.inventory(tiny_config)
    assert counted.parameters() == sum(p.numel() for p in tiny_model.parameters())
    trained = sum(p.numel() for part in tiny_model.trainable().values() for p in part)
    assert counted.parameters("lora", "heads") == trained


def test_the_count_is_stated_as_it_is() -> None:
    said = memory.count_statement(preset("qwen-7b"))
    assert "8.80 billion parameters, 32\u00a0% fewer than 13 billion" in said
    assert "the paper's 43\u00a0% is its own count" in said


# ---- bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("double", [False, True])
def test_bytes_of_a_model_loaded_in_nf4(tmp_path: Path, tiny_config: ModelConfig, double: bool) -> None:
    base = memory.base_config(tiny_config)
    Qwen2_5_VLForConditionalGeneration(base).save_pretrained(tmp_path)
    settings = quantization()
    settings.bnb_4bit_use_double_quant = double
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        tmp_path, dtype=torch.float32, device_map={"": "cpu"}, quantization_config=settings
    )
    held = memory.weight_bytes(tiny_config, MemoryPlan("cpu", "nf4-double" if double else "nf4", "fp32"))
    measured = held_bytes(model)
    assert measured == {part: held[part] for part in measured} and sum(measured.values()) > 0
    assert UNQUANTIZED == ["model.visual", "lm_head"]  # what the plan's `rest` takes for granted


def test_bytes_of_a_matrix_by_hand() -> None:
    shape = (256, 1024)
    n = 256 * 1024
    assert memory.matrix_bytes(shape, "fp32") == 4 * n
    assert memory.matrix_bytes(shape, "bf16") == 2 * n
    assert memory.matrix_bytes(shape, "int8") == n + 4 * 256
    assert memory.matrix_bytes(shape, "nf4") == n // 2 + 4 * (n // 64) + 64
    assert memory.matrix_bytes(shape, "nf4-double") == n // 2 + n // 64 + 4 * (n // 64 // 256) + 4 + 1024 + 64
    with pytest.raises(ValueError, match="int3"):
        memory.matrix_bytes(shape, "int3")


# ---- peaks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "plan", "purpose", "limit"),
    [
        ("qwen-3b", MemoryPlan("cuda", "nf4", "bf16"), "load", 12),
        ("qwen-3b", MemoryPlan("cuda", "nf4", "bf16"), "assess", 12),
        ("qwen-3b", MemoryPlan("cuda", "nf4", "bf16"), "train", 12),
        ("qwen-3b", MemoryPlan("cpu", "fp32", "fp32"), "load", 20),
        ("qwen-3b", MemoryPlan("cpu", "fp32", "fp32"), "assess", 20),
        ("qwen-3b", MemoryPlan("cpu", "int8", "fp32"), "assess", 10),
        ("qwen-3b", MemoryPlan("cpu", "nf4", "fp32"), "assess", 10),
        ("qwen-3b", MemoryPlan("cpu", "int8", "fp32"), "train", 12),
        ("qwen-7b", MemoryPlan("cuda", "nf4", "bf16"), "load", 12),
        ("qwen-7b", MemoryPlan("cuda", "nf4", "bf16"), "assess", 12),
        ("qwen-7b", MemoryPlan("cuda", "nf4", "bf16"), "train", 24),
    ],
)
def test_presets_stay_within_what_they_promise(name: str, plan: MemoryPlan, purpose: str, limit: float) -> None:
    assert gb(name, plan, purpose) <= limit


@pytest.mark.parametrize("name", ["qwen-3b", "qwen-7b"])
def test_the_readme_says_what_is_computed(name: str) -> None:
    config = preset(name)
    peaks = {
        (d, p): memory.predict(config, memory.plan_for(config, d), p).gb for d in ("cuda", "cpu") for p in PURPOSES
    }
    shown = [
        figure
        for device in ("cuda", "cpu")
        for figure in (max(peaks[device, p] for p in PURPOSES if p != "train"), peaks[device, "train"])
    ]
    row = " | ".join([f"| `{name}`", *(f"{gb:.1f} GB" for gb in shown)]) + " |"
    assert row in (Path(memory.__file__).parents[2] / "docs" / "presets.md").read_text()


def test_plans_follow_the_configuration() -> None:
    config = preset("qwen-3b")
    packed = dataclasses.replace(config, reasoner=dataclasses.replace(config.reasoner, cpu_weights="nf4"))
    assert memory.plan_for(config, "cuda") == MemoryPlan("cuda", "nf4", "bf16")
    assert memory.plan_for(config, "cpu") == MemoryPlan("cpu", "int8", "fp32")
    assert memory.plan_for(packed, "cpu") == MemoryPlan("cpu", "nf4", "fp32")
    assert memory.plan_for(preset("mini"), "cpu") == MemoryPlan("cpu", "fp32", "fp32")


def test_an_unknown_purpose_or_base_is_refused() -> None:
    with pytest.raises(ValueError, match="sing"):
        gb("mini", MemoryPlan("cpu", "fp32", "fp32"), "sing")
    config = preset("qwen-3b")
    unknown = dataclasses.replace(config, reasoner=dataclasses.replace(config.reasoner, base="Qwen/other"))
    with pytest.raises(ValueError, match=r"config\.json"):
        memory.base_config(unknown)


# ---- before loading --------------------------------------------------------------------------------------------------


def test_too_little_memory_names_what_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 7 * GB)
    with pytest.raises(TooLittleMemory, match=r"qwen-7b needs about 1\d\.\d GB of GPU memory to assess, 7\.0 GB"):
        memory.check_memory("qwen-7b", "cuda", "assess")
    with pytest.raises(TooLittleMemory, match=r"--preset qwen-3b"):
        memory.check_memory("qwen-7b", "cuda", "assess")
    assert memory.check_memory("qwen-3b", "cuda", "assess").total <= 7 * GB


def test_too_little_memory_for_fp32_offers_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 12 * GB)
    config = preset("qwen-3b")
    large = dataclasses.replace(config, reasoner=dataclasses.replace(config.reasoner, cpu_weights="fp32"))
    with pytest.raises(TooLittleMemory, match=r"cpu_weights: int8"):
        memory.check_memory("qwen-3b", "cpu", "assess", large)
    assert memory.check_memory("qwen-3b", "cpu", "assess").total <= 12 * GB


def test_no_preset_may_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: GB // 10)
    with pytest.raises(TooLittleMemory, match="No preset fits"):
        memory.check_memory("mini", "cpu", "assess")


def test_mini_fits_here() -> None:
    assert memory.check_memory("mini", "cpu", "assess").gb < 2


def test_a_container_may_have_less_than_the_machine(tmp_path: Path) -> None:
    assert memory.container_bytes(tmp_path) == math.inf  # not in a container
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert memory.container_bytes(tmp_path) == math.inf
    (tmp_path / "memory.max").write_text("4000\n")
    assert memory.container_bytes(tmp_path) == 3000


def test_what_would_not_fit_is_refused_before_anything_is_loaded(tmp_path: Path, monkeypatch) -> None:
    """No weights lie where the config says: had they been asked for, the words would be others."""
    save_yaml(preset("qwen-3b"), tmp_path / "config.yaml")
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2 * GB)
    with pytest.raises(TooLittleMemory, match=r"qwen-3b needs about .* GB of memory to load, 2.0 GB are free"):
        Assessor.load("qwen-3b", tmp_path)
