"""The memory that a preset needs, from its shapes alone: nothing is downloaded or loaded to find out.

The real classes are built on the meta device, so that what is counted is what will run. Notable:
- parameters by part, and the share of them that is trained;
- bytes by part for each way to hold the language layers (`WEIGHTS`), block for block as bitsandbytes stores them;
- the predicted peak of loading, of one Assessment, of a Grad-CAM map of it and of a training step with one photo, as a
  sum of named parts;
- `check_memory` refuses before anything is loaded, and names what would fit.

GB are 10^9 bytes. Predictions were held against measurements on a CPU (`eval_study/results/full_size/FULL_SIZE.md`);
those for a GPU are computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from skinclip.core.config import PRESETS, ModelConfig, preset
from skinclip.core.formatting import whole_percent
from skinclip.model.perception import Perception
from skinclip.model.qwen import add_lora, qwen_config
from skinclip.model.skinclip_vl import SkinClipVL, make_reasoner
from skinclip.model.tokenizer import mini_tokenizer

GB = 10**9
WIDTH = {"fp32": 4, "bf16": 2}  # bytes a number
WEIGHTS = ("nf4", "nf4-double", "int8", "bf16", "fp32")  # ways to hold the language model's linear layers
PURPOSES = ("load", "assess", "explain", "train")
PARTS = ("vision", "embeddings", "language linears", "language norms and biases", "lm_head", "lora", "clip", "heads")
TRAINED = ("lora", "heads")

# What a process holds before any weights: Python, torch and the libraries (measured), and on a GPU the CUDA context
# with the workspaces of cuBLAS and bitsandbytes (an allowance).
RUNTIME = {"cpu": int(1.0 * GB), "cuda": int(0.8 * GB)}
COMPARED = 13_000_000_000  # parameters of the models that the paper compares with


class TooLittleMemory(RuntimeError):
    """A preset needs more memory than is free; the message says how much, and what would fit."""


@dataclass(frozen=True)
class QwenShape:
    """The sizes that set one Qwen2.5-VL apart from another; the vision tower is the same in all but its last width.

    From the `config.json` that Qwen published beside the weights.
    """

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    vocab_size: int
    tied: bool

    def config(self) -> Qwen2_5_VLConfig:
        text = {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocab_size,
            "max_position_embeddings": 128_000,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "type": "default",
                "mrope_section": [16, 24, 24],
                "rope_theta": 1_000_000.0,
            },
            "tie_word_embeddings": self.tied,
        }
        vision = {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "out_hidden_size": self.hidden_size,
            "tokens_per_second": 2,
        }
        return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=self.tied)


PUBLISHED = {
    "Qwen/Qwen2.5-VL-3B-Instruct": QwenShape(2048, 11008, 36, 16, 2, 151_936, tied=True),
    "Qwen/Qwen2.5-VL-7B-Instruct": QwenShape(3584, 18944, 28, 28, 4, 152_064, tied=False),
}


def base_config(config: ModelConfig) -> Qwen2_5_VLConfig:
    """The configuration of a preset's language model: published, read from its directory, or made here.

    Raises ValueError for a base whose shapes are not known.
    """
    base = config.reasoner.base
    if base is None:
        return qwen_config(config.reasoner, mini_tokenizer())
    if base in PUBLISHED:
        return PUBLISHED[base].config()
    if (Path(base) / "config.json").exists():
        return Qwen2_5_VLConfig.from_pretrained(base)
    raise ValueError(f"the shapes of {base} are not known; give a directory with its config.json, or {list(PUBLISHED)}")


# ---- parameters ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inventory:
    """The shapes of all parameters, by part, and the shapes of the language model that activations follow from."""

    shapes: Mapping[str, tuple[tuple[int, ...], ...]]
    base: Any  # Qwen2_5_VLConfig

    def parameters(self, *parts: str) -> int:
        """Their number in these parts, or in all."""
        return sum(math.prod(shape) for part in parts or PARTS for shape in self.shapes[part])

    @property
    def trained_share(self) -> float:
        return self.parameters(*TRAINED) / self.parameters()


def part_of(name: str, dimensions: int) -> str:
    """The part that a parameter of `SkinClipVL` belongs to."""
    if name.startswith("perception."):
        return "clip"
    if not name.startswith("reasoner.language_model."):
        return "heads"
    inside = {"lora_": "lora", ".visual.": "vision", "embed_tokens": "embeddings", "lm_head": "lm_head"}
    for mark, part in inside.items():
        if mark in name:
            return part
    return "language linears" if dimensions == 2 else "language norms and biases"


@lru_cache(maxsize=16)
def inventory(config: ModelConfig) -> Inventory:
    """Counts the whole model of `config`, built of the real classes on the meta device. Raises as `base_config`."""
    base = base_config(config)
    with torch.device("meta"):
        perception = Perception(replace(config.perception, pretrained=None))
        language_model = Qwen2_5_VLForConditionalGeneration(base).requires_grad_(False)
        adapted = add_lora(language_model, config.reasoner)
        reasoner = make_reasoner(config, adapted, mini_tokenizer(), perception)
        model = SkinClipVL(config, perception, reasoner, None)
    shapes: dict[str, list[tuple[int, ...]]] = {part: [] for part in PARTS}
    for name, parameter in model.named_parameters():  # a tied lm_head is named once, as the embeddings
        shapes[part_of(name, parameter.ndim)].append(tuple(parameter.shape))
    return Inventory(MappingProxyType({part: tuple(sizes) for part, sizes in shapes.items()}), base)


def count_statement(config: ModelConfig) -> str:
    """The count of all parameters in a sentence, beside the 13 billion of the paper's comparison."""
    counted = inventory(config)
    total, trained = counted.parameters(), counted.parameters(*TRAINED)
    fewer = whole_percent(1 - total / COMPARED)
    number = f"{total / 1e9:.2f} billion" if total >= 1e9 else f"{total / 1e6:.1f} million"
    return (
        f"{config.preset}: {number} parameters, {fewer} fewer than 13 billion "
        f"(the paper's 43\N{NO-BREAK SPACE}% is its own count); "
        f"{trained / 1e6:.1f} million of them trained, {counted.trained_share:.2%}"
    )


