"""Qwen2.5-VL: its configuration, loading, NF4 quantization and LoRA layers; the reasoner is built around it.

Notable: on a CPU the NF4 weights are dequantized once at load, the same numbers without dequantizing at every step.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from transformers import (
    BitsAndBytesConfig,
    PreTrainedTokenizerBase,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from skinclip.core.config import ReasonerConfig
from skinclip.language.prompt import END_TOKEN, token_id
from skinclip.model.int8 import dense, int8, unpack

# What quantization must leave alone. Plain "visual" would not protect the vision tower.
UNQUANTIZED = ["model.visual", "lm_head"]
ADAPTER = "default"  # what peft calls the first LoRA layers of a model
# What a CPU may make of layers that were loaded in NF4.
CPU_WEIGHTS: dict[str, Callable[[Any], Any]] = {
    "fp32": lambda model: unpack(model, dense),
    "int8": lambda model: unpack(model, int8),
    "nf4": lambda model: without_packing(model),
}


def qwen_config(config: ReasonerConfig, tokenizer: PreTrainedTokenizerBase) -> Qwen2_5_VLConfig:
    """The configuration of a Qwen2.5-VL made here: the true class in a small shape, with a token vision tower."""
    shape = config.architecture
    text = {
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 1024,
        "rope_parameters": {
            "rope_type": "default",
            "type": "default",
            "mrope_section": list(shape.mrope_section),
            "rope_theta": 10_000.0,
        },
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": token_id(tokenizer, END_TOKEN),
        "pad_token_id": tokenizer.pad_token_id,
    }
    # The mini preset has no use for Qwen's own vision tower; the class wants one, so it gets the smallest.
    vision = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": shape.hidden_size,
    }
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=token_id(tokenizer, "<|image_pad|>"),
        video_token_id=token_id(tokenizer, "<|video_pad|>"),
        vision_start_token_id=token_id(tokenizer, "<|vision_start|>"),
        vision_end_token_id=token_id(tokenizer, "<|vision_end|>"),
        tie_word_embeddings=True,
    )


def quantization(compute_dtype: torch.dtype = torch.float32, storage: torch.dtype = torch.uint8) -> BitsAndBytesConfig:
    """NF4 for the language layers.

    Args:
        storage: the type that the packed bits are called; FSDP shares out floating-point weights only.
    """
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_quant_storage=storage,
        llm_int8_skip_modules=UNQUANTIZED,
    )


def load_language_model(
    source: str | Path,
    quantize: bool,
    revision: str | None = None,
    device: str = "cpu",
    shared_out: bool = False,
    cpu_weights: str = "fp32",
) -> Qwen2_5_VLForConditionalGeneration:
    """Qwen2.5-VL from a directory or hub id, in NF4 when `quantize` (or when the directory holds it so).

    Args:
        shared_out: FSDP is to share it out among processes.
        cpu_weights: what a CPU makes of the NF4 layers at load, so that decoding does not unpack them at every step:
            "fp32" the same numbers dequantized, "int8" those rounded to 8 bits per row, or "nf4" to leave them.

    Raises ValueError for other `cpu_weights`.
    """
    if cpu_weights not in CPU_WEIGHTS:
        raise ValueError(f"cpu_weights must be one of {', '.join(CPU_WEIGHTS)}, got {cpu_weights!r}")
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    storage = dtype if shared_out else torch.uint8
    stored = Qwen2_5_VLConfig.from_pretrained(source, revision=revision or "main")
    already = getattr(stored, "quantization_config", None) is not None
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        source,
        revision=revision or "main",
        dtype=dtype,
        device_map={"": device},
        quantization_config=quantization(dtype, storage) if quantize and not already else None,
    )
    if (quantize or already) and device == "cpu":
        model = CPU_WEIGHTS[cpu_weights](model)
    return model.eval()


def without_packing(model: Any) -> Any:
    """`model` with NF4 layers that keep one layout of their bits.

    On CPUs with AVX512-BF16, bitsandbytes packs a layer anew at its first pass in eval mode, and cannot differentiate
    through the packed form: a training step or a Grad-CAM after an evaluation would fail.
    """
    for layer in model.modules():
        if isinstance(layer, bnb.nn.Linear4bit):
            layer.support_avx512bf16_for_cpu = False
    return model


def quantize_to(model: Qwen2_5_VLForConditionalGeneration, out: Path) -> None:
    """Writes `model` to the directory `out` with its language layers in NF4."""
    dense = out.with_name(out.name + "-dense")
    model.save_pretrained(dense)
    quantized = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        dense, dtype=torch.float32, device_map={"": "cpu"}, quantization_config=quantization()
    )
    quantized.save_pretrained(out)
    shutil.rmtree(dense)


def add_lora(model: Qwen2_5_VLForConditionalGeneration, config: ReasonerConfig) -> Any:
    """`model` with fresh LoRA layers on its language layers; all else frozen. Itself where the config has rank 0."""
    if not config.lora.r:
        return model
    with warnings.catch_warnings():  # peft asks transformers for an attribute under its old name
        warnings.simplefilter("ignore", FutureWarning)
        return get_peft_model(model, lora_settings(config))


def lora_settings(config: ReasonerConfig) -> PeftLoraConfig:
    lora = config.lora
    return PeftLoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
