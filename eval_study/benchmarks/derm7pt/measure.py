"""The Derm7pt benchmark's measurement: the model as shipped, the commonest state, and readouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval_study.benchmarks.common import (
    Bench,
)
from eval_study.benchmarks.derm7pt.photos import CROPS, DATA, MARGIN, view
from eval_study.benchmarks.derm7pt.readouts import (
    FOLDS,
    READOUTS,
    chosen_strengths,
    features,
    fit_predict,
    folds_of,
    out_of_fold,
)
from eval_study.benchmarks.derm7pt.tasks import (
    DIAG,
    MEL,
    STATES,
    ByTask,
    as_shipped,
    at_prevalence,
    commonest,
    cross_calibrated,
    labels_of,
    shares,
)
from skinclip.core.vocabulary import DERM7PT_GROUPS
from skinclip.data.cases import DataError
from skinclip.evaluation import metrics

NAME = "derm7pt"
SPLITS = ("valid", "test")
# Read in the papers: both use clinical photo, dermoscopy and context, and are measured on the official test split.
PUBLISHED = (
    {"system": "TFormer (Zhang et al. 2023)", "average": 0.7799, DIAG: 0.8003},
    {"system": "SkinM2Former (Zhang et al. 2024)", "average": 0.7727, DIAG: 0.7785},
)


def figures_of(p: ByTask, labels: ByTask, resamples: metrics.GroupBootstrap) -> dict[str, Any]:
    """Accuracy and macro AUROC of each task, their averages, and melanoma's sensitivity, precision and AUROC."""
    accuracy = {task: metrics.accuracy(own, p[task].argmax(axis=1)) for task, own in labels.items()}
    auroc = {task: metrics.auroc_macro(p[task], own) for task, own in labels.items()}
    guess, truth = p[DIAG].argmax(axis=1), labels[DIAG]
    averages = {
        "average": metrics.mean_of(list(accuracy.values())),
        "criteria_accuracy": metrics.mean_of([m for task, m in accuracy.items() if task != DIAG]),
        "criteria_auroc": metrics.mean_of([m for task, m in auroc.items() if task != DIAG]),
        "melanoma_sensitivity": metrics.recall(truth, guess, MEL),
        "melanoma_precision": metrics.precision(truth, guess, MEL),
        "melanoma_auroc": metrics.auroc(p[DIAG][:, MEL], truth == MEL, truth >= 0),
    }
    tasks = {
        task: {
            "n": int((labels[task] >= 0).sum()),
            "accuracy": resamples.interval(accuracy[task]),
            "auroc": resamples.interval(auroc[task]),
        }
        for task in labels
    }
    return {**{name: resamples.interval(metric) for name, metric in averages.items()}, "tasks": tasks}


def average_accuracy(p: ByTask, labels: ByTask) -> metrics.Metric:
    """Mean accuracy over DIAG and the seven criteria, the published papers' average."""
    return metrics.mean_of([metrics.accuracy(own, p[task].argmax(axis=1)) for task, own in labels.items()])


def run(bench: Bench, splits: Sequence[str] = SPLITS) -> dict[str, Any]:
    """The figures on each of `splits` that is there. Raises DataError without `train` or `valid`."""
    if not bench.cases(DATA, "train") or not bench.cases(DATA, "valid"):
        raise DataError(f"{bench.data} has no {DATA} with splits train and valid")
    present = [split for split in splits if bench.cases(DATA, split)]
    possible = {name: parts for name, parts in READOUTS.items() if _possible(bench, parts, ["train", *present])}
    readouts = {(crop, name): _Readout.fit(bench, parts, crop) for crop in CROPS for name, parts in possible.items()}
    crossed = {f"{name}, {crop}": r.cross_validated(bench) for (crop, name), r in readouts.items()}
    chosen = max(crossed, key=lambda name: crossed[name]["valid"]["average"]["value"])
    return {
        "meta": bench.meta(data=DATA, splits=present, folds=FOLDS, crop_margin=MARGIN, tower_saw="train"),
        "splits": {split: _block(bench, split, readouts, chosen) for split in present},
        "cross_validation": crossed,
        "chosen_readout": chosen,
        "strengths": {f"{name}, {crop}": r.strengths for (crop, name), r in readouts.items()},
        "published": list(PUBLISHED),
    }


def _possible(bench: Bench, parts: Sequence[str], splits: Sequence[str]) -> bool:
    """True where every split has the photos that the readout reads; a copy of the set may lack the clinical ones."""
    return "clinical" not in parts or all(any(c.clinical_image for c in bench.cases(DATA, s)) for s in splits)


