"""Numbers of a study's report as text: estimates, intervals, p-values and shares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Result = Mapping[str, Any]
DASH = "–"


def number(value: float, digits: int, sign: bool = False) -> str:
    """Fixed-point text with a true minus sign, as the figures' axes have."""
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def value_cell(row: Result, digits: int = 2, sign: bool = False) -> str:
    """The estimate of a result, a dash where there is none."""
    value = row.get("value")
    return DASH if value is None else number(value, digits, sign)


def interval_cell(row: Result, digits: int = 2, sign: bool = False) -> str:
    """The interval of a result; one-sided where the answers cannot bound it, a dash where there is none."""
    low, high = row.get("low"), row.get("high")
    if low is None or high is None:  # open where the answers cannot bound it
        one = [f"above {number(low, digits, sign)}"] if low is not None else []
        one += [f"below {number(high, digits, sign)}"] if high is not None else []
        return one[0] if one else DASH
    return f"{number(row['low'], digits, sign)} to {number(row['high'], digits, sign)}"


def p_words(p: float) -> str:
    """ "p = 0.012", or "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def p_cell(row: Result, key: str = "p") -> str:
    """The p-value of a result for a table cell, a dash where there is none."""
    p = row.get(key)
    return DASH if p is None else p_words(p).removeprefix("p ").removeprefix("= ")


def points(share: float) -> str:
    """A difference of shares in percentage points."""
    return number(100 * share, 1, sign=True)


def share_words(share: float, digits: int = 1) -> str:
    """A share of 1 as a percentage."""
    return f"{100 * share:.{digits}f} %"


def percent_words(part: int, whole: int) -> str:
    """`part` of `whole` as a percentage, a dash of nothing."""
    return share_words(part / whole) if whole else DASH


def count_words(n: int, noun: str) -> str:
    """A number and its noun, in the plural where it is not 1."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
