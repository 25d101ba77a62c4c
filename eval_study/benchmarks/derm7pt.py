"""Derm7pt as published: the diagnosis (DIAG) in its five groups and the seven criteria in their official states.

Three things are measured: the model as it is shipped, the rule that always says the commonest state, and logistic
readouts on the frozen tower's features (dermoscopy; with the clinical photo; with sex and site), which tell what the
features hold whatever the heads make of them. Photos are taken uncropped, as users take them, and cropped to the
lesion. Choices are made on the official `valid` split, the official `test` split is reported where it is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from eval_study.benchmarks import figures
from eval_study.benchmarks.common import (
    Bench,
    Measured,
    criteria_of,
    fingerprint,
    predict,
    save_arrays,
    with_labels,
)
from skinclip.core.vocabulary import CODE_TO_DERM7PT_GROUP, CRITERIA, DERM7PT_GROUPS, DIAGNOSIS_CODES, SEXES, SITES
from skinclip.data.cases import Case, DataError
from skinclip.evaluation import metrics
from skinclip.evaluation.run import log_test_use
from skinclip.imaging.photo import LesionImage, from_array, load_photo
from skinclip.model.criteria import criterion_log_probs
from skinclip.pipeline.assessor import Assessor

NAME = "derm7pt"
DATA = "derm7pt"
SPLITS = ("valid", "test")
DIAG = "diagnosis"
STATES: dict[str, tuple[str, ...]] = {DIAG: DERM7PT_GROUPS, **{c.code: c.labels for c in CRITERIA}}
CROPS = ("uncropped", "cropped")
READOUTS: dict[str, tuple[str, ...]] = {
    "dermoscopy": ("dermoscopy",),
    "dermoscopy + clinical photo": ("dermoscopy", "clinical"),
    "dermoscopy + clinical photo + context": ("dermoscopy", "clinical", "context"),
}
MARGIN = 0.25  # around the lesion's box on each side, in lengths of its longer side
MIN_LESION = 0.002  # share of the photo under which a mask is no lesion
FOLDS = 5
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)  # scikit-learn's C
_TO_GROUP = np.array([[CODE_TO_DERM7PT_GROUP[code] == g for g in DERM7PT_GROUPS] for code in DIAGNOSIS_CODES], float)
_MEL = DERM7PT_GROUPS.index("MEL")
# Read in the papers: both use clinical photo, dermoscopy and context, and are measured on the official test split.
PUBLISHED = (
    {"system": "TFormer (Zhang et al. 2023)", "average": 0.7799, DIAG: 0.8003},
    {"system": "SkinM2Former (Zhang et al. 2024)", "average": 0.7727, DIAG: 0.7785},
)

Table = dict[str, np.ndarray]  # task -> one row a case: labels [n], -1 unlabelled, or probabilities [n, S]


# --- photos -----------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def lesion_box(assessor: Assessor, photo: LesionImage) -> tuple[float, float, float, float] | None:
    """x0, y0, x1, y1 in photo pixels of the largest connected part of the predicted mask; None without a lesion."""
    squashed = assessor.transform.squash(photo.pixels)[None]
    mask = assessor.model.evidence.segment(assessor.model.perceive(squashed).levels)[0].sigmoid().numpy() > 0.5
    if mask.mean() < MIN_LESION:
        return None
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    x, y, w, h, _ = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()]  # row 0 is the background
    across, down = photo.width / mask.shape[1], photo.height / mask.shape[0]
    return x * across, y * down, (x + w) * across, (y + h) * down


def cropped(photo: LesionImage, box: tuple[float, float, float, float] | None) -> LesionImage:
    """The square around `box` with MARGIN on each side, as far as the photo reaches; its centre square without one."""
    height, width = photo.height, photo.width
    x0, y0, x1, y1 = box or (0.0, 0.0, float(width), float(height))
    side = int(np.clip(round(max(x1 - x0, y1 - y0) * (1 + 2 * MARGIN)), 1, min(height, width)))
    x = int(np.clip(round((x0 + x1 - side) / 2), 0, width - side))
    y = int(np.clip(round((y0 + y1 - side) / 2), 0, height - side))
    return from_array(photo.pixels[y : y + side, x : x + side])


def view(bench: Bench, split: str, photo: str, crop: str) -> Measured:
    """Predictions on the dermoscopic or clinical photos of a split; cases without a clinical photo are left out.

    Kept as `Bench.measured` keeps its own, and noted in the ledger alike.
    """
    if photo == "dermoscopy" and crop == "uncropped":
        return bench.measured(DATA, split)
    cases = bench.cases(DATA, split)
    if photo == "clinical":
        cases = [replace(c, image=c.clinical_image, mask=None) for c in cases if c.clinical_image is not None]
    name = f"{DATA}-{split}-{photo}-{crop}-{bench.sha[:12]}-{fingerprint(cases)}.npz"
    path = bench.work / "predictions" / name
    if not path.exists():
        if split == "test":
            log_test_use(bench.ledger, bench.sha, f"{DATA}, {photo}, {crop}", split, len(cases), bench.reason)
        photos = [load_photo(c.image) for c in cases]
        if crop == "cropped":
            photos = [cropped(p, lesion_box(bench.assessor, p)) for p in photos]
        save_arrays(path, predict(bench.assessor, cases, photos))
    return with_labels(cases, dict(np.load(path)))


# --- labels and probabilities -----------------------------------------------------------------------------------------


def labels_of(cases: Sequence[Case]) -> Table:
    """Task -> [n] number of the state in STATES, -1 where it is not labelled."""
    diag = [DERM7PT_GROUPS.index(c.diagnosis_group) if c.diagnosis_group else -1 for c in cases]
    columns = criteria_of(cases)
    return {DIAG: np.array(diag, dtype=np.int64), **{c.code: columns[:, q] for q, c in enumerate(CRITERIA)}}


def as_shipped(m: Measured) -> Table:
    """The model's own probabilities: the criteria's, and the seven diagnoses' added up by group."""
    log_p = criterion_log_probs(torch.from_numpy(np.asarray(m.scores, dtype=np.float32)))
    criteria = {c.code: rows.double().exp().numpy() for c, rows in zip(CRITERIA, log_p, strict=True)}
    return {DIAG: m.probabilities @ _TO_GROUP, **criteria}


