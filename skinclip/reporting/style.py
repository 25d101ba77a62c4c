"""One look for the charts of all reports: colours, matplotlib settings, and how a figure becomes a file or an element.

Charts are drawn without pyplot, which keeps a global state, and come out the same byte for byte from the same numbers.
Inside a page the drawn colours become CSS variables, so that one picture serves a light page, a dark one and paper.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which stay apart under the common kinds of colour blindness.
BLUE, ORANGE, GREEN, RED, SKY, PINK = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7"
INK, GREY, PALE = "#222222", "#8a8a8a", "#d9d9d9"
CYCLE = (BLUE, ORANGE, GREEN, RED, SKY, PINK, GREY)
# Drawn colour -> what it becomes on a page, which may be light or dark.
ON_PAGE = {INK: "currentColor", GREY: "var(--grid)", PALE: "var(--line)", BLUE: "var(--series)", RED: "var(--second)"}
STYLE: Any = {
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "skinclip",  # ids inside the file are otherwise drawn at random
}
DPI = 200  # of a figure as pixels
Draw = TypeVar("Draw", bound=Callable[..., Any])
Interval = Mapping[str, Any] | None


@dataclass(frozen=True)
class Plot:
    """A drawn figure, and where it has a table of its own the rows that it shows."""

    figure: Figure
    data: pd.DataFrame | None = None


def styled(draw: Draw) -> Draw:
    """Decorates a function that draws: everything it adds has the reports' style."""
    return matplotlib.rc_context(STYLE)(draw)


def charts(columns: int = 1, width: float = 4.2, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    """A figure with `columns` axes side by side, `width` x `height` inches each; call it in a `styled` function."""
    figure = Figure(figsize=(width * columns, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


# --- parts of charts ----------------------------------------------------------------------------------------------


def unit_axes(axes: Axes, x: str, y: str) -> None:
    """Makes both axes run from 0 to 1, square, with their labels."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x, ylabel=y, aspect="equal")


def dots(axes: Axes, intervals: Sequence[Interval], colours: Sequence[str]) -> None:
    """Draws one figure per row, the first on top: a dot with its interval."""
    values, (below, above) = whiskers(intervals)
    rows = range(len(values))[::-1]
    for y, v, lo, hi, colour in zip(rows, values, below, above, colours, strict=True):
        axes.errorbar([v], [y], xerr=[[lo], [hi]], fmt="o", color=colour, markersize=4, linewidth=1.4)
    axes.grid(axis="x", color=PALE, linewidth=0.6)


def whiskers(intervals: Sequence[Interval]) -> tuple[list[float], list[list[float]]]:
    """Values and distances to low and high as matplotlib's `yerr` wants them; NaN where there is no figure."""
    values = [_number(i, "value") for i in intervals]
    # a calibration error's interval may lie wholly above its value; a whisker cannot point backwards
    below = [max(0.0, v - low) for v, low in zip(values, [_number(i, "low") for i in intervals], strict=True)]
    above = [max(0.0, high - v) for v, high in zip(values, [_number(i, "high") for i in intervals], strict=True)]
    return values, [below, above]


def _number(interval: Interval, key: str) -> float:
    bound = None if interval is None else interval.get(key)
    return float("nan") if bound is None else float(bound)


# --- a figure as a file or as part of a page ----------------------------------------------------------------------


def inline_svg(figure: Figure, name: str, colours: Mapping[str, str] = ON_PAGE) -> str:
    """The figure as an `<svg>` element that scales and is hidden from screen readers, which get the caption's words.

    `name` goes before every id, as ids must be unique on the page. `colours` says which drawn colours, in lower case,
    become which CSS colours.
    """
    text = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", drawing, flags=re.S)
    drawing = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", drawing, count=1)
    drawing = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 aria-hidden="true" focusable="false"', drawing, count=1)
    drawing = re.sub(r'\bid="', f'id="{name}-', drawing)
    drawing = re.sub(r'((?:xlink:)?href="|url\()#', rf"\1#{name}-", drawing)
    for drawn, css in colours.items():
        drawing = drawing.replace(drawn, css)
    return drawing


def save_svg(figure: Figure, path: Path, **about: str) -> None:
    """Writes the figure as an SVG file without a date; `about` is its metadata (Title, Description)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, format="svg", metadata={"Date": None, **about})


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file on white."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, facecolor="white")
    return file.getvalue()
