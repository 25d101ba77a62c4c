"""Full size, on tiny shapes: what is written loads, what is measured is told, what is not is said."""

from __future__ import annotations

import json
import mmap
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from eval_study.full_size import base, layers, table
from eval_study.full_size.__main__ import WAYS, compared
from eval_study.full_size.meter import Meter, held_bytes
from skinclip.model.memory import GB, PURPOSES, MemoryPlan, QwenShape, predict
from skinclip.model.qwen import load_language_model

KEPT = Path(table.__file__).parents[1] / "results" / "full_size"
TINY = QwenShape(256, 512, 2, 2, 1, 600, tied=True)


@pytest.fixture
def tiny_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(base.SMALLER, "tiny", (TINY, 1))
    monkeypatch.setattr(base, "SHARD_BYTES", 20_000_000)


@pytest.fixture
def written(tmp_path: Path, tiny_sizes: None) -> Path:
    base.write_base(base.shape_config("tiny"), tmp_path / "tiny")
    return tmp_path / "tiny"


def test_shards_hold_every_weight_once_in_bf16(written: Path) -> None:
    index = json.loads((written / base.INDEX).read_text())
    files = sorted(written.glob("*.safetensors"))
    assert len(files) > 1 and {f.name for f in files} == set(index["weight_map"].values())
    held: dict[str, torch.Tensor] = {}
    for file in files:
        with safe_open(file, "pt") as shard:
            held |= {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
    assert set(held) == set(index["weight_map"])
    assert all(tensor.dtype == torch.bfloat16 for tensor in held.values())
    assert sum(tensor.nbytes for tensor in held.values()) == index["metadata"]["total_size"]
    assert "lm_head.weight" not in held  # tied, as the published 3B model has it


def test_what_is_written_loads_whole(written: Path) -> None:
    model = load_language_model(written, quantize=False)
    weight = model.model.language_model.layers[1].mlp.up_proj.weight
    assert weight.std().item() == pytest.approx(base.STD, rel=0.02)
    assert model.model.language_model.norm.weight.unique().tolist() == [1.0]
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert held_bytes(model)["embeddings"] == 600 * 256 * 4
    with torch.no_grad():
        assert model(input_ids=torch.arange(1, 20).unsqueeze(0)).logits.isfinite().all()


def test_a_meter_sees_what_is_held_in_between() -> None:
    with Meter() as empty:
        pass
    with Meter() as peak:
        # pages of their own: malloc may hand out memory that this process already holds
        block = mmap.mmap(-1, 200_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for place in range(0, len(block), mmap.PAGESIZE):
            block[place] = 1
        time.sleep(0.3)  # until the meter has looked, on a busy machine as well
        block.close()
    assert 150_000_000 < peak.own - empty.own < 260_000_000
    assert peak.resident >= peak.own


def test_logits_are_compared_position_by_position() -> None:
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    b = torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    assert compared(a, b) == {"cosine_mean": 0.5, "cosine_least": 0.0, "same_token": 0.5}


def test_each_way_to_hold_a_layer_stays_near_the_dense_one(tiny_sizes: None) -> None:
    by_way = layers.measure("tiny", prompt=40, repeats=1)["ways"]
    assert by_way["fp32"]["cosine"] == pytest.approx(1.0)
    for way, figures in by_way.items():
        if "not_measured" not in figures:
            assert figures["cosine_output"] > 0.9, way
            assert figures["decode_ms"] > 0
    int8 = by_way["int8 of fp32"]
    assert int8["cosine"] > 0.999 and int8["cosine_outliers"] > 0.999
    both = by_way["int8 weights and activations (fbgemm)"]
    assert "not_measured" in both or both["cosine_outliers"] < int8["cosine_outliers"]


def test_the_report_tells_measured_from_computed(tmp_path: Path) -> None:
    peak = {"own": 8 * GB, "resident": 9 * GB, "gpu": None, "seconds": 30.0, "cpu_seconds": 50.0}
    machine = {"machine": {"threads": 2, "load_before": 0.1, "load_after": 0.2}, "start": {"files": GB // 2}}
    result = {
        "preset": "qwen-3b",
        "device": "cpu",
        "measured": {
            "whole-int8": machine | {"load": peak, "assess": peak},
            "train-nf4": {"not_measured": "needs 9.9 GB, 1.0 GB free"},
        },
    }
    (tmp_path / "qwen-3b-cpu.json").write_text(json.dumps(result))
    table.write_report(tmp_path)
    text = (tmp_path / "FULL_SIZE.md").read_text()
    assert "No GPU was at hand" in text and "| qwen-7b | load |" in text
    assert "| 8.50 GB |" in text  # its own memory and the libraries' pages
    assert "- qwen-3b-cpu, train-nf4: needs 9.9 GB, 1.0 GB free" in text
    assert "- qwen-7b on a CPU" in text


SIZES = [*sorted(base.SMALLER), "qwen-3b"]


@pytest.mark.parametrize("size", SIZES)
def test_the_budget_is_within_a_tenth_of_what_was_measured(size: str, tmp_path: Path) -> None:
    measured = json.loads((KEPT / f"{size}-cpu.json").read_text())["measured"]
    base.shape_config(size).save_pretrained(tmp_path)  # shapes are all that the budget asks for
    config = base.model_config(size, tmp_path)
    for way in WAYS["cpu"]:
        for purpose in PURPOSES:
            peak = table.cpu_peak(measured, way, purpose)
            if size == "qwen-3b" and purpose == "train" and way != "int8":
                continue  # not measured, and the report says so
            assert peak is not None, (way, purpose)
            computed = predict(config, MemoryPlan("cpu", way, "fp32"), purpose).total
            assert computed == pytest.approx(peak, rel=0.1), (way, purpose)


def test_the_3b_model_stays_within_what_is_promised_of_a_cpu() -> None:
    measured = json.loads((KEPT / "qwen-3b-cpu.json").read_text())["measured"]
    for (way, purpose), limit in table.CPU_LIMITS.items():
        peak = table.cpu_peak(measured, way, purpose)
        assert peak is not None and peak <= limit * GB, (way, purpose)


@pytest.mark.parametrize("run", ["layers-native", "layers-avx2"])
def test_layers_of_true_size_stay_near_the_dense_ones(run: str) -> None:
    """Of one linear layer's output and of the stream after a decoder layer. What the layer adds to the stream, and the
    logits after all layers, are further away; the report shows them too."""
    ways = json.loads((KEPT / "qwen-3b-cpu.json").read_text())["measured"][run]["ways"]
    for way, figures in ways.items():
        if way.startswith(("NF4", "int8 of")):
            assert figures["cosine_linear"] >= 0.99 and figures["cosine_output"] >= 0.99, way