# ---- bytes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MemoryPlan:
    """The number formats of a model in memory.

    Attributes:
        device: "cuda" or "cpu".
        weights: the language model's linear layers, one of `WEIGHTS`.
        rest: what else Qwen has (vision tower, embeddings, norms, lm_head), a key of `WIDTH`. LoRA, heads and CLIP are
            always fp32.
    """

    device: str
    weights: str
    rest: str


def plan_for(config: ModelConfig, device: str) -> MemoryPlan:
    """The number formats in which `load_language_model` holds the preset on `device`."""
    if device == "cpu":
        weights = config.reasoner.cpu_weights if config.reasoner.quantize else "fp32"
        return MemoryPlan("cpu", weights, "fp32")
    return MemoryPlan("cuda", "nf4" if config.reasoner.quantize else "bf16", "bf16")


def matrix_bytes(shape: tuple[int, ...], weights: str) -> int:
    """Bytes of one linear layer's weight [out, in] as it is held, scales and code tables included."""
    n = math.prod(shape)
    if weights in WIDTH:
        return n * WIDTH[weights]
    if weights == "int8":
        return n + 4 * shape[0]  # one fp32 scale per row
    packed, blocks, code = math.ceil(n / 2), math.ceil(n / 64), 16 * 4
    if weights == "nf4":
        return packed + 4 * blocks + code
    if weights == "nf4-double":  # scales in 8 bits themselves, in blocks of 256, with their mean and code table
        return packed + blocks + 4 * math.ceil(blocks / 256) + 4 + 256 * 4 + code
    raise ValueError(f"no way to hold weights is called {weights!r}; choose one of {', '.join(WEIGHTS)}")


def weight_bytes(config: ModelConfig, plan: MemoryPlan) -> dict[str, int]:
    """Bytes of each part's weights."""
    counted = inventory(config)
    held = {part: counted.parameters(part) * WIDTH[plan.rest] for part in PARTS}
    held |= {part: counted.parameters(part) * WIDTH["fp32"] for part in ("lora", "clip", "heads")}
    held["language linears"] = sum(matrix_bytes(shape, plan.weights) for shape in counted.shapes["language linears"])
    return held


