"""The charts of an evaluation's page, as SVG text to be put inside HTML.

Drawn with matplotlib from a report's numbers alone. Colours leave here as CSS variables and text as text, so that one
picture serves a light page, a dark one and paper, and scales with the column it stands in. Reports of any system and
data set look alike: every rate is drawn on the same axis, 0 to 1.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from skinclip.core.vocabulary import DIAGNOSES, DIAGNOSIS_BY_CODE

# Drawn in these and replaced by what the page says they are.
_INK, _GRID, _SERIES, _SECOND = "#010101", "#020202", "#030303", "#040404"
_CSS = {_INK: "currentColor", _GRID: "var(--grid)", _SERIES: "var(--series)", _SECOND: "var(--second)"}
_STYLE: Any = {
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "skinclip",  # ids inside the file are otherwise drawn at random
    "text.color": _INK,
    "text.parse_math": False,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _GRID,
    "xtick.labelcolor": _INK,
    "ytick.color": _GRID,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
}
_DEEPEST = 0.55  # opacity of a full cell, which leaves its number readable on a light page and on a dark one


def reliability(points: Sequence[Mapping[str, Any]], name: str) -> str:
    """Hit rate against stated confidence, one point a bin, larger where it holds more photos, whose shares are bars."""
    figure, axes = _square("stated confidence", "share that is right")
    axes.plot([0, 1], [0, 1], color=_GRID, linestyle="--", linewidth=1)
    confidence = np.array([p["confidence"] for p in points])
    share = np.array([p["n"] for p in points], dtype=float) / sum(p["n"] for p in points)
    axes.bar(confidence, share, width=0.045, color=_SERIES, alpha=0.2, linewidth=0)
    for x, rate in zip(confidence, (p["rate"] for p in points), strict=True):
        if rate["low"] is not None:
            axes.plot([x, x], [rate["low"], rate["high"]], color=_SERIES, linewidth=1.5)
    axes.scatter(confidence, [p["rate"]["value"] for p in points], s=12 + 200 * share, color=_SERIES, zorder=3)
    return svg(figure, name)


def roc(curve: Mapping[str, Sequence[float]], report: Mapping[str, Any], name: str) -> str:
    """ROC curve of P(malignant), with the referral point and its intervals where the system refers."""
    figure, axes = _square("1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=_GRID, linestyle="--", linewidth=1)
    axes.plot(curve["false_positive_rate"], curve["true_positive_rate"], color=_SERIES, linewidth=1.8)
    sensitivity, specificity = report.get("sensitivity"), report.get("specificity")
    if sensitivity and specificity:
        x, y = 1 - specificity["value"], sensitivity["value"]
        if specificity["low"] is not None:
            axes.plot([1 - specificity["high"], 1 - specificity["low"]], [y, y], color=_SECOND, linewidth=1.5)
        if sensitivity["low"] is not None:
            axes.plot([x, x], [sensitivity["low"], sensitivity["high"]], color=_SECOND, linewidth=1.5)
        axes.plot([x], [y], "o", color=_SECOND, markersize=7)
        axes.annotate("referral", (x, y), (8, -14), textcoords="offset points", color=_SECOND)
    return svg(figure, name)


def confusion(counts: Sequence[Sequence[int]], name: str) -> str:
    """Photos by true class (rows) and decided class (columns), shaded by the share of the true class."""
    figure, axes = _axes()
    codes = [d.code for d in DIAGNOSES]
    for i, row in enumerate(counts):
        for j, n in enumerate(row):
            share = n / sum(row) if sum(row) else 0.0
            axes.add_patch(Rectangle((j, i), 1, 1, facecolor=_SERIES, alpha=_DEEPEST * share, linewidth=0))
            axes.text(j + 0.5, i + 0.5, str(n) if n else "·", ha="center", va="center", color=_INK)
    ticks = np.arange(len(codes)) + 0.5
    axes.set(xlim=(0, len(codes)), ylim=(len(codes), 0), xlabel="decided", ylabel="true")
    axes.set_xticks(ticks, codes)
    axes.set_yticks(ticks, codes)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_aspect("equal")
    return svg(figure, name)


def risk_coverage(points: Sequence[Mapping[str, Any]], name: str) -> str:
    """Error rate of the most confident share of the photos, with its interval as a band."""
    figure, axes = _axes()
    drawn = [(p["coverage"], p["risk"]) for p in points if p["risk"]]
    x = [c for c, _ in drawn]
    low, high = ([r[end] if r[end] is not None else r["value"] for _, r in drawn] for end in ("low", "high"))
    axes.fill_between(x, low, high, color=_SERIES, alpha=0.2, linewidth=0)
    axes.plot(x, [r["value"] for _, r in drawn], color=_SERIES, linewidth=1.8)
    axes.set(xlim=(0, 1.01), xlabel="share of photos answered, most confident first", ylabel="share that is wrong")
    axes.set_ylim(0, max(0.05, *high) * 1.05)
    return svg(figure, name)


def recalls(per_class: Mapping[str, Mapping[str, Any] | None], name: str) -> str:
    """Recall of each class that has photos, as bars with intervals."""
    figure, axes = _axes()
    found = [(DIAGNOSIS_BY_CODE[code].name, r) for code, r in per_class.items() if r]
    places = np.arange(len(found))
    axes.barh(places, [r["value"] for _, r in found], height=0.62, color=_SERIES, alpha=0.35, linewidth=0)
    for place, (_, r) in zip(places, found, strict=True):
        if r["low"] is not None:
            axes.plot([r["low"], r["high"]], [place, place], color=_SERIES, linewidth=1.8)
        axes.plot([r["value"]], [place], "o", color=_SERIES, markersize=5)
    axes.set_yticks(places, [label for label, _ in found])
    axes.set(xlim=(0, 1.02), ylim=(len(found) - 0.4, -0.6), xlabel="recall")
    axes.tick_params(axis="y", length=0)
    return svg(figure, name)


# --- parts --------------------------------------------------------------------------------------------------------


def _axes() -> tuple[Figure, Axes]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.0, 3.5), layout="constrained")
        return figure, figure.subplots()


def _square(x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = _axes()
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, aspect="equal")
    return figure, axes


def svg(figure: Figure, name: str, colours: Mapping[str, str] = _CSS) -> str:
    """The figure as an `<svg>` element that scales and is hidden from screen readers, which get the caption's words.

    `name` goes before every id, as ids must be unique on the page. `colours` says which drawn colours, in lower case,
    become which CSS colours.
    """
    text = io.StringIO()
    with matplotlib.rc_context(_STYLE):
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
