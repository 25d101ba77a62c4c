"""Regions of the cited criteria, as a reader sees them: what the answer loses without them.

A region is taken out of the photo, and so are random places of the lesion that are as large. A region that was *chosen*
by its effect is compared with random places chosen in the same way: from as many, of the same sizes, by the same
measure. The largest of several random effects lies above their mean, so a comparison with the mean would credit the
choice to the region. Which criteria are cited depends on the thresholds of the findings, unlike everything in `maps`.

Photos are of validation splits. A gallery of the best, median and worst photos is written beside the predictions,
outside version control.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval_study.benchmarks.blocks import table
from eval_study.benchmarks.common import Bench
from eval_study.explanations import gallery
from eval_study.explanations.maps import column, kept, photos, short
from skinclip.core.formatting import with_interval
from skinclip.data.cases import Case
from skinclip.evaluation import metrics
from skinclip.evaluation.scores import cluster
from skinclip.explain.cited import cited_effects, cited_regions, joined
from skinclip.explain.effects import effects
from skinclip.explain.faithfulness import random_region, without
from skinclip.explain.subject import Subject
from skinclip.reporting.document import Block, Section

NAME = "regions"
SETS = (("ham10000", "valid", 300), ("isic2017", "valid", 60), ("pad_ufes", None, 60))
DRAWS = 10  # of random places, or of sets of random places to choose from
MEASURES = ("drop", "random", "beats_random", "beats_draws", "share")
WHICH = {
    "joined": "all, as far as they fit into 40 %",
    "certain": "of the most certain finding",
    "pivotal": "of the finding with the largest effect, against the largest of as many random places",
}
COLUMNS = {
    "share": "of the lesion",
    "drop": "drop without it",
    "random": "drop without random places",
    "beats_random": "photos with a larger drop than random places on average",
    "beats_draws": "random places with a smaller drop (chance: 0.5)",
}


def cited(subject: Subject, seed: int) -> dict[str, np.ndarray]:
    """Returns "which/measure": what the answer loses without regions of the cited criteria; {} where none is cited.

    Which: all `joined`; that of the most `certain` finding; the `pivotal` one, with the largest effect, whether or not
    that effect is above 0: leaving photos out by the cited regions' effect alone would favour them.
    """
    regions = cited_regions(subject)
    if not regions:
        return {}
    rng = np.random.default_rng(seed)
    whole, certain = joined(list(regions.values()), subject.lesion), next(iter(regions.values()))
    measured = cited_effects(subject)
    pivotal = regions[max(measured, key=measured.__getitem__)]
    sizes = [int(region.sum()) for region in regions.values()]
    compared = {
        "joined": (whole, random_places(subject, int(whole.sum()), rng)),
        "certain": (certain, random_places(subject, int(certain.sum()), rng)),
        "pivotal": (pivotal, [strongest_of_random(subject, sizes, rng) for _ in range(DRAWS)]),
    }
    return {
        f"{which}/{name}": np.asarray(value)
        for which, (region, draws) in compared.items()
        for name, value in against(subject, region, draws).items()
    }


def random_places(subject: Subject, area: int, rng: np.random.Generator) -> list[np.ndarray]:
    """DRAWS random regions of the lesion, bool [g, g], of `area` places each."""
    return [random_region(subject.lesion, area, rng) for _ in range(DRAWS)]


def strongest_of_random(subject: Subject, sizes: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Of one random region for each of `sizes`, the one with the largest effect, bool [g, g].

    It is chosen as `methods.cited_effects` lets the pivotal region be chosen: by `effects.effects`.
    """
    regions = np.stack([random_region(subject.lesion, size, rng) for size in sizes])
    if len(regions) == 1:
        return regions[0]
    return regions[int(effects(subject.answer, subject.photo, regions, subject.lesion).argmax())]


def against(subject: Subject, region: np.ndarray, draws: Sequence[np.ndarray]) -> dict[str, float]:
    """MEASURES of `region` [g, g] against the regions `draws`; a tie with a draw counts half."""
    p = subject.answer(without(subject.photo, np.stack([np.zeros_like(region), region, *draws])))
    drop, random = float(p[0] - p[1]), p[0] - p[2:]
    return {
        "drop": drop,
        "random": float(random.mean()),
        "beats_random": float(drop > random.mean()),
        "beats_draws": float(np.mean((drop > random) + 0.5 * (drop == random))),
        "share": np.count_nonzero(region) / np.count_nonzero(subject.lesion),
    }


def rows_of(bench: Bench, cases: list[Case], name: str) -> list[dict[str, np.ndarray]]:
    """Returns `cited` of each photo, kept as it is measured."""
    folder = Path(short(f"{bench.sha}|{bench.thresholds}|chosen against chosen|{DRAWS}")) / name
    return kept(bench, cases, folder, lambda subject, case, i: cited(subject, bench.seed + i))


def run(bench: Bench) -> dict[str, Any]:
    """Measures every set of SETS that is there."""
    result: dict[str, Any] = {"sets": {}}
    for name, split, cases in photos(bench, SETS):
        rows = rows_of(bench, cases, name)
        result["sets"][name] = {"split": split, **summary(bench, cases, rows)}
        gallery.write(bench, cases, column(rows, "joined/drop") - column(rows, "joined/random"), name)
    return {"meta": bench.meta(thresholds=bench.thresholds, draws=DRAWS), **result}


def summary(bench: Bench, cases: list[Case], rows: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    """Returns which region -> measure -> mean with interval, and the number `n` of photos that have cited regions."""
    resamples = metrics.GroupBootstrap([cluster(c) for c in cases], bench.n_boot, bench.seed)
    by_region = {
        which: {k: resamples.interval(metrics.mean(column(rows, f"{which}/{k}"))) for k in MEASURES} for which in WHICH
    }
    return {"n": sum(bool(row) for row in rows), **by_region}


def headline(result: dict[str, Any]) -> str:
    """Says so where the cited regions, together or the strongest alone, matter no more than chance; else empty."""
    figures = next(iter(result["sets"].values()), {})
    sentences = {
        "joined": "The regions of all cited criteria together matter no more to the answer than random places of the "
        "lesion as large",
        "pivotal": "The cited region with the largest effect matters no more than the strongest of as many random "
        "places of the same sizes",
    }
    return " ".join(
        f"{sentence} (larger drop than {with_interval(measured)} of them)."
        for which, sentence in sentences.items()
        if (measured := figures.get(which, {}).get("beats_draws")) and measured["low"] <= 0.5
    )


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    text: list[Block | str] = [
        f"Each is taken out of the photo, and so are {result['meta']['draws']} random places of the lesion that are "
        "as large. The finding with the largest effect was chosen by that effect, so the random places it is compared "
        "with are chosen likewise: the strongest of as many, of the same sizes.",
    ]
    for name, figures in result["sets"].items():
        rows = [[WHICH[which], *(with_interval(figures[which][k]) for k in COLUMNS)] for which in WHICH]
        text += [f"**{name}, {figures['split']}**, {figures['n']} photos have some"]
        text += [table(["region", *COLUMNS.values()], rows)]
    return Section.of("Regions of the cited criteria", text)
