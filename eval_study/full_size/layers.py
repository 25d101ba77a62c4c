"""Decoder layers of a preset's true shape, held in each way: time, and how near their outputs stay to the dense ones.

The weights are random, so nothing in them is easy to round; what real ones have beside that are outliers, channels of
activations many times larger than the others (Dettmers et al. 2022, arXiv 2208.07339). So each way is also held against
activations with some: 8 bits for the activations themselves lose there what they gain in speed.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import bitsandbytes as bnb
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen

from eval_study.full_size.base import STD, shape_config
from skinclip.model.int8 import Int8Linear

OUTLIERS = (6, 20.0)  # this many channels, this many times as large
GROUP = 32  # weights that share a scale and a zero in torch's 4-bit kernel
Way = Callable[[nn.Linear], nn.Module]


class Called(nn.Module):
    """A module made of a function."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        """Result of the wrapped function."""
        return self.call(x)


def nf4(layer: nn.Linear, double: bool = False) -> bnb.nn.Linear4bit:
    """bitsandbytes' NF4, on a CPU."""
    held = bnb.nn.Linear4bit(
        layer.in_features,
        layer.out_features,
        layer.bias is not None,
        torch.float32,
        compress_statistics=double,
        quant_type="nf4",
    )
    held.weight = bnb.nn.Params4bit(layer.weight.data, False, compress_statistics=double, quant_type="nf4").to("cpu")
    if layer.bias is not None:
        held.bias = nn.Parameter(layer.bias.data, requires_grad=False)
    return held


def unpacked(layer: nn.Linear, double: bool = False) -> nn.Linear:
    """The numbers of NF4 in fp32: what `cpu_weights: fp32` holds."""
    packed: Any = nf4(layer, double).weight
    held = copy.deepcopy(layer)
    held.weight.data = bnb.functional.dequantize_4bit(packed.data, packed.quant_state)
    return held


def int8_of_nf4(layer: nn.Linear) -> Int8Linear:
    """Int8 of weights that were rounded to NF4 before."""
    return Int8Linear(unpacked(layer).weight.data, layer.bias)


def bf16(layer: nn.Linear) -> nn.Module:
    """Weights and products in bfloat16, float32 outside."""
    held = copy.deepcopy(layer).bfloat16()
    return Called(lambda x: held(x.bfloat16()).float())


def int4(layer: nn.Linear) -> nn.Module:
    """torch's kernel for 4-bit weights: 16 equal steps between the least and the greatest of each group."""
    groups = layer.weight.data.unflatten(1, (-1, GROUP))
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    step = ((high - low) / 15).clamp_min(1e-9)
    levels = ((groups - low) / step).round().clamp(0, 15).to(torch.int32).flatten(1)
    scales = torch.stack([step[..., 0], (low + 8 * step)[..., 0]], -1).transpose(0, 1).contiguous().bfloat16()
    packed = torch._convert_weight_to_int4pack_for_cpu(levels, 1)

    def call(x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).bfloat16()
        out = torch._weight_int4pack_mm_for_cpu(rows, packed, GROUP, scales).float().view(*x.shape[:-1], -1)
        return out if layer.bias is None else out + layer.bias

    return Called(call)


def int8_activations(layer: nn.Linear) -> nn.Module:
    """torch's kernel for 8-bit weights *and* activations, one scale for all activations of a call (fbgemm)."""
    weight = layer.weight.data
    scale = (weight.abs().amax(1) / 127).double()
    rounded = torch.quantize_per_channel(weight, scale, torch.zeros_like(scale).long(), 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(rounded, layer.bias)
    return Called(lambda x: torch.ops.quantized.linear_dynamic(x, packed, True))


def torchao(settings: str) -> Way:
    """A way of torchao's, by the name of its configuration. Raises ImportError without torchao."""
    from torchao import quantization

    def way(layer: nn.Linear) -> nn.Module:
        held = nn.Sequential(copy.deepcopy(layer))
        quantization.quantize_(held, getattr(quantization, settings)())
        return held

    return way


def ways() -> dict[str, Way | str]:
    """All ways that are measured; in place of one that cannot be had here, the reason."""
    by_name: dict[str, Way | str] = {
        "fp32": copy.deepcopy,
        "bf16": bf16,
        "NF4 unpacked to fp32 (`cpu_weights: fp32`)": unpacked,
        "NF4, scales quantized too, unpacked to fp32": lambda layer: unpacked(layer, double=True),
        "NF4 as stored, evaluation (`cpu_weights: nf4`)": lambda layer: nf4(layer).eval(),
        "NF4 as stored, training": nf4,
        "int8 of NF4 (`cpu_weights: int8`)": int8_of_nf4,
        "int8 of fp32": lambda layer: Int8Linear(layer.weight.data, layer.bias),
        "int4, torch's kernel": int4,
        "int8 weights and activations (fbgemm)": int8_activations,
    }
    for name, settings in {
        "torchao int8 weight-only": "Int8WeightOnlyConfig",
        "torchao int8 dynamic": "Int8DynamicActivationInt8WeightConfig",
        "torchao int4 weight-only": "Int4WeightOnlyConfig",
    }.items():
        try:
            by_name[name] = torchao(settings)
        except ImportError:
            by_name[name] = "torchao is not installed"
    return by_name


# ---- one decoder layer -----------------------------------------------------------------------------------------------


def decoder_layer(preset: str) -> tuple[Any, Any]:
    """A decoder layer with random weights, and the configuration it was made of."""
    config = shape_config(preset).text_config
    config._attn_implementation = "sdpa"
    layer = qwen.Qwen2_5_VLDecoderLayer(config, 0).requires_grad_(False).eval()
    for name, parameter in layer.named_parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=STD)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return layer, config