def at_prevalence(p: Table, natural_prior: np.ndarray, shares: np.ndarray) -> Table:
    """`p` with DIAG moved from the training data's prevalence [C] to `shares` [5] of the groups."""
    moved = p[DIAG] * shares / (natural_prior @ _TO_GROUP)
    return {**p, DIAG: moved / moved.sum(axis=1, keepdims=True)}


def commonest(train: Table, n: int) -> Table:
    """The training labels' shares for each of `n` cases: deciding by them always says the commonest state."""
    return {task: np.tile(_shares(labels, len(STATES[task])), (n, 1)) for task, labels in train.items()}


def _shares(labels: np.ndarray, n_states: int) -> np.ndarray:
    counts = np.bincount(labels[labels >= 0], minlength=n_states)
    return counts / max(1, counts.sum())


# --- readouts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Features:
    """`x` [n, F]; `weights` [F] give each block of columns the same total variance, lest a wide one drown others."""

    x: np.ndarray
    weights: np.ndarray


def features(bench: Bench, splits: Sequence[str], parts: Sequence[str], crop: str) -> Features:
    """Of each photo the embedding, the evidence scores and the style; context one-hot; NaN where a photo is missing."""
    cases = [case for split in splits for case in bench.cases(DATA, split)]
    blocks: list[np.ndarray] = []
    for part in parts:
        if part == "context":
            blocks.append(context_columns(cases))
            continue
        found = [view(bench, split, part, crop) for split in splits]
        row_of = {c.image_id: i for i, c in enumerate(case for m in found for case in m.cases)}
        rows = np.array([row_of.get(c.image_id, -1) for c in cases])
        for name in ("embeddings", "scores", "style"):
            values = np.concatenate([getattr(m, name) for m in found]).astype(np.float64)
            blocks.append(np.where(rows[:, None] >= 0, values[rows], np.nan))
    weights = np.concatenate([np.full(b.shape[1], b.shape[1] ** -0.5) for b in blocks])
    return Features(np.hstack(blocks), weights)


