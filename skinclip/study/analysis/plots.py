"""The figures of a study's report, each drawn from the analysis' results and kept with the data it was drawn from.

Drawn once with matplotlib, without pyplot's global state, and shown twice: as SVG inside the page and as a picture in
the PDF. An arm has the same colour everywhere (Okabe and Ito's, which stay apart under colour blindness).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from scipy.stats import gaussian_kde

from skinclip.reporting.style import BLUE, GREEN, GREY, INK, PALE, RED, Plot, styled
from skinclip.study.protocol.arms import arm_named

Result = Mapping[str, Any]
_WIDTH = 7.0  # inches, of every figure: a column of the page, a page of the PDF


def arm_name(arm: str) -> str:
    """An arm's name in reports."""
    return arm_named(arm).label


def contrast_name(contrast: str) -> str:
    """`regions - grad_cam` in words."""
    return " minus ".join(arm_name(arm) for arm in contrast.split(" - "))


@styled
def forest(
    rows: Sequence[Result], label: str, mark: str, zero: float = 0.0, margin: float | None = None
) -> Plot | None:
    """Differences with intervals, one row each, the first on top and filled; None where no row has a figure.

    Args:
        rows: `name`, `value`, `low`, `high`, and `strong` for the rows that the plan named primary.
        label: of the axis.
        mark: What the data are where it is no real study, or nothing.
        margin: of non-inferiority, drawn as a second line.
    """
    known = [row for row in rows if row.get("value") is not None]
    if not known:
        return None
    figure, (axes,) = _axes(1, 1, 0.6 + 0.32 * len(known) + 0.4, mark)
    for y, row in zip(range(len(known))[::-1], known, strict=True):
        colour = BLUE if row.get("strong") else INK
        axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2.2 if row.get("strong") else 1.4)
        axes.plot([row["value"]], [y], "s" if row.get("strong") else "o", color=colour, markersize=6)
    axes.axvline(zero, color=GREY, linewidth=1)
    if margin is not None:
        axes.axvline(margin, color=RED, linewidth=1.2, linestyle="--")
        axes.annotate("margin", (margin, len(known) - 0.45), (3, 0), textcoords="offset points", color=RED, va="top")
    axes.set_yticks(range(len(known))[::-1], [str(row["name"]) for row in known])
    axes.set(ylim=(-0.6, len(known) - 0.4), xlabel=label)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=PALE, linewidth=0.6)
    axes.spines["left"].set_visible(False)
    return Plot(figure, pd.DataFrame(known).drop(columns="strong", errors="ignore"))


@styled
def raincloud(means: Sequence[Result], arms: Sequence[str], label: str, mark: str) -> Plot | None:
    """Readers' means by arm: density above, quartiles in the middle, each reader a dot below (Allen et al. 2019).

    The density ends where the readers do: beyond them there may be no scale.
    """
    frame = pd.DataFrame(means, columns=["reader", "arm", "mean"])
    plotted = [arm for arm in arms if (frame["arm"] == arm).any()]
    if not plotted:
        return None
    figure, (axes,) = _axes(1, 1, 0.7 + 0.75 * len(plotted), mark)
    rng = np.random.default_rng(0)  # only shakes the dots apart
    for y, arm in zip(range(len(plotted))[::-1], plotted, strict=True):
        values, colour = frame.loc[frame["arm"] == arm, "mean"].to_numpy(dtype=float), _colour(arm)
        if len(values) > 2 and np.ptp(values) > 0:
            grid = np.linspace(values.min(), values.max(), 200)
            density = gaussian_kde(values)(grid)
            axes.fill_between(grid, y + 0.12, y + 0.12 + 0.42 * density / density.max(), color=colour, alpha=0.45, lw=0)
        low, middle, high = np.percentile(values, [25, 50, 75])
        axes.plot([low, high], [y, y], color=colour, linewidth=5, solid_capstyle="butt")
        axes.plot([middle], [y], "o", color=INK, markersize=4, zorder=3)
        axes.scatter(
            values, y - 0.22 + rng.uniform(-0.08, 0.08, len(values)), s=13, color=colour, alpha=0.85, linewidth=0
        )
    axes.set_yticks(range(len(plotted))[::-1], [arm_name(arm) for arm in plotted])
    axes.set(ylim=(-0.45, len(plotted) - 0.35), xlabel=label)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=PALE, linewidth=0.6)
    axes.spines["left"].set_visible(False)
    return Plot(figure, frame)


@styled
def calibration(points: Sequence[Result], arms: Sequence[str], mark: str) -> Plot | None:
    """Share right against stated confidence, unaided (hollow) and aided, one panel an arm; size is the number."""
    frame = pd.DataFrame(points, columns=["arm", "phase", "n", "confidence", "right"])
    plotted = [arm for arm in arms if (frame["arm"] == arm).any()]
    if not plotted:
        return None
    figure, panels = _axes(1, len(plotted), _WIDTH / max(len(plotted), 2) + 0.75, mark)
    largest = float(frame["n"].max())
    for axes, arm in zip(panels, plotted, strict=True):
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
        for phase, colour, filled in (("before", GREY, False), ("after", _strong(arm), True)):
            here = frame[(frame["arm"] == arm) & (frame["phase"] == phase)].sort_values("confidence")
            size = 8 + 60 * here["n"] / largest
            face = colour if filled else "none"
            axes.plot(here["confidence"], here["right"], color=colour, linewidth=1)
            axes.scatter(
                here["confidence"],
                here["right"],
                s=size,
                facecolor=face,
                edgecolor=colour,
                zorder=3,
                label=_PHASES[phase],
            )
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", title=arm_name(arm))
        axes.set_xticks([0, 0.5, 1], ["0", "50", "100"])
        axes.set_yticks([0, 0.5, 1], ["0", "50", "100"] if axes is panels[0] else [])
    panels[0].set_ylabel("% right")
    figure.supxlabel("stated confidence, %", fontsize=9, color=INK)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, handletextpad=0.1)
    return Plot(figure, frame)


