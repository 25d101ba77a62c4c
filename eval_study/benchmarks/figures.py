"""How results are shown: figures with their interval as text, Markdown tables, and calm matplotlib charts.

Charts are drawn from a result file alone, without pyplot (which keeps a global state), and come out the same byte for
byte from the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which stay apart under the common kinds of colour blindness.
BLUE, ORANGE, GREEN, RED, SKY, PINK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
INK, GREY, PALE = "#222222", "#8A8A8A", "#D9D9D9"
CYCLE = (BLUE, ORANGE, GREEN, RED, SKY, PINK, GREY)
MISSING = "–"
Draw = TypeVar("Draw", bound=Callable[..., Any])
_STYLE = {
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "skinclip",  # ids inside the file are otherwise drawn at random
}


def shown(interval: Mapping[str, Any] | None, digits: int = 3, sign: bool = False) -> str:
    """`0.812 (0.790-0.833)`, the value alone where it has no interval, a dash where there is none.

    `sign` is for differences: `+0.012 (-0.003 to +0.028)`.
    """
    if interval is None or interval.get("value") is None:
        return MISSING
    plus, joint = ("+", " to ") if sign else ("", "-")
    value = f"{interval['value']:{plus}.{digits}f}"
    if interval.get("low") is None:
        return value
    return f"{value} ({interval['low']:{plus}.{digits}f}{joint}{interval['high']:{plus}.{digits}f})"


def number(value: float | None, digits: int = 3) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table, figures to the right of the first column."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def styled(draw: Draw) -> Draw:
    """Decorates a function that draws a chart: everything it adds has this report's style."""
    return matplotlib.rc_context(_STYLE)(draw)


def charts(columns: int = 1, width: float = 4.2, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """A figure with `columns` axes side by side, `width` x `height` inches each; call it in a `styled` function."""
    figure = Figure(figsize=(width * columns, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def save(figure: Figure, folder: Path, name: str, alt: str) -> str:
    """Writes `<name>.svg` into `folder` and returns the Markdown that shows it from the folder above."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    return f"![{alt}]({folder.name}/{name}.svg)"


def unit_axes(axes: Axes, x: str, y: str) -> None:
    """Both axes from 0 to 1, square, with their labels."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x, ylabel=y, aspect="equal")


def dots(axes: Axes, intervals: Sequence[Mapping[str, Any] | None], colours: Sequence[str]) -> None:
    """One figure a row, the first on top: a dot with its interval."""
    values, (below, above) = whiskers(intervals)
    rows = range(len(values))[::-1]
    for y, v, lo, hi, colour in zip(rows, values, below, above, colours, strict=True):
        axes.errorbar([v], [y], xerr=[[lo], [hi]], fmt="o", color=colour, markersize=4, linewidth=1.4)
    axes.grid(axis="x", color=PALE, linewidth=0.6)


def whiskers(intervals: Sequence[Mapping[str, Any] | None]) -> tuple[list[float], list[list[float]]]:
    """Values and distances to low and high as matplotlib's `yerr` wants them; NaN where there is no figure."""
    values = [_number(i, "value") for i in intervals]
    # a calibration error's interval may lie wholly above its value; a whisker cannot point backwards
    below = [max(0.0, v - low) for v, low in zip(values, [_number(i, "low") for i in intervals], strict=True)]
    above = [max(0.0, high - v) for v, high in zip(values, [_number(i, "high") for i in intervals], strict=True)]
    return values, [below, above]


def _number(interval: Mapping[str, Any] | None, key: str) -> float:
    found = None if interval is None else interval.get(key)
    return float("nan") if found is None else float(found)