# ---- peaks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workload:
    """One photo's sequence.

    Attributes:
        prompt: tokens read before the answer, Qwen's own and CLIP's photo tokens among them.
        written: tokens of the rationale, generated or learnt.
        own_side: pixels at which Qwen's vision tower reads the photo, 0 without one.
    """

    prompt: int
    written: int
    own_side: int

    @property
    def length(self) -> int:
        return self.prompt + self.written


TEXT_TOKENS = 200  # chat frame, patient context, up to nine findings and the differential


def workload(config: ModelConfig) -> Workload:
    """The longest sequence of a preset's Assessment."""
    own_side = config.reasoner.own_side if config.reasoner.own_vision else 0
    photo = (own_side // 28) ** 2 + config.reasoner.clip_grid**2
    return Workload(photo + 1 + len(config.known.states) + TEXT_TOKENS, config.reasoner.max_new_tokens, own_side)


@dataclass(frozen=True)
class PredictedPeak:
    """A predicted peak, by what it is made of; `total` in bytes."""

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def gb(self) -> float:
        return self.total / GB


def predict(config: ModelConfig, plan: MemoryPlan, purpose: str, work: Workload | None = None) -> PredictedPeak:
    """The peak of `purpose` under `plan`: "load", "assess", "explain" (Grad-CAM), or "train" with one photo per step.

    Raises ValueError for an unknown purpose.
    """
    if purpose not in PURPOSES:
        raise ValueError(f"no purpose {purpose!r}; choose one of {', '.join(PURPOSES)}")
    counted, work = inventory(config), work or workload(config)
    parts = {"runtime": RUNTIME[plan.device], **weight_bytes(config, plan)}
    more: dict[str, Callable[[], dict[str, int]]] = {
        "load": lambda: {"while loading": loading_bytes(counted, plan)},
        "assess": lambda: assessing_bytes(counted, plan, work),
        "explain": lambda: {"activations": backward_bytes(counted, plan, work.prompt)},
        "train": lambda: training_bytes(counted, plan, work),
    }
    return PredictedPeak(parts | more[purpose]())


def loading_bytes(counted: Inventory, plan: MemoryPlan) -> int:
    """Bytes that loading holds beside the weights: one layer's weight before it is packed, and where NF4 is turned into
    something else, once more. Tables and other tensors are read straight into the number format they end up in."""
    matrix = max(map(math.prod, counted.shapes["language linears"]))
    return matrix * (2 * WIDTH["fp32"] if plan.device == "cpu" else WIDTH["bf16"])


def assessing_bytes(counted: Inventory, plan: MemoryPlan, work: Workload) -> dict[str, int]:
    """Keys and values of the whole sequence, and the largest of what the two towers hold at once."""
    text, width = counted.base.text_config, WIDTH[plan.rest]
    head = text.hidden_size // text.num_attention_heads
    cache = 2 * text.num_hidden_layers * text.num_key_value_heads * head * work.length * width
    prefill = layer_bytes(text.hidden_size, text.intermediate_size, work.prompt, width)
    vision = counted.base.vision_config
    own = layer_bytes(vision.hidden_size, vision.intermediate_size, (work.own_side // 14) ** 2, width)
    logits = 3 * 4 * text.vocab_size  # of one token, and two copies under the rules of decoding
    return {"key-value cache": cache, "activations": max(prefill, own) + unpacked_bytes(counted, plan) + logits}


def layer_bytes(hidden: int, intermediate: int, tokens: int, width: int) -> int:
    """Bytes that a gated transformer layer holds at its widest point: gate, up and their product, and the residual
    stream with its norm, which is computed in fp32."""
    return tokens * (3 * intermediate * width + 2 * hidden * width + 2 * hidden * 4)


def unpacked_bytes(counted: Inventory, plan: MemoryPlan) -> int:
    """The largest weight as a matrix of numbers: NF4 layers are unpacked when they are used."""
    if not plan.weights.startswith("nf4"):
        return 0
    return max(map(math.prod, counted.shapes["language linears"])) * WIDTH[plan.rest]


def training_bytes(counted: Inventory, plan: MemoryPlan, work: Workload) -> dict[str, int]:
    """Gradients and AdamW's two averages in fp32, checkpointed activations, and logits where a rationale is learnt."""
    text, width, trained = counted.base.text_config, WIDTH[plan.rest], counted.parameters(*TRAINED)
    # logits as they come, in fp32, their softmax and the gradient of each
    logits = work.written * text.vocab_size * (2 * width + 3 * 4)
    return {
        "gradients": 4 * trained,
        "AdamW": 8 * trained,
        "activations": backward_bytes(counted, plan, work.length, logits),
    }


def backward_bytes(counted: Inventory, plan: MemoryPlan, tokens: int, logits: int = 0) -> int:
    """Bytes that a backward pass through checkpointed layers holds: the input of each, and the widest of one layer
    computed again and `logits`."""
    text, width = counted.base.text_config, WIDTH[plan.rest]
    checkpoints = text.num_hidden_layers * tokens * text.hidden_size * width
    # one layer is computed again with all that its backward needs: of the gated part gate, its activation, up, product,
    # what LoRA reads of them in fp32, and as much again in gradients
    wide = text.intermediate_size * (8 * width + 3 * 4)
    narrow = text.hidden_size * (10 * width + 8 * 4)
    layer = tokens * (wide + narrow) + 2 * unpacked_bytes(counted, plan)
    return checkpoints + max(layer, logits)


# ---- before loading --------------------------------------------------------------------------------------------------


def free_bytes(device: str) -> int:
    """Memory that a process can still take: of the GPU, or of the machine within its container's limit."""
    if device != "cpu":
        return torch.cuda.mem_get_info()[0]
    return min(psutil.virtual_memory().available, container_bytes(Path("/sys/fs/cgroup")))


def container_bytes(root: Path) -> float:
    """Bytes that a container's limit (cgroup version 2) leaves free; infinite without one."""
    try:
        limit, used = ((root / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return math.inf if limit == "max" else max(int(limit) - int(used), 0)
    except (OSError, ValueError):
        return math.inf


def check_memory(name: str, device: str, purpose: str, config: ModelConfig | None = None) -> PredictedPeak:
    """The predicted peak of a preset, where there is memory for it.

    Args:
        name: of the preset.
        device: "cpu" or "cuda".
        purpose: one of `PURPOSES`.
        config: the checkpoint's own configuration, where it may differ from the preset's.

    Raises TooLittleMemory saying what is needed, what is free and what would fit.
    """
    config = config or preset(name)
    free, plan = free_bytes(device), plan_for(config, device)
    peak = predict(config, plan, purpose)
    if peak.total <= free:
        return peak
    raise TooLittleMemory(
        f"{name} needs about {peak.gb:.1f} GB of {'memory' if device == 'cpu' else 'GPU memory'} to {purpose}, "
        f"{free / GB:.1f} GB are free. {remedy(config, plan, purpose, free)}"
    )


def check_merge(config: ModelConfig) -> None:
    """Raises TooLittleMemory where a base in 16 bit, into which LoRA is to be merged, does not fit."""
    counted = inventory(config)
    matrix = max(map(math.prod, counted.shapes["language linears"]))  # a layer's LoRA product and the check of it
    base = counted.parameters("vision", "embeddings", "language linears", "language norms and biases", "lm_head")
    others = WIDTH["fp32"] * counted.parameters("clip", "lora")
    needed = RUNTIME["cpu"] + base * WIDTH["bf16"] + others + 3 * matrix * WIDTH["fp32"]
    if needed > (free := free_bytes("cpu")):
        raise TooLittleMemory(
            f"merging needs about {needed / GB:.1f} GB of memory, {free / GB:.1f} GB are free; close other programs, "
            "or use the adapter as it is: it needs no merging to be served"
        )


def remedy(config: ModelConfig, plan: MemoryPlan, purpose: str, free: int) -> str:
    """Words for what would fit into `free` bytes: the same preset held smaller, else the largest other one."""
    if plan.device == "cpu" and plan.weights == "fp32" and config.reasoner.quantize:
        smaller = predict(config, replace(plan, weights="int8"), purpose)
        if smaller.total <= free:
            return f"With `cpu_weights: int8` in its config.yaml it needs {smaller.gb:.1f} GB."
    peaks = {n: predict(c, plan_for(c, plan.device), purpose) for n, c in PRESETS.items() if n != config.preset}
    fitting = {name: peak for name, peak in peaks.items() if peak.total <= free}
    if not fitting:
        return "No preset fits: close other programs, or use a larger machine."
    name = max(fitting, key=lambda n: fitting[n].total)
    return f"The preset {name} fits ({fitting[name].gb:.1f} GB): --preset {name}."
