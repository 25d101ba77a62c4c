"""Answers that may not be honest work, flagged blind: without arm, truth or stratum, lest anybody choose by result.

Speeders answer much faster than readers do, or faster than the plan takes for possible. Straight-lining gives one
rating after another without a difference. Times that the browser measured cannot be longer than the server's,
pauses included. A flag leaves nobody out of the planned analysis; the primary contrast without flagged readers
is reported beside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from skinclip.study.analysis.analysis_plan import AnalysisPlan
from skinclip.study.analysis.tables import StudyTables, numbers

Result = dict[str, Any]
# A reader is flagged from these on.
FAST_SHARE = 0.1  # of answers with the aid under the plan's shortest time
FAST_MEDIAN = 1 / 3  # of the readers' median of median times
SAME_RUN = 12  # equal ratings of trust in a row, in the order of the session
SAME_BLOCK = 8  # items of a block's scales, all with the same answer though some are worded the other way
SLACK_SECONDS = 2.0  # by which a browser's time may exceed the server's
_SEEN = ("reader", "position", "block", "trust", "seconds_before", "seconds_after")
_SERVER = ("server_seconds_before", "server_seconds_after")
FLAGS = {
    "fast_answers": f"at least {FAST_SHARE:.0%} of answers under the plan's shortest time",
    "fast_median": "median time under a third of the readers' median",
    "same_rating": f"{SAME_RUN} or more equal ratings of trust in a row",
    "same_block": "every item of a block's scales answered alike",
    "clock": f"browser's time over the server's by more than {SLACK_SECONDS:g} s",
    "negative": "a time below 0",
}


def flags(tables: StudyTables, plan: AnalysisPlan) -> list[Result]:
    """Readers with a flag: `reader`, the `flags` by key with what was found, in words for the report.

    Only columns that tell nothing about arm, truth or the AI's answer are read.
    """
    columns = [name for name in (*_SEEN, *_SERVER) if name in tables.cases]
    cases = tables.cases[columns].sort_values(["reader", "position"])
    blocks = tables.blocks[["reader", "block", "item", "value"]]
    medians = pd.Series(numbers(cases, "seconds_after"), index=cases["reader"]).groupby(level=0).median()
    usual = float(medians.median()) if medians.notna().any() else float("nan")
    rows = []
    for reader, own in cases.groupby("reader", sort=True):
        scales = blocks[blocks["reader"] == reader]
        found = {**_fast(own, usual, plan), **_straight(own, scales), **_clocks(own)}
        if found:
            rows.append({"reader": str(reader), "flags": found})
    return rows


def _fast(own: pd.DataFrame, usual: float, plan: AnalysisPlan) -> dict[str, str]:
    seconds = numbers(own, "seconds_after")
    known = seconds[np.isfinite(seconds)]
    if not len(known):
        return {}
    found, fast, median = {}, int((known < plan.time_limits[0]).sum()), float(np.median(known))
    if fast >= FAST_SHARE * len(known):
        found["fast_answers"] = f"{fast} of {len(known)} under {plan.time_limits[0]:g} s"
    if median < FAST_MEDIAN * usual:
        found["fast_median"] = f"{median:.1f} s, readers' median {usual:.1f} s"
    return found


def _straight(own: pd.DataFrame, scales: pd.DataFrame) -> dict[str, str]:
    found, trust = {}, numbers(own, "trust")
    run = _longest_run(trust[np.isfinite(trust)])
    if run >= SAME_RUN:
        found["same_rating"] = f"{run} in a row"
    alike = 0
    for _, block in scales.dropna(subset="value").groupby("block"):
        # The scales have items in both directions: an honest answer does not agree with all of them.
        alike += int(len(block) >= SAME_BLOCK and block["value"].nunique() == 1)
    if alike:
        found["same_block"] = f"{alike} of {scales['block'].nunique()} blocks"
    return found


def _longest_run(values: np.ndarray) -> int:
    if not len(values):
        return 0
    ends = np.flatnonzero(np.diff(values) != 0)
    return int(np.diff(np.concatenate([[-1], ends, [len(values) - 1]])).max())


def _clocks(own: pd.DataFrame) -> dict[str, str]:
    found, longer, below = {}, 0, 0
    for step in ("before", "after"):
        browser = numbers(own, f"seconds_{step}")
        below += int((browser < 0).sum())
        if f"server_seconds_{step}" in own:
            server = numbers(own, f"server_seconds_{step}")
            below += int((server < 0).sum())
            longer += int((browser > server + SLACK_SECONDS).sum())
    if longer:
        found["clock"] = f"{longer} answers"
    if below:
        found["negative"] = f"{below} answers"
    return found
