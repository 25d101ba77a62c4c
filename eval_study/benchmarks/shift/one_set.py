"""Every figure of one data set under shift: diagnosis, malignancy, the shift score and what abstaining gains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from eval_study.benchmarks.common import (
    Bench,
    Measured,
    diagnosis_metrics,
    malignancy_metrics,
)
from skinclip.calibration.outputs import MALIGNANT, NEITHER
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.evaluation import metrics

NO_GROUP = "not given"
LEVELS = np.linspace(0, 1, 101)
Wanted = Mapping[str, metrics.Metric]
Figures = dict[str, Any]


def block(bench: Bench, m: Measured, reference: Measured | None) -> Figures:
    """Every figure of one set; `reference` is what its shift score is held against, None for the reference itself."""
    resamples = metrics.GroupBootstrap(list(m.groups), bench.n_boot, bench.seed)
    present = np.unique(m.labels[m.labels >= 0])
    labelled = m.labels >= 0
    floor = metrics.ece_noise_floor(m.probabilities[labelled], bench.n_boot, bench.seed)

    def intervals(wanted: Wanted) -> Figures:
        return {name: resamples.interval(metric) for name, metric in wanted.items()}

    restricted = None
    if 1 < len(present) < len(DIAGNOSIS_CODES):
        p, labels, balanced = to_classes(m, present)
        restricted = intervals(diagnosis_metrics(p, labels, balanced.argmax(axis=1)))
    return {
        "n": len(m),
        "n_groups": resamples.n_groups,
        "n_labelled": int(labelled.sum()),
        "n_malignant": int((m.malignant == 1).sum()),
        "n_benign": int((m.malignant == 0).sum()),
        "seed": bench.seed,
        "classes": [DIAGNOSIS_CODES[c] for c in present],
        **intervals(diagnosis_metrics(m.probabilities, m.labels, m.balanced.argmax(axis=1))),
        "ece_noise_floor": {"value": floor["mean"], "low": floor["low"], "high": floor["high"]},
        **intervals(malignancy_metrics(m)),
        "restricted": restricted,
        "malignant_by_class": _malignant_by_class(m, intervals),
        "shift": shift_figures(bench, m, reference),
        "abstaining": intervals(abstaining(m, ~out_of_domain(bench, m))),
        "scores": np.quantile(m.shift, LEVELS).tolist(),
    }


def to_classes(m: Measured, present: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities over the classes `present` [P] alone, labels by place in `present`, and p / prior of those classes.

    The page would not know which diagnoses a set is made of: this tells how much of the error is confusion with others.
    """
    p = m.probabilities[:, present]
    place = np.full(len(DIAGNOSIS_CODES) + 1, -1)  # the last one is for the label -1
    place[present] = np.arange(len(present))
    return p / np.maximum(p.sum(axis=1, keepdims=True), 1e-12), place[m.labels], m.balanced[:, present]


def _malignant_by_class(m: Measured, intervals: Callable[[Wanted], Figures]) -> Figures | None:
    """Figures with malignancy as the model counts it, by diagnosis, where a set's own labels differ from that."""
    by_class = np.where(m.labels >= 0, MALIGNANT[m.labels].astype(np.int64), m.malignant)
    differs = (m.labels >= 0) & (m.malignant >= 0) & (by_class != m.malignant)
    if not differs.any():
        return None
    codes = [DIAGNOSIS_CODES[c] for c in np.unique(m.labels[differs])]
    return {"n_differs": int(differs.sum()), "classes": codes, **intervals(malignancy_metrics(m, by_class))}


def out_of_domain(bench: Bench, m: Measured) -> np.ndarray:
    """[n] bool."""
    return ~bench.assessor.calibrator.shift.in_domain(m.shift)


def shift_figures(bench: Bench, m: Measured, reference: Measured | None) -> Figures:
    """Shares called out of domain and recognised as of neither kind, and the AUROC of the shift score against
    `reference`; groups of both are resampled.

    Photos of one lesion in both sets are resampled together.
    """
    called = bench.interval(metrics.mean(out_of_domain(bench, m).astype(float)), list(m.groups))
    kinds = np.array(bench.assessor.calibrator.kinds_of(m.style))
    neither = bench.interval(metrics.mean((kinds == NEITHER).astype(float)), list(m.groups))
    if reference is None:
        return {"out_of_domain": called, "neither": neither, "auroc": None}
    scores = np.concatenate([m.shift, reference.shift])
    shifted = np.arange(len(scores)) < len(m)
    auroc = bench.interval(metrics.auroc(scores, shifted), [*m.groups, *reference.groups])
    if auroc and len(set(m.groups)) < 2:  # the reference's photos alone would make up the interval
        auroc |= {"low": None, "high": None}
    return {"out_of_domain": called, "neither": neither, "auroc": auroc}


def abstaining(m: Measured, kept: np.ndarray) -> dict[str, metrics.Metric]:
    """The share `kept` [n] bool, and accuracy, sensitivity and specificity of those kept, with the gain over all."""
    right = m.probabilities.argmax(axis=1) == m.labels
    of = {
        "accuracy": (right, m.labels >= 0),
        "sensitivity": (m.refer, m.malignant == 1),
        "specificity": (~m.refer, m.malignant == 0),
    }
    wanted = {"kept": metrics.mean(kept.astype(float))}
    for name, (hits, among) in of.items():
        wanted[f"{name}_kept"] = metrics.share(hits, among & kept)
        wanted[f"{name}_gain"] = metrics.difference(metrics.share(hits, among & kept), metrics.share(hits, among))
    return wanted


def by_group(bench: Bench, m: Measured, reference: Measured) -> dict[str, Figures] | None:
    """The figures of each group of a set (Fitzpatrick types of PAD-UFES-20), None where it has none."""
    names = np.array([case.group or NO_GROUP for case in m.cases], dtype=object)
    groups = sorted(set(names) - {NO_GROUP})
    if not groups:
        return None
    if (names == NO_GROUP).any():
        groups.append(NO_GROUP)
    return {name: block(bench, m.where(names == name), reference) for name in groups}