@styled
def switches(rows: Sequence[Result], arms: Sequence[str], mark: str) -> Plot | None:
    """Flows of answers from unaided (left) to aided (right), by arm (columns) and right or wrong AI (rows)."""
    frame = pd.DataFrame(rows, columns=["arm", "ai_right", "before", "after", "n", "of"])
    plotted = [arm for arm in arms if frame.loc[frame["arm"] == arm, "of"].sum() > 0]
    if not plotted:
        return None
    figure, panels = _axes(2, len(plotted), 4.4, mark)
    for i, (ai_right, title) in enumerate(((True, "AI right"), (False, "AI wrong"))):
        for j, arm in enumerate(plotted):
            axes = panels[i * len(plotted) + j]
            here = frame[(frame["arm"] == arm) & (frame["ai_right"] == ai_right)]
            _flows(axes, {(r.before, r.after): int(r.n) for r in here.itertuples()})
            axes.set_title(f"{arm_name(arm)}\n{title}" if i == 0 else title)
    return Plot(figure, frame)


@styled
def dumbbells(rows: Sequence[Result], label: str, mark: str) -> Plot | None:
    """Unaided (hollow) and aided (filled) rate of each arm, with intervals, on the axis of all rates, 0 to 1."""
    known = [row for row in rows if row["before"].get("value") is not None and row["after"].get("value") is not None]
    if not known:
        return None
    figure, (axes,) = _axes(1, 1, 0.8 + 0.5 * len(known), mark)
    flat = []
    for y, row in zip(range(len(known))[::-1], known, strict=True):
        for phase, offset, colour, face in (
            ("before", 0.13, GREY, "none"),
            ("after", -0.13, _strong(row["arm"]), _strong(row["arm"])),
        ):
            estimate = row[phase]
            axes.plot([estimate["low"], estimate["high"]], [y + offset] * 2, color=colour, linewidth=1.6)
            axes.plot([estimate["value"]], [y + offset], "o", color=colour, markerfacecolor=face, markersize=6)
            flat.append({"arm": row["arm"], "phase": phase, **{k: estimate[k] for k in ("value", "low", "high")}})
    axes.set_yticks(range(len(known))[::-1], [arm_name(row["arm"]) for row in known])
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.5, len(known) - 0.5), xlabel=label)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=PALE, linewidth=0.6)
    axes.spines["left"].set_visible(False)
    return Plot(figure, pd.DataFrame(flat))


# --- parts --------------------------------------------------------------------------------------------------------

_PHASES = {"before": "unaided", "after": "with the aid"}


def _axes(rows: int, columns: int, height: float, mark: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    if mark:
        figure.suptitle(mark, x=0.995, ha="right", fontsize=8, fontweight="bold", color=RED)
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def _colour(arm: str) -> str:
    return arm_named(arm).colour


def _strong(arm: str) -> str:
    """The arm's colour where it stands beside the grey of the unaided answers."""
    return INK if _colour(arm) == GREY else _colour(arm)


_FLOW_COLOURS = {(True, True): BLUE, (False, True): GREEN, (True, False): RED, (False, False): GREY}


def _flows(axes: Axes, counts: Mapping[tuple[bool, bool], int]) -> None:
    """Bands from right or wrong before to right or wrong after, as high as their share; right stands on top."""
    total = sum(counts.values())
    axes.set(xlim=(-0.42, 1.42), ylim=(1.06, -0.02))
    axes.axis("off")
    if not total:
        axes.text(0.5, 0.5, "no answers", ha="center", color=GREY)
        return
    order = [(True, True), (True, False), (False, True), (False, False)]
    ends = sorted(order, key=lambda flow: (not flow[1], not flow[0]))
    left, right = _tops(order, counts, 0), _tops(ends, counts, 1)
    steps = np.linspace(0, 1, 31)
    curve = steps**2 * (3 - 2 * steps)
    labelled = 8 if counts[True, False] and counts[False, True] else 15  # before the bands cross, else half way
    for flow in order:
        share = counts[flow] / total
        if share:
            top = left[flow] + (right[flow] - left[flow]) * curve
            outline = np.column_stack([np.concatenate([steps, steps[::-1]]), np.concatenate([top, top[::-1] + share])])
            axes.add_patch(Polygon(outline, facecolor=_FLOW_COLOURS[flow], alpha=0.6, linewidth=0))
            if flow[0] != flow[1]:
                middle = float(top[labelled]) + share / 2
                axes.text(steps[labelled], middle, f"{share:.0%}", ha="center", va="center", fontsize=8)
    for x, side, sign in ((-0.04, 0, "right"), (1.04, 1, "left")):
        for state in (True, False):
            share = sum(n for flow, n in counts.items() if flow[side] == state) / total
            middle = share / 2 if state else 1 - share / 2
            if share:
                axes.text(x, middle, f"{'right' if state else 'wrong'}\n{share:.0%}", ha=sign, va="center", fontsize=7)


def _tops(
    order: Sequence[tuple[bool, bool]], counts: Mapping[tuple[bool, bool], int], side: int
) -> dict[tuple[bool, bool], float]:
    """Where each band begins on one side, 0 (top) to 1, with a gap between right and wrong."""
    total, top, tops = sum(counts.values()), 0.0, {}
    for flow in order:
        tops[flow] = top + (0.02 if not flow[side] else 0.0)
        top += counts[flow] / total
    return tops
