"""A Qwen2.5-VL with random weights, written as the hub lays it out, one shard in memory at a time."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessor

from skinclip.core.config import ModelConfig, PerceptionConfig, preset
from skinclip.model.memory import QwenShape, base_config
from skinclip.model.tokenizer import mini_tokenizer

SHARD_BYTES = 10**9
STD = 0.02  # of every matrix, as Qwen initialises them
INDEX = "model.safetensors.index.json"

# True architecture, smaller: what the budget is held against before it is believed at full size. The vision towers are
# cut to fewer layers, or they would be most of it.
SMALLER = {
    "0.3b": (QwenShape(896, 4864, 12, 7, 1, 50_000, tied=True), 4),
    "0.8b": (QwenShape(1280, 6912, 16, 10, 2, 100_000, tied=True), 8),
}
_VIT_B_16 = PerceptionConfig(model="ViT-B-16", image_size=224, levels=(2, 5, 8, 10), token_levels=(10,), flips=False)


def shape_config(name: str) -> Qwen2_5_VLConfig:
    """The language model's configuration of a preset or of one of `SMALLER`."""
    if name not in SMALLER:
        return base_config(preset(name))
    shape, depth = SMALLER[name]
    config = shape.config()
    config.vision_config.depth = depth
    config.vision_config.fullatt_block_indexes = [depth - 1]
    return config


def model_config(name: str, base: Path) -> ModelConfig:
    """The configuration of a preset (or of one of `SMALLER`, otherwise like qwen-3b) whose weights lie in `base`.

    CLIP has random weights too: its published ones are not at hand either.
    """
    config = preset("qwen-3b" if name in SMALLER else name)
    perception = _VIT_B_16 if name in SMALLER else replace(config.perception, pretrained=None)
    reasoner = replace(config.reasoner, base=str(base), revision=None)
    return replace(config, preset=name, perception=perception, reasoner=reasoner)


def random_weight(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """A parameter as Qwen initialises it, in bf16: norms one, biases zero, all else normal."""
    if "norm" in name or "ln_q" in name:
        return torch.ones(shape, dtype=torch.bfloat16)
    if name.endswith(".bias"):
        return torch.zeros(shape, dtype=torch.bfloat16)
    return torch.empty(shape).normal_(0.0, STD, generator=generator).bfloat16()


def write_base(config: Qwen2_5_VLConfig, folder: Path, seed: int = 0) -> None:
    """Writes config.json, bf16 shards of about a gigabyte and their index into `folder`.

    The tokenizer beside them is that of `mini`: what a token means does not matter to speed or memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config.architectures, config.dtype = ["Qwen2_5_VLForConditionalGeneration"], torch.bfloat16
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config)
    shapes = {name: p.shape for name, p in model.named_parameters()}  # a tied lm_head is not among them
    shards = _shards({name: 2 * math.prod(shape) for name, shape in shapes.items()})
    generator = torch.Generator().manual_seed(seed)
    where: dict[str, str] = {}
    for i, names in enumerate(shards):
        file = f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        weights = {name: random_weight(name, shapes[name], generator) for name in names}
        save_file(weights, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(names, file)
    total = sum(2 * math.prod(shape) for shape in shapes.values())
    mini_tokenizer().save_pretrained(folder)
    Qwen2VLImageProcessor().save_pretrained(folder)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=1))


def _shards(sizes: dict[str, int]) -> list[list[str]]:
    """Names in order, in groups of at most `SHARD_BYTES` (or of one)."""
    groups: list[list[str]] = [[]]
    held = 0
    for name, size in sizes.items():
        if groups[-1] and held + size > SHARD_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    return groups
