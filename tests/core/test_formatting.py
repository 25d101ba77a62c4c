"""Numbers as text."""

from __future__ import annotations

import pytest

from skinclip.core.formatting import number, p_value, percent, range_of, value_of, whole_percent, with_interval

FIGURE = {"value": 0.8124, "low": 0.79, "high": 0.8333}
DIFFERENCE = {"value": 0.012, "low": -0.003, "high": 0.028}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (with_interval(FIGURE), "0.812 (0.790-0.833)"),
        (with_interval(DIFFERENCE, sign=True), "+0.012 (−0.003 to +0.028)"),
        (with_interval(DIFFERENCE, digits=2), "0.01 (−0.00 to 0.03)"),
        (with_interval({"value": 0.5, "low": None, "high": None}), "0.500"),
        (with_interval({"value": 0.5}), "0.500"),
        (with_interval(None), "–"),
        (with_interval({"value": None}), "–"),
        (value_of(FIGURE, 1), "0.8"),
        (range_of({"value": 1.0, "low": None}), "–"),
        (number(None), "–"),
        (number(-1.5, 1), "−1.5"),
        (p_value(0.0004), "p < 0.001"),
        (p_value(0.04), "p = 0.040"),
        (percent(0.9996), ">99.9\xa0%"),
        (whole_percent(0.004), "<1\xa0%"),
    ],
)
def test_figures_read_alike(text: str, expected: str) -> None:
    assert text == expected