def held(layer: Any, way: Way) -> Any:
    """The layer with its linear layers held in another way."""
    other = copy.deepcopy(layer)
    for name, linear in layer.named_modules():
        if isinstance(linear, nn.Linear):
            other.set_submodule(name, way(linear))
    return other


def run(layer: nn.Module, config: Any, hidden: Tensor) -> Tensor:
    """The addition of the layer to the residual stream `hidden` [1, L, H]: stricter to compare than the sum."""
    places = torch.arange(hidden.shape[1]).expand(3, 1, -1)
    rotary = qwen.Qwen2_5_VLRotaryEmbedding(config)(hidden, places)
    out = layer(hidden, position_embeddings=rotary, attention_mask=None)
    return (out[0] if isinstance(out, tuple) else out) - hidden


def activations(tokens: int, width: int, outliers: bool) -> Tensor:
    """[1, tokens, width] standard normal; with outliers, some channels are many times as large."""
    hidden = torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(1))
    if outliers:
        channels, times = OUTLIERS
        hidden[..., :channels] *= times
    return hidden


@torch.inference_mode()
def measure(preset: str, prompt: int = 350, repeats: int = 3) -> dict[str, Any]:
    """Each way's times for one token and for the prompt, and its mean cosines with the dense layer.

    `cosine` is that of what the layer adds to the residual stream, `cosine_outliers` the same where activations have
    outliers, `cosine_output` that of the stream itself, `cosine_linear` of the gate projection alone.
    """
    torch.manual_seed(0)
    layer, config = decoder_layer(preset)
    plain, uneven = (activations(prompt, config.hidden_size, outliers) for outliers in (False, True))
    dense, dense_uneven = (run(layer, config, hidden) for hidden in (plain, uneven))
    figures: dict[str, Any] = {}
    for name, way in ways().items():
        if isinstance(way, str):
            figures[name] = {"not_measured": way}
            continue
        try:
            other = held(layer, way)
            figures[name] = timed(other, config, plain, repeats) | {
                "cosine": cosine(run(other, config, plain), dense),
                "cosine_outliers": cosine(run(other, config, uneven), dense_uneven),
                "cosine_output": cosine(run(other, config, plain) + plain, dense + plain),
                "cosine_linear": cosine(other.mlp.gate_proj(plain), layer.mlp.gate_proj(plain)),
            }
        except (RuntimeError, ImportError, AssertionError) as error:  # a kernel that this machine does not have
            figures[name] = {"not_measured": str(error).splitlines()[0][:160]}
    return {"prompt": prompt, "load": round(os.getloadavg()[0], 2), "ways": figures}


def cosine(a: Tensor, b: Tensor) -> float:
    """Mean over positions [..., L, H]."""
    return F.cosine_similarity(a.float(), b.float(), dim=-1).mean().item()


def timed(layer: nn.Module, config: Any, hidden: Tensor, repeats: int) -> dict[str, float]:
    """Milliseconds of processor time, for one token and for the prompt: the least of some runs."""
    times = {}
    for key, x, runs in (("decode_ms", hidden[:, :1], 4 * repeats), ("prefill_ms", hidden, repeats)):
        run(layer, config, x)
        taken = []
        for _ in range(runs):
            start = time.process_time()
            run(layer, config, x)
            taken.append(time.process_time() - start)
        times[key] = 1000 * min(taken)
    return times


if __name__ == "__main__":
    torch.set_num_threads(1)  # times of one core: those of several depend on what else the machine does
    print(json.dumps(measure(sys.argv[1])))
