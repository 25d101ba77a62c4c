"""Linear layers whose weight is held in 8 bits on a CPU: a quarter of fp32's memory, and half its time per token.

Weight-only: activations stay in floating point, because those of real language models have outliers that 8 bits for a
whole tensor would drown the rest under. A few tokens (decoding) are multiplied by torch's kernel for 8-bit weights;
more of them (the prompt, training) by fp32 matrix products over pieces of the weight that are unpacked into one small
buffer and stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bitsandbytes as bnb
import torch
from torch import Tensor, nn

FEW = 32  # tokens up to which the 8-bit kernel is faster than unpacking
ROWS = 256  # of the weight, unpacked at a time


class Int8Linear(nn.Linear):
    """`nn.Linear` with an int8 weight [out, in] and one fp32 scale per row; inputs and outputs fp32.

    A subclass, so that peft wraps it as it wraps any linear layer. The weight is frozen; gradients reach the input.
    """

    scale: Tensor
    ones: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """
        Args:
            weight: [out, in], floating point.
            bias: [out].
        """
        out_features, in_features = weight.shape
        super().__init__(in_features, out_features, bias=False, device="meta")
        scale = weight.abs().amax(1).clamp_min(1e-12) / 127
        rounded = (weight / scale.unsqueeze(1)).round_().to(torch.int8)
        self.weight = nn.Parameter(rounded, requires_grad=False)
        if bias is not None:
            self.bias = nn.Parameter(bias.detach(), requires_grad=False)
        self.register_buffer("scale", scale)
        # the kernel would round our scales to bf16, an error that all of a row has in common; it gets ones instead
        self.register_buffer("ones", torch.ones(out_features, dtype=torch.bfloat16), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        rows = x.reshape(-1, self.in_features)
        if len(rows) <= FEW and not x.requires_grad:
            out = torch._weight_int8pack_mm(rows.bfloat16(), self.weight, self.ones).float() * self.scale
        else:
            out = _Unpacked.apply(rows, self.weight, self.scale)
        if self.bias is not None:
            out = out + self.bias
        return out.view(*x.shape[:-1], self.out_features)


class _Unpacked(torch.autograd.Function):
    """x [M, in] times an int8 weight [out, in] and its scales [out], without ever holding the weight in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(weight, scale)
        out = x.new_empty(len(x), len(weight))
        buffer = x.new_empty(min(ROWS, len(weight)), weight.shape[1])
        for start in range(0, len(weight), ROWS):
            piece = buffer[: len(weight) - start].copy_(weight[start : start + ROWS])
            out[:, start : start + ROWS] = x @ piece.T
        return out.mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        weight, scale = ctx.saved_tensors
        scaled = grads[0] * scale
        buffer = scaled.new_empty(min(ROWS, len(weight)), weight.shape[1])
        out = scaled.new_zeros(len(scaled), weight.shape[1])
        for start in range(0, len(weight), ROWS):
            piece = buffer[: len(weight) - start].copy_(weight[start : start + ROWS])
            out.addmm_(scaled[:, start : start + ROWS], piece)
        return out, None, None


def int8(layer: bnb.nn.Linear4bit) -> Int8Linear:
    """An NF4 layer rounded to 8 bits."""
    return Int8Linear(unpacked(layer), layer.bias)


def dense(layer: bnb.nn.Linear4bit) -> nn.Linear:
    """An NF4 layer's own numbers as an fp32 layer."""
    out = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    out.weight = nn.Parameter(unpacked(layer), requires_grad=False)
    if layer.bias is not None:
        out.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)
    return out


def unpacked(layer: bnb.nn.Linear4bit) -> Tensor:
    """[out, in] fp32, the weight that an NF4 layer stands for."""
    packed: Any = layer.weight
    return bnb.functional.dequantize_4bit(packed.data, packed.quant_state).float()


def unpack(model: Any, make: Callable[[bnb.nn.Linear4bit], nn.Linear]) -> Any:
    """`model` (a transformers model loaded in NF4) with another layer in place of each of its NF4 layers.

    One after another, and each is let go as soon as its successor stands: transformers' own `dequantize` holds all of
    NF4 beside all of fp32.
    """
    for name in [name for name, layer in model.named_modules() if isinstance(layer, bnb.nn.Linear4bit)]:
        layer: Any = model.get_submodule(name)
        model.set_submodule(name, make(layer))
        del layer.weight  # which knows its layer: left alone, the two would keep each other in memory
    model.hf_quantizer.remove_quantization_config(model)
    return model
