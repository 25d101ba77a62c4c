"""Learning-rate schedules."""

from __future__ import annotations

import numpy as np


def cosine(step: int, total: int, warmup: int) -> float:
    """Learning-rate factor: linear warm-up, then half a cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + np.cos(np.pi * (step - warmup) / max(1, total - warmup)))
