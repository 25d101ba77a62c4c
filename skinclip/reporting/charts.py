"""The charts of an evaluation, drawn from a report's numbers alone.

Reports of any system and data set look alike: every rate is drawn on the same axis, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from skinclip.core.vocabulary import DIAGNOSIS_BY_CODE
from skinclip.reporting.style import BLUE, GREY, INK, RED, Plot, styled

_DEEPEST = 0.55  # opacity of a full cell, which leaves its number readable on a light page and on a dark one


@styled
def reliability(points: Sequence[Mapping[str, Any]]) -> Plot:
    """Hit rate against stated confidence, one point a bin, larger where it holds more photos, whose shares are bars."""
    figure, axes = _square("stated confidence", "share that is right")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    confidence = np.array([p["confidence"] for p in points])
    share = np.array([p["n"] for p in points], dtype=float) / sum(p["n"] for p in points)
    axes.bar(confidence, share, width=0.045, color=BLUE, alpha=0.2, linewidth=0)
    for x, rate in zip(confidence, (p["rate"] for p in points), strict=True):
        if rate["low"] is not None:
            axes.plot([x, x], [rate["low"], rate["high"]], color=BLUE, linewidth=1.5)
    axes.scatter(confidence, [p["rate"]["value"] for p in points], s=12 + 200 * share, color=BLUE, zorder=3)
    return Plot(figure)


@styled
def roc(curve: Mapping[str, Sequence[float]], report: Mapping[str, Any]) -> Plot:
    """ROC curve of P(malignant), with the referral point and its intervals where the system refers."""
    figure, axes = _square("1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    axes.plot(curve["false_positive_rate"], curve["true_positive_rate"], color=BLUE, linewidth=1.8)
    sensitivity, specificity = report.get("sensitivity"), report.get("specificity")
    if sensitivity and specificity:
        x, y = 1 - specificity["value"], sensitivity["value"]
        if specificity["low"] is not None:
            axes.plot([1 - specificity["high"], 1 - specificity["low"]], [y, y], color=RED, linewidth=1.5)
        if sensitivity["low"] is not None:
            axes.plot([x, x], [sensitivity["low"], sensitivity["high"]], color=RED, linewidth=1.5)
        axes.plot([x], [y], "o", color=RED, markersize=7)
        axes.annotate("referral", (x, y), (8, -14), textcoords="offset points", color=RED)
    return Plot(figure)


@styled
def confusion(counts: Sequence[Sequence[int]], codes: Sequence[str]) -> Plot:
    """Photos by true class (rows) and decided class (columns), shaded by the share of the true class."""
    figure, axes = _axes()
    for i, row in enumerate(counts):
        for j, n in enumerate(row):
            share = n / sum(row) if sum(row) else 0.0
            axes.add_patch(Rectangle((j, i), 1, 1, facecolor=BLUE, alpha=_DEEPEST * share, linewidth=0))
            axes.text(j + 0.5, i + 0.5, str(n) if n else "·", ha="center", va="center", color=INK)
    ticks = np.arange(len(codes)) + 0.5
    axes.set(xlim=(0, len(codes)), ylim=(len(codes), 0), xlabel="decided", ylabel="true")
    axes.set_xticks(ticks, codes)
    axes.set_yticks(ticks, codes)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_aspect("equal")
    return Plot(figure)


@styled
def risk_coverage(points: Sequence[Mapping[str, Any]]) -> Plot:
    """Error rate of the most confident share of the photos, with its interval as a band."""
    figure, axes = _axes()
    drawn = [(p["coverage"], p["risk"]) for p in points if p["risk"]]
    x = [c for c, _ in drawn]
    low, high = ([r[end] if r[end] is not None else r["value"] for _, r in drawn] for end in ("low", "high"))
    axes.fill_between(x, low, high, color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(x, [r["value"] for _, r in drawn], color=BLUE, linewidth=1.8)
    axes.set(xlim=(0, 1.01), xlabel="share of photos answered, most confident first", ylabel="share that is wrong")
    axes.set_ylim(0, max(0.05, *high) * 1.05)
    return Plot(figure)


@styled
def recalls(per_class: Mapping[str, Mapping[str, Any] | None]) -> Plot:
    """Recall of each class that has photos, as bars with intervals."""
    figure, axes = _axes()
    named = [(DIAGNOSIS_BY_CODE[code].name, r) for code, r in per_class.items() if r]
    places = np.arange(len(named))
    axes.barh(places, [r["value"] for _, r in named], height=0.62, color=BLUE, alpha=0.35, linewidth=0)
    for place, (_, r) in zip(places, named, strict=True):
        if r["low"] is not None:
            axes.plot([r["low"], r["high"]], [place, place], color=BLUE, linewidth=1.8)
        axes.plot([r["value"]], [place], "o", color=BLUE, markersize=5)
    axes.set_yticks(places, [label for label, _ in named])
    axes.set(xlim=(0, 1.02), ylim=(len(named) - 0.4, -0.6), xlabel="recall")
    axes.tick_params(axis="y", length=0)
    return Plot(figure)


# --- parts --------------------------------------------------------------------------------------------------------


def _axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.0, 3.5), layout="constrained")
    return figure, figure.subplots()


def _square(x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = _axes()
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, ylabel=y, aspect="equal")
    return figure, axes
