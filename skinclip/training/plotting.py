"""A training's course as a picture: `python -m skinclip plot-training runs/qwen-3b` draws its log.csv as log.png."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from skinclip.data.cases import DataError

COLUMNS = ["stage", "step", "name", "value"]
ACROSS = 4  # panels in a row


def plot_training(folder: Path) -> Path:
    """Draws what `folder/log.csv` holds, a panel for each value of each stage, and returns the picture's path.

    The values as they were logged, thin, and their running mean over a tenth of the log. Raises DataError where there
    is no such log, or it cannot be read.
    """
    log = folder / "log.csv"
    if not log.exists():
        raise DataError(f"{folder} holds no log.csv: give the folder that a training was given as --work")
    try:
        rows = pd.read_csv(log)
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{log} cannot be read: {error}") from error
    if list(rows.columns) != COLUMNS or rows.empty:
        raise DataError(f"{log} holds no rows of {', '.join(COLUMNS)}: nothing was trained there yet")
    panels = list(rows.groupby(["stage", "name"], sort=False))
    down = math.ceil(len(panels) / ACROSS)
    with matplotlib.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(3 * ACROSS, 2 * down), layout="constrained")
        grid = figure.subplots(down, ACROSS, squeeze=False).flat
        for axes, ((stage, name), part) in zip(grid, panels, strict=False):
            mean = part["value"].rolling(max(1, len(part) // 10), min_periods=1).mean()
            axes.plot(part["step"], part["value"], color="0.7", linewidth=0.8)
            axes.plot(part["step"], mean, color="#0072b2", linewidth=1.5)
            axes.set_title(f"{stage}: {name}", loc="left")
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        out = folder / "log.png"
        figure.savefig(out, dpi=120, metadata={"Software": None})
    return out