def context_columns(cases: Sequence[Case]) -> np.ndarray:
    """[n, F] one-hot sex and body site; zeros where not given."""
    rows = [[*(float(c.context.sex == s) for s in SEXES), *(float(c.context.site == s) for s in SITES)] for c in cases]
    return np.array(rows).reshape(len(cases), len(SEXES) + len(SITES))


def readout(weights: np.ndarray, strength: float) -> Pipeline:
    """Logistic regression on standardised, block-weighted features; a missing photo counts as an average one."""
    return make_pipeline(
        StandardScaler(),
        SimpleImputer(strategy="constant", fill_value=0.0, keep_empty_features=True),
        FunctionTransformer(lambda x: x * weights),
        LogisticRegression(C=strength, max_iter=3000),
    )


def fit_predict(
    f: Features, labels: np.ndarray, fit: np.ndarray, rows: np.ndarray, s: float, n_states: int
) -> np.ndarray:
    """[rows, S] probabilities from a readout fitted on the labelled of the rows `fit`."""
    fit = fit[labels[fit] >= 0]
    p = np.zeros((len(rows), n_states))
    present = np.unique(labels[fit])
    if len(present) < 2:  # nothing to tell apart
        p[:, present] = 1.0
        return p
    model = readout(f.weights, s).fit(f.x[fit], labels[fit])
    p[:, model.classes_] = model.predict_proba(f.x[rows])
    return p


