"""Layers held in 8 bits: close to the dense ones, the same for few and many tokens, and open to LoRA's gradients."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration

from eval_study.full_size.meter import held_bytes
from skinclip.core.config import ModelConfig
from skinclip.model import memory
from skinclip.model.checkpoint import load_model, save_model
from skinclip.model.int8 import FEW, Int8Linear, int8, unpack
from skinclip.model.qwen import add_lora, load_language_model, quantize_to, qwen_config
from skinclip.model.skinclip_vl import SkinClipVL
from skinclip.model.tokenizer import mini_tokenizer


@pytest.fixture(scope="module")
def nf4(tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("int8") / "nf4"
    quantize_to(Qwen2_5_VLForConditionalGeneration(qwen_config(tiny_config.reasoner, mini_tokenizer())), folder)
    return folder


@pytest.mark.parametrize("tokens", [1, FEW, FEW + 1, 200])
def test_close_to_the_dense_layer_for_any_number_of_tokens(tokens: int) -> None:
    dense = nn.Linear(128, 600)  # not a multiple of the rows unpacked at a time
    nn.init.normal_(dense.weight, std=0.02)
    layer, x = Int8Linear(dense.weight.detach(), dense.bias), torch.randn(2, tokens, 128)[:1]
    with torch.no_grad():
        assert F.cosine_similarity(layer(x), dense(x), dim=-1).min() > 0.999


def test_many_tokens_are_multiplied_by_the_rounded_weight_exactly() -> None:
    layer, x = Int8Linear(torch.randn(600, 64)), torch.randn(FEW + 1, 64)
    torch.testing.assert_close(layer(x), x @ (layer.weight.float() * layer.scale.unsqueeze(1)).T)


def test_a_weight_is_rounded_to_the_nearest_of_255_levels_of_its_row() -> None:
    layer = Int8Linear(torch.tensor([[1.27, 0.504, -0.011], [0.0, 0.0, 0.0]]))
    assert layer.weight.tolist() == [[127, 50, -1], [0, 0, 0]]
    torch.testing.assert_close(layer.scale[:1], torch.tensor([0.01]))


def test_the_gradient_of_the_input_is_that_of_the_rounded_weight() -> None:
    layer = Int8Linear(torch.randn(600, 64))
    x = torch.randn(3, 64, requires_grad=True)
    layer(x).square().sum().backward()
    y = x.detach().clone().requires_grad_()
    (y @ (layer.weight.float() * layer.scale.unsqueeze(1)).T).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-3)
    assert layer.weight.grad is None


def test_a_language_model_in_int8_says_what_it_says_in_fp32(nf4: Path) -> None:
    fp32, eight = (load_language_model(nf4, True, cpu_weights=w) for w in ("fp32", "int8"))
    layers = [m for m in eight.modules() if isinstance(m, Int8Linear)]
    assert len(layers) == 2 * 7  # every linear layer of the language model, none of the vision tower, not lm_head
    assert type(eight.lm_head) is nn.Linear
    ids = torch.arange(1, 41).unsqueeze(0)  # 0 pads: its embedding is nothing
    with torch.no_grad():
        a, b = (m(input_ids=ids).logits for m in (fp32, eight))
    assert F.cosine_similarity(a, b, dim=-1).min() > 0.999


def test_nf4_is_gone_as_soon_as_its_successor_stands(nf4: Path) -> None:
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(nf4, dtype=torch.float32)
    layers = [m for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    packed = [weakref.ref(layer.weight) for layer in layers]
    del layers
    gone_before: list[int] = []

    def make(layer: bnb.nn.Linear4bit) -> Int8Linear:
        gone_before.append(sum(ref() is None for ref in packed))
        return int8(layer)

    gc.disable()  # it is not left to the collector, which may come late
    try:
        unpack(model, make)
        assert gone_before == list(range(2 * 7))
        assert all(ref() is None for ref in packed)
    finally:
        gc.enable()


def test_bytes_are_those_of_the_budget(nf4: Path, tiny_config: ModelConfig) -> None:
    model = load_language_model(nf4, True, cpu_weights="int8")
    held = memory.weight_bytes(tiny_config, memory.MemoryPlan("cpu", "int8", "fp32"))
    measured = held_bytes(model)
    assert measured == {part: held[part] for part in measured} and measured["language linears"] > 0


def test_lora_learns_on_int8_layers(nf4: Path, tiny_config: ModelConfig) -> None:
    model = add_lora(load_language_model(nf4, True, cpu_weights="int8").requires_grad_(False), tiny_config.reasoner)
    ids = torch.arange(40).unsqueeze(0)
    model(input_ids=ids, labels=ids).loss.backward()
    grads = [p.grad for n, p in model.named_parameters() if "lora_B" in n and p.requires_grad]
    assert grads and all(g is not None and g.abs().sum() > 0 for g in grads)


def test_a_checkpoint_may_ask_for_int8(tiny_model: SkinClipVL, tmp_path: Path) -> None:
    from skinclip.core.config import save_yaml

    save_model(tiny_model, tmp_path)
    reasoner = dataclasses.replace(tiny_model.config.reasoner, cpu_weights="int8")
    save_yaml(dataclasses.replace(tiny_model.config, reasoner=reasoner), tmp_path / "config.yaml")
    model = load_model(tmp_path)
    assert sum(isinstance(m, Int8Linear) for m in model.modules()) == 2 * 7


def test_other_ways_are_refused(nf4: Path) -> None:
    with pytest.raises(ValueError, match="fp32, int8, nf4"):
        load_language_model(nf4, True, cpu_weights="int3")


def test_nf4_layers_learn_after_an_evaluation_pass(tiny_model: SkinClipVL) -> None:
    """On CPUs with AVX512-BF16 bitsandbytes packs layers in eval mode, through which no gradient could flow."""
    model = load_language_model(str(tiny_model.base_dir), quantize=True, cpu_weights="nf4")
    layers = [layer for layer in model.modules() if isinstance(layer, bnb.nn.Linear4bit)]
    assert layers and not any(layer.support_avx512bf16_for_cpu for layer in layers)
    ids = torch.arange(1, 9).unsqueeze(0)
    with torch.no_grad():
        before = model(input_ids=ids).logits
    embeddings = model.get_input_embeddings()(ids).detach().requires_grad_()
    for mode in (model.train(), model.eval()):  # a training step, and an attribution
        mode(inputs_embeds=embeddings).logits.sum().backward()
    assert embeddings.grad is not None and embeddings.grad.isfinite().all() and embeddings.grad.abs().sum() > 0
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).logits, before)
