"""What a reader sees, the regions of the cited criteria: what the answer loses without them.

Each is taken out of the photo, against random places of the lesion as large. Which criteria are cited hangs on the
thresholds of the findings, unlike everything in `maps`. A gallery of the best, median and worst photos is written
beside the predictions, outside version control.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eval_study.benchmarks import figures
from eval_study.benchmarks.common import Bench
from eval_study.explanations import gallery
from eval_study.explanations.maps import column, kept, photos, short
from skinclip.data.cases import Case
from skinclip.evaluation import metrics
from skinclip.evaluation.scores import cluster
from skinclip.explain import faithfulness
from skinclip.explain.cited import cited_effects, cited_regions, joined
from skinclip.explain.subject import Subject

NAME = "regions"
CITED = ("drop", "random", "beats_random", "share")
WHICH = {
    "joined": "all, as far as they fit into 40 %",
    "certain": "of the most certain finding",
    "pivotal": "of the finding on which the answer depends most, as the page names it",
}


def cited(subject: Subject, seed: int) -> dict[str, np.ndarray]:
    """ "which/figure": what the answer loses without regions of the cited criteria; nothing where none is cited.

    Which: all `joined`; that of the finding that is most `certain`; that of the `pivotal` one, where there is one.
    """
    regions = cited_regions(subject)
    if not regions:
        return {}
    shown = {"joined": joined(list(regions.values()), subject.lesion), "certain": next(iter(regions.values()))}
    owed = cited_effects(subject)
    pivotal = max(owed, key=owed.__getitem__)
    if owed[pivotal] > 0:
        shown["pivotal"] = regions[pivotal]
    found = {}
    for which, region in shown.items():
        rng = np.random.default_rng(seed)
        removed = faithfulness.removed(subject.answer, subject.photo, region, subject.lesion, rng, others=10)
        found[f"{which}/drop"] = np.array(removed.drop)
        found[f"{which}/random"] = np.array(removed.random)
        found[f"{which}/beats_random"] = np.array(float(removed.more_than_random))
        found[f"{which}/share"] = np.array(np.count_nonzero(region) / np.count_nonzero(subject.lesion))
    return found


def rows_of(bench: Bench, cases: list[Case], name: str) -> list[dict[str, np.ndarray]]:
    """What `cited` gives for each photo."""
    folder = Path(short(f"{bench.sha}|{bench.thresholds}|pivotal")) / name
    return kept(bench, cases, folder, lambda subject, case, i: cited(subject, bench.seed + i))


def run(bench: Bench) -> dict[str, Any]:
    """All sets that are there; the photos of `maps`."""
    result: dict[str, Any] = {"sets": {}}
    for name, split, cases in photos(bench):
        rows = rows_of(bench, cases, name)
        result["sets"][name] = {"split": split, **summary(bench, cases, rows)}
        gallery.write(bench, cases, column(rows, "joined/drop") - column(rows, "joined/random"), name)
    return {"meta": bench.meta(thresholds=bench.thresholds), **result}


def summary(bench: Bench, cases: list[Case], rows: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Which region -> figure -> mean with interval, and the number of photos that have cited regions."""
    resamples = metrics.GroupBootstrap([cluster(c) for c in cases], bench.n_boot, bench.seed)
    found = {
        which: {k: resamples.interval(metrics.mean(column(rows, f"{which}/{k}"))) for k in CITED} for which in WHICH
    }
    n_pivotal = sum("pivotal/drop" in row for row in rows)
    return {"n": sum(bool(row) for row in rows), "n_pivotal": n_pivotal, **found}


def headline(result: dict[str, Any]) -> str:
    """Whether the regions that a reader sees matter no more than chance; nothing where they do."""
    found = next(iter(result["sets"].values()), {}).get("joined", {}).get("beats_random")
    if not found or found["low"] > 0.5:
        return ""
    return (
        "The regions of all cited criteria together matter no more to the answer than random places of the lesion as "
        f"large (more in {figures.shown(found)} of the photos)."
    )


def section(result: dict[str, Any], folder: Path) -> str:
    text = [
        "## Regions of the cited criteria",
        "",
        "Taken out of the photo, against random places of the lesion as large; of the photos of `maps`.",
    ]
    header = ["region", "of the lesion", "drop without it", "drop without random places", "more in"]
    for name, found in result["sets"].items():
        rows = [
            [WHICH[which], *(figures.shown(found[which][k]) for k in ("share", "drop", "random", "beats_random"))]
            for which in WHICH
        ]
        have = f"{found['n']} photos have some, {found['n_pivotal']} one on which the answer depends"
        text += ["", f"**{name}, {found['split']}**, {have}", "", figures.table(header, rows)]
    return "\n".join(text)
