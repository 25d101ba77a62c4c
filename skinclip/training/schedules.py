"""Learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch.optim.lr_scheduler import LambdaLR


def cosine(step: int, total: int, warmup: int) -> float:
    """Learning-rate factor: linear warm-up, then half a cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def cosine_schedule(optimizer: Any, peaks: Sequence[float], total: int, warmup: int, first: int = 0) -> LambdaLR:
    """The rates of an optimizer's parameter groups under `cosine`, about to take step number `first`.

    Args:
        optimizer: one of torch, or as Accelerate prepared it.
        peaks: highest rate of each group.
        total: steps of the whole training.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    for group, peak in zip(inner.param_groups, peaks, strict=True):
        group["lr"] = group["initial_lr"] = peak
    return LambdaLR(inner, partial(cosine, total=total, warmup=warmup), last_epoch=first - 1)
