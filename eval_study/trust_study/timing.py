"""Times of submits, as the load tests report them."""

from __future__ import annotations

from collections.abc import Sequence


def times(seconds: Sequence[float], wall: float) -> dict[str, float | int]:
    """Count and rate of the submits, their median, 95th percentile and maximum in milliseconds."""
    milliseconds = sorted(1000 * one for one in seconds)
    return {
        "submits": len(milliseconds),
        "wall_s": round(wall, 2),
        "submits_per_s": round(len(milliseconds) / wall, 1),
        "p50_ms": round(milliseconds[len(milliseconds) // 2], 1),
        "p95_ms": round(milliseconds[int(0.95 * len(milliseconds))], 1),
        "max_ms": round(milliseconds[-1], 1),
    }
