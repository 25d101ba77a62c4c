"""Helpers shared by the parts of the CFA loss: missing labels, means of empty batches, precision and shape checks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

MISSING = -1  # the label of a photo that has none


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def shape_of(tensor: Tensor) -> list[int]:
    return list(tensor.shape)


def mean(losses: Tensor) -> Tensor:
    """The mean of all losses; 0 where there are none, still connected to the gradient graph."""
    return losses.sum() / max(losses.numel(), 1)


def full(x: Tensor) -> Tensor:
    """`x` in float32 at least: bfloat16 would round away small divergences and sums over a grid."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def rows(mask: Tensor | None, like: Tensor) -> Tensor:
    """The mask [B] of the rows of `like`, all true for None. Raises ValueError for another shape or type."""
    if mask is None:
        return torch.ones(len(like), dtype=torch.bool, device=like.device)
    ok = mask.dtype == torch.bool and mask.shape == like.shape[:1]
    require(ok, f"a mask must be bool [{len(like)}], got {mask.dtype} {shape_of(mask)}")
    return mask


def check_target(target: Tensor, logits_shape: Sequence[int]) -> None:
    """Raises ValueError unless target is integers [B] in -1..C-1, for logits [B, C]."""
    require(len(logits_shape) == 2, f"logits must be [B, C], got {list(logits_shape)}")
    n, n_classes = logits_shape
    ok = target.shape == (n,) and not target.is_floating_point()
    require(ok, f"target must be integers [{n}], got {target.dtype} {shape_of(target)}")
    wrong = target[(target < MISSING) | (target >= n_classes)]
    require(len(wrong) == 0, f"labels must lie in -1 (missing) to {n_classes - 1}, got {wrong.tolist()}")


def pair(**tensors: object | None) -> bool:
    """True where all tensors are given, False where none is. Raises ValueError where only some are."""
    missing = [name for name, tensor in tensors.items() if tensor is None]
    require(len(missing) in (0, len(tensors)), f"{', '.join(tensors)} go together; {', '.join(missing)} is missing")
    return not missing


def with_sum(parts: dict[str, Tensor], weights: dict[str, float], name: str) -> dict[str, Tensor]:
    """`parts` and, under `name`, the weighted sum of those with a weight; only `parts` where none has one."""
    terms = [weights[part] * value for part, value in parts.items() if part in weights]
    return parts | {name: sum(terms[1:], terms[0])} if terms else parts
