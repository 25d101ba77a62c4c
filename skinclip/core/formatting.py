"""Numbers as text, written alike wherever a reader meets them."""

from __future__ import annotations


def percent(p: float) -> str:
    """A probability as a clinician reads it: never a rounded 0 % or 100 %."""
    if p < 0.001:
        return "<0.1%"
    if p > 0.999:
        return ">99.9%"
    return f"{100 * p:.1f}%" if p < 0.1 or p > 0.9 else f"{100 * p:.0f}%"


def whole_percent(p: float) -> str:
    """A probability without decimals, and never a rounded 0 % or 100 %."""
    return "<1%" if p < 0.01 else ">99%" if p > 0.99 else f"{p:.0%}"