def folds_of(labels: Table, groups: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rest, fold) row numbers; a case's photos lie in one fold, DIAG's groups are spread evenly."""
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(groups)), labels[DIAG], groups))


def out_of_fold(
    f: Features, labels: np.ndarray, folds: Sequence[tuple[np.ndarray, np.ndarray]], s: float, n_states: int
) -> np.ndarray:
    """[n, S] probabilities of each row from the readout fitted on the other folds."""
    p = np.zeros((len(labels), n_states))
    for rest, fold in folds:
        p[fold] = fit_predict(f, labels, rest, fold, s, n_states)
    return p


def chosen_strengths(f: Features, labels: Table, groups: np.ndarray, seed: int) -> dict[str, float]:
    """For each task the strength of least log loss over folds of these rows."""
    folds, found = folds_of(labels, groups, seed), {}
    for task, own in labels.items():
        known, n_states = own >= 0, len(STATES[task])
        losses = {
            s: log_loss(own[known], out_of_fold(f, own, folds, s, n_states)[known], labels=np.arange(n_states))
            for s in STRENGTHS
        }
        found[task] = min(losses, key=losses.__getitem__)
    return found


# --- figures ----------------------------------------------------------------------------------------------------------


def figures_of(p: Table, labels: Table, resamples: metrics.GroupBootstrap) -> dict[str, Any]:
    """Accuracy and macro AUROC of each task, their averages, and melanoma's sensitivity, precision and AUROC."""
    accuracy = {task: metrics.accuracy(own, p[task].argmax(axis=1)) for task, own in labels.items()}
    auroc = {task: metrics.auroc_macro(p[task], own) for task, own in labels.items()}
    guess, truth = p[DIAG].argmax(axis=1), labels[DIAG]
    averages = {
        "average": metrics.mean_of(list(accuracy.values())),
        "criteria_accuracy": metrics.mean_of([m for task, m in accuracy.items() if task != DIAG]),
        "criteria_auroc": metrics.mean_of([m for task, m in auroc.items() if task != DIAG]),
        "melanoma_sensitivity": metrics.recall(truth, guess, _MEL),
        "melanoma_precision": metrics.precision(truth, guess, _MEL),
        "melanoma_auroc": metrics.auroc(p[DIAG][:, _MEL], truth == _MEL, truth >= 0),
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


def average_accuracy(p: Table, labels: Table) -> metrics.Metric:
    """Mean accuracy over DIAG and the seven criteria, the published papers' average."""
    return metrics.mean_of([metrics.accuracy(own, p[task].argmax(axis=1)) for task, own in labels.items()])


# --- running ----------------------------------------------------------------------------------------------------------


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
    """Whether every split has the photos that the readout reads; a copy of the set may lack the clinical ones."""
    return "clinical" not in parts or all(any(c.clinical_image for c in bench.cases(DATA, s)) for s in splits)


def _block(bench: Bench, split: str, readouts: Mapping[tuple[str, str], _Readout], chosen: str) -> dict[str, Any]:
    m = bench.measured(DATA, split)
    labels, resamples = labels_of(m.cases), metrics.GroupBootstrap(list(m.groups), bench.n_boot, bench.seed)
    train = labels_of(bench.cases(DATA, "train"))
    shares = _shares(train[DIAG], len(DERM7PT_GROUPS))
    prior = np.asarray(bench.assessor.calibrator.natural_prior)
    p = {"commonest state": commonest(train, len(m))}
    for crop in CROPS:
        own = as_shipped(view(bench, split, "dermoscopy", crop))
        p[f"as shipped, {crop}"] = own
        p[f"as shipped at Derm7pt's prevalence, {crop}"] = at_prevalence(own, prior, shares)
    for (crop, name), r in readouts.items():
        p[f"{name}, {crop}"] = r.predict(bench, split)
    gain = metrics.difference(average_accuracy(p[chosen], labels), average_accuracy(p["commonest state"], labels))
    return {
        "split": split,
        "n": len(m),
        "n_groups": resamples.n_groups,
        "n_melanoma": int((labels[DIAG] == _MEL).sum()),
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

    def predict(self, bench: Bench, split: str) -> Table:
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
        p: Table,
        labels: Table,
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


def _rows(table: Table, rows: np.ndarray) -> Table:
    return {task: values[rows] for task, values in table.items()}


# --- the report's section ---------------------------------------------------------------------------------------------


def section(result: dict[str, Any], folder: Path) -> str:
    """The section as Markdown; its chart is drawn into `folder`."""
    meta, blocks, chosen = result["meta"], result["splits"], result["chosen_readout"]
    last = blocks["test"] if "test" in blocks else blocks["valid"]
    parts = [
        "## Derm7pt: diagnosis and the seven criteria",
        "Derm7pt (Kawahara et al. 2019) in its official splits, groups and states; 95 % intervals over "
        f"{meta['resamples']} bootstrap resamples of cases, seed {meta['seed']}, weights "
        f"`{meta['weights_sha256'][:12]}`. *As shipped*: the model's own criterion probabilities, and its seven "
        "diagnoses added up by group; it learnt from the photos of `train`. *Readouts*: logistic regression on the "
        "frozen tower's features, fitted on `train`, its strength chosen over folds of `train`. *Cropped*: the square "
        f"around the predicted lesion with {meta['crop_margin']:.0%} of its length on each side. The average is that "
        "of the published papers, over the diagnosis and seven criteria. Always saying the commonest state comes "
        "close in accuracy, which is why AUROC stands beside it.",
        *(_split_part(block) for block in blocks.values()),
        f"On `{last['split']}` the readout chosen (**{chosen}**) is "
        f"{figures.shown(last['chosen_above_commonest'])} above the commonest state on average.",
        f"### Each task, `{last['split']}`",
        _task_table(last["systems"], chosen),
        _chart(last, chosen, folder),
        "### Cross-validation over train and valid",
        f"{meta['folds']} folds by case. **The frozen tower learnt from the photos of `train`, labels and all, so "
        "folds made of `train` cases are optimistic**, and more so the longer it was trained; the `valid` cases of the "
        "folds are the honest part, and chose the readout. For the same reason a readout fitted on `train`, which the "
        "tower knows by heart, is held back a little elsewhere.",
        _cross_table(result["cross_validation"]),
        "### Published systems",
        "Measured by their authors on the official test split, from clinical photo, dermoscopy and context together. "
        + _comparable("test" in blocks),
        _published_table(result),
    ]
    return "\n\n".join(parts) + "\n"


def _comparable(has_test: bool) -> str:
    if has_test:
        return "The last line is the readout chosen here on the same split."
    return "The figures above are not on that split, and are not comparable with these."


def _split_part(block: Mapping[str, Any]) -> str:
    head = f"### `{block['split']}`: {block['n']} cases, {block['n_melanoma']} melanomas"
    keys = ("average", "criteria_accuracy", "criteria_auroc")
    header = ["system", "average of 8", "criteria, accuracy", "criteria, AUROC", "diagnosis, accuracy"]
    header += ["diagnosis, AUROC", "melanoma sensitivity", "precision", "AUROC"]
    melanoma = ("melanoma_sensitivity", "melanoma_precision", "melanoma_auroc")
    rows = [
        [
            name,
            *(figures.shown(s[k]) for k in keys),
            *(figures.shown(s["tasks"][DIAG][k]) for k in ("accuracy", "auroc")),
            *(figures.shown(s[k]) for k in melanoma),
        ]
        for name, s in block["systems"].items()
    ]
    return f"{head}\n\n{figures.table(header, rows)}"


def _compared(chosen: str) -> dict[str, str]:
    return {"commonest state": "commonest", "as shipped, uncropped": "as shipped", chosen: f"readout ({chosen})"}


def _task_table(systems: Mapping[str, Any], chosen: str) -> str:
    names = _compared(chosen)
    header = ["task", "labelled", "commonest, accuracy"]
    for text in list(names.values())[1:]:
        header += [f"{text}: accuracy", "AUROC"]
    rows = []
    for task in STATES:
        first, *others = (systems[name]["tasks"][task] for name in names)
        row = [task.replace("_", " "), first["n"], figures.shown(first["accuracy"])]
        for found in others:
            row += [figures.shown(found["accuracy"]), figures.shown(found["auroc"])]
        rows.append(row)
    return figures.table(header, rows)


def _cross_table(crossed: Mapping[str, Any]) -> str:
    header = ["readout", "average of 8, all: mean and SD of folds", "all", "`train` part", "`valid` part"]
    header += ["diagnosis, `valid` part", "criteria AUROC, `valid` part", "melanoma AUROC, `valid` part"]
    rows = [
        [
            name,
            f"{c['all']['folds']['mean']:.3f}, {c['all']['folds']['sd']:.3f}",
            *(figures.shown(c[part]["average"]) for part in ("all", "train", "valid")),
            figures.shown(c["valid"]["tasks"][DIAG]["accuracy"]),
            figures.shown(c["valid"]["criteria_auroc"]),
            figures.shown(c["valid"]["melanoma_auroc"]),
        ]
        for name, c in crossed.items()
    ]
    return figures.table(header, rows)


def _published_table(result: Mapping[str, Any]) -> str:
    rows = [[p["system"], f"{p['average']:.4f}", f"{p[DIAG]:.4f}"] for p in result["published"]]
    if "test" in result["splits"]:
        own = result["splits"]["test"]["systems"][result["chosen_readout"]]
        rows.append(
            [
                f"here: {result['chosen_readout']}",
                figures.shown(own["average"]),
                figures.shown(own["tasks"][DIAG]["accuracy"]),
            ]
        )
    return figures.table(["system", "average of 8, accuracy", "diagnosis, accuracy"], rows)


@figures.styled
def _chart(block: Mapping[str, Any], chosen: str, folder: Path) -> str:
    figure, axes = figures.charts(2, width=4.4, height=3.8)
    at, names = np.arange(len(STATES)), _compared(chosen)
    for ax, key in zip(axes, ("accuracy", "auroc"), strict=True):
        for i, ((name, text), colour) in enumerate(
            zip(names.items(), (figures.GREY, figures.BLUE, figures.ORANGE), strict=True)
        ):
            values, errors = figures.whiskers([block["systems"][name]["tasks"][task][key] for task in STATES])
            label = "readout" if name == chosen else text
            ax.errorbar(values, at + 0.22 * (i - 1), xerr=errors, fmt="o", color=colour, ms=4, capsize=2, label=label)
        ax.set_yticks(at, [task.replace("_", " ") for task in STATES] if key == "accuracy" else [""] * len(at))
        ax.set(xlabel="accuracy" if key == "accuracy" else "macro AUROC", xlim=(0.3, 1.0))
        ax.invert_yaxis()
        ax.grid(axis="x", color=figures.PALE, linewidth=0.6)
    axes[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    alt = f"Accuracy and AUROC of the diagnosis and each criterion on {block['split']}"
    return figures.save(figure, folder, "derm7pt_tasks", alt)
