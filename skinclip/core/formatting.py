"""Numbers as text, written alike wherever a reader meets them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MISSING = "–"  # where there is no figure
Figure = Mapping[str, Any] | None  # {"value", "low", "high"}, low and high None where there is no interval


def per_cent(share: float, digits: int = 0) -> str:
    """A share of 1 as "84 %", everywhere with a no-break space before the sign (SI brochure, 5.4.7)."""
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def percent(p: float) -> str:
    """A probability as a clinician reads it: never a rounded 0 % or 100 %."""
    if p < 0.001:
        return f"<{per_cent(0.001, 1)}"
    if p > 0.999:
        return f">{per_cent(0.999, 1)}"
    return per_cent(p, 1 if p < 0.1 or p > 0.9 else 0)


def whole_percent(p: float) -> str:
    """A probability without decimals, and never a rounded 0 % or 100 %."""
    return f"<{per_cent(0.01)}" if p < 0.01 else f">{per_cent(0.99)}" if p > 0.99 else per_cent(p)


_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def count(n: int) -> str:
    """A small count in words, "seven"; from thirteen on in figures."""
    return _WORDS[n] if 0 <= n < len(_WORDS) else str(n)


def listed(names: Sequence[str], joint: str = "and") -> str:
    """Names as a sentence lists them: "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {joint} {names[-1]}" if names else ""


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """A figure with a true minus sign, and a plus where `sign` asks for one; a dash where there is none."""
    if value is None:
        return MISSING
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return text.replace("-", "−")


def value_of(figure: Figure, digits: int = 3, sign: bool = False) -> str:
    """The value of a figure without its interval."""
    return number(None if figure is None else figure.get("value"), digits, sign)


def range_of(figure: Figure, digits: int = 3, sign: bool = False) -> str:
    """An interval as `0.790-0.833`, or as `−0.003 to +0.028` where a sign would meet the hyphen."""
    if figure is None or figure.get("low") is None:
        return MISSING
    low, high = (float(figure[end]) for end in ("low", "high"))
    joint = " to " if sign or low < 0 or high < 0 else "-"
    return f"{number(low, digits, sign)}{joint}{number(high, digits, sign)}"


def with_interval(figure: Figure, digits: int = 3, sign: bool = False) -> str:
    """A figure as `0.812 (0.790-0.833)`, the value alone where it has no interval, a dash where there is none."""
    value = value_of(figure, digits, sign)
    return value if value == MISSING or range_of(figure) == MISSING else f"{value} ({range_of(figure, digits, sign)})"


def p_value(p: float) -> str:
    """A p-value as `p = 0.040` or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