def _block(bench: Bench, split: str, readouts: Mapping[tuple[str, str], _Readout], chosen: str) -> dict[str, Any]:
    m = bench.measured(DATA, split)
    labels, resamples = labels_of(m.cases), metrics.GroupBootstrap(list(m.groups), bench.n_boot, bench.seed)
    train = labels_of(bench.cases(DATA, "train"))
    prevalence = shares(train[DIAG], len(DERM7PT_GROUPS))
    prior = np.asarray(bench.assessor.calibrator.natural_prior)
    p = {"commonest state": commonest(train, len(m))}
    for crop in CROPS:
        shown = view(bench, split, "dermoscopy", crop)
        own = as_shipped(shown, bench.assessor.calibrator.criteria)
        p[f"criteria not calibrated, {crop}"] = as_shipped(shown)
        p[f"criteria calibrated on the other folds of {split}, {crop}"] = cross_calibrated(shown, bench.seed)
        p[f"as shipped, {crop}"] = own
        p[f"as shipped at Derm7pt's prevalence, {crop}"] = at_prevalence(own, prior, prevalence)
    for (crop, name), r in readouts.items():
        p[f"{name}, {crop}"] = r.predict(bench, split)
    gain = metrics.difference(average_accuracy(p[chosen], labels), average_accuracy(p["commonest state"], labels))
    return {
        "split": split,
        "n": len(m),
        "n_groups": resamples.n_groups,
        "n_melanoma": int((labels[DIAG] == MEL).sum()),
        "seed": bench.seed,
        "systems": {name: figures_of(own, labels, resamples) for name, own in p.items()},
        "chosen_above_commonest": resamples.interval(gain),
    }


@dataclass(frozen=True)
class _Readout:
    """A readout for each task on one choice of inputs; `strengths` were chosen over folds of train cases."""

    parts: tuple[str, ...]
    crop: str
    strengths: dict[str, float]

    @classmethod
    def fit(cls, bench: Bench, parts: tuple[str, ...], crop: str) -> _Readout:
        m = bench.measured(DATA, "train")
        f = features(bench, ["train"], parts, crop)
        return cls(parts, crop, chosen_strengths(f, labels_of(m.cases), m.groups, bench.seed))

    def predict(self, bench: Bench, split: str) -> ByTask:
        """Probabilities for `split`, fitted on train."""
        f = features(bench, ["train", split], self.parts, self.crop)
        labels = labels_of([*bench.cases(DATA, "train"), *bench.cases(DATA, split)])
        fit = np.arange(len(bench.cases(DATA, "train")))
        rows = np.arange(len(fit), len(f.x))
        return {
            task: fit_predict(f, own, fit, rows, self.strengths[task], len(STATES[task]))
            for task, own in labels.items()
        }

    def cross_validated(self, bench: Bench) -> dict[str, Any]:
        """Folds over train and valid together: figures of all cases, and of the valid and train cases apart."""
        cases = [*bench.cases(DATA, "train"), *bench.cases(DATA, "valid")]
        f, labels = features(bench, ["train", "valid"], self.parts, self.crop), labels_of(cases)
        groups = np.array([f"{c.source}/{c.patient_id or c.lesion_id}" for c in cases])
        folds = folds_of(labels, groups, bench.seed)
        p = {task: out_of_fold(f, own, folds, self.strengths[task], len(STATES[task])) for task, own in labels.items()}
        is_valid = np.array([c.split == "valid" for c in cases])
        parts = {"all": np.ones(len(cases), bool), "valid": is_valid, "train": ~is_valid}
        return {name: self._part(bench, p, labels, groups, np.flatnonzero(rows), folds) for name, rows in parts.items()}

    @staticmethod
    def _part(
        bench: Bench,
        p: ByTask,
        labels: ByTask,
        groups: np.ndarray,
        rows: np.ndarray,
        folds: Sequence[tuple[np.ndarray, np.ndarray]],
    ) -> dict[str, Any]:
        resamples = metrics.GroupBootstrap(list(groups[rows]), bench.n_boot, bench.seed)
        own_p, own_labels = _rows(p, rows), _rows(labels, rows)
        by_fold = []
        for _, fold in folds:
            inside = np.intersect1d(fold, rows)
            metric = average_accuracy(_rows(p, inside), _rows(labels, inside))
            by_fold.append(float(metric(np.ones((1, len(inside))))[0]))
        spread = {"mean": float(np.mean(by_fold)), "sd": float(np.std(by_fold, ddof=1))}
        return {"n": len(rows), "folds": spread, **figures_of(own_p, own_labels, resamples)}


def _rows(table: ByTask, rows: np.ndarray) -> ByTask:
    return {task: values[rows] for task, values in table.items()}
