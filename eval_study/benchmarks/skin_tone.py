"""Skin tone read from the photo: how far the individual typology angle agrees with the tone that MILK10k labels.

MILK10k gives each lesion a `skin_tone_class`, 0 (very dark) to 5 (very light). Measured on its calib and valid lesions,
for dermoscopy and close-ups apart, since a dermatoscope's light is not daylight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata

from eval_study.benchmarks.blocks import table
from eval_study.benchmarks.common import Bench
from eval_study.benchmarks.sources import answers
from skinclip.core.formatting import with_interval
from skinclip.data.cases import DataError
from skinclip.evaluation import metrics
from skinclip.reporting.document import Section
from skinclip.training.photo_sets import with_clinical

NAME = "skin_tone"
DATA, SPLITS = "milk10k", ("calib", "valid")
DARK = 2  # the highest class that counts as dark skin


def run(bench: Bench) -> dict[str, Any]:
    """Agreement for each kind of photo. Raises DataError without labelled photos."""
    cases = [c for c in with_clinical(bench.cases(DATA, *SPLITS)) if c.skin_tone is not None]
    if not cases:
        raise DataError(f"{bench.data} has no {DATA} photos with a skin tone")
    kinds: dict[str, Any] = {}
    for kind in sorted({str(c.kind) for c in cases}):
        own = [c for c in cases if c.kind == kind]
        ita = answers(bench, f"{DATA}-tone-{kind}", own).ita
        kinds[kind] = agreement(bench, ita, np.array([c.skin_tone for c in own]), [c.lesion_id for c in own])
    return {"meta": bench.meta(data=DATA, splits=list(SPLITS), dark=DARK), "kinds": kinds}


def agreement(bench: Bench, ita: np.ndarray, tone: np.ndarray, groups: list[str]) -> dict[str, Any]:
    """Rank correlation of angle and class, and how well the angle tells dark skin, over photos whose skin was seen."""
    seen = np.isfinite(ita)
    resamples = metrics.GroupBootstrap([g for g, s in zip(groups, seen, strict=True) if s], bench.n_boot, bench.seed)
    angle, label = ita[seen], tone[seen]
    return {
        "n": len(ita),
        "n_measured": int(seen.sum()),
        "spearman": resamples.interval(correlation(rankdata(angle), rankdata(label))),
        "auroc_dark": resamples.interval(metrics.auroc(-angle, label <= DARK)),
        "classes": {str(c): _quartiles(angle[label == c]) for c in np.unique(label)},
    }


def _quartiles(angle: np.ndarray) -> dict[str, Any]:
    return {"n": len(angle), "quartiles": np.percentile(angle, (25, 50, 75)).tolist()}


def correlation(x: np.ndarray, y: np.ndarray) -> metrics.Metric:
    """Pearson's correlation of `x` and `y` [n]; of ranks it is Spearman's."""

    def figure(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(axis=1)
        mean_x, mean_y = weights @ x / total, weights @ y / total
        covariance = weights @ (x * y) / total - mean_x * mean_y
        spread = (weights @ x**2 / total - mean_x**2) * (weights @ y**2 / total - mean_y**2)
        defined = spread > 0
        return np.where(defined, covariance / np.sqrt(np.where(defined, spread, 1.0)), np.nan)

    return figure


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    rows = [
        [kind, f"{k['n_measured']} of {k['n']}", with_interval(k["spearman"]), with_interval(k["auroc_dark"])]
        for kind, k in result["kinds"].items()
    ]
    classes = [
        [kind, c, one["n"], *(f"{angle:.0f}" for angle in one["quartiles"])]
        for kind, k in result["kinds"].items()
        for c, one in k["classes"].items()
    ]
    return Section.of(
        "Skin tone read from the photo",
        [
            f"Individual typology angle (ITA) around the lesion against MILK10k's `skin_tone_class`, splits "
            f"{' and '.join(result['meta']['splits'])}. *Dark*: class {result['meta']['dark']} or lower. Exposure and "
            "light move the angle, so it tells whether skin looks as on the training photos, not somebody's skin type.",
            table(["kind", "photos with skin to measure", "rank correlation", "AUROC, dark against light"], rows),
            table(["kind", "class", "photos", "ITA, lower quartile", "median", "upper quartile"], classes),
        ],
    )
