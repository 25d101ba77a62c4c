"""CFA against the losses that are used for long-tailed diagnosis, and CFA less each of its terms.

All losses train the same head without language (`heads.py`) on the same frozen features, draws and steps; three seeds
each. CFA is that of the checkpoint's own recipe. Every run is calibrated on calib in the same way, from the prior that
its loss in effect trains at, and starts there, so that none is credited or charged for that prior. Beside the diagnosis
stands what each of CFA's terms is for: criteria (alignment, where evidence is not frozen), calibration before any is
fitted (calibration), agreement of two views of a photo (consistency). The choice between losses is made on valid; test
is beside it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import softmax
from torch import Tensor, nn

from eval_study.benchmarks.blocks import picture, table
from eval_study.benchmarks.common import (
    Bench,
    diagnosis_metrics,
    finite,
    labels_of,
    save_arrays,
)
from eval_study.benchmarks.features import AssessedPhotos, Features, augmented, features_of, frozen_sha
from eval_study.benchmarks.heads import Loss, Trained, head_logits, train_head
from skinclip.calibration.temperature import fit_calibration
from skinclip.core.config import TrainConfig
from skinclip.core.formatting import number, with_interval
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.data.cases import Case, DataError
from skinclip.evaluation import metrics
from skinclip.evaluation.scores import cluster
from skinclip.model.allocator import keep_memory
from skinclip.model.criteria import criterion_log_probs
from skinclip.model.plain import IMAGE_SIZE
from skinclip.reporting import style
from skinclip.reporting.document import Block, Picture, Section, Table
from skinclip.training.losses import (
    MISSING,
    CFAInputs,
    CFALoss,
    FocalLoss,
    class_balanced_weights,
    log_shares,
    prior_tilt,
)
from skinclip.training.photo_sets import photo_set
from skinclip.training.run import gather_calibrated, training_photos
from skinclip.training.sampling import class_counts, natural_prior

NAME = "losses"
_VERSION = 2  # of the head and of what it is trained on: runs kept by another version are not used
SEEDS = (0, 1, 2)
STEPS, BATCH_SIZE = 300, 32
DATA = "ham10000"
CHOSEN_ON = "valid"
TWO_VIEWS = "two_views"  # each photo of CHOSEN_ON under two augmentations
CRITERIA_DATA = "derm7pt"
# Classes by the number of their training photos: the long tail's head, middle and tail.
HEAD_FROM, MIDDLE_FROM = 2000, 300
FIGURES = ("balanced_accuracy", "balanced_accuracy_argmax", "auroc_macro", "nll", "brier", "ece")
PURPOSES = {
    "criteria_auroc": "criteria, mean AUROC (Derm7pt valid)",
    "ece_raw": "ECE before fitting",
    "disagreement": "disagreement of two views",
}
RECALLS = ("recall_head", "recall_middle", "recall_tail")
TITLES = {
    "cross_entropy": "cross-entropy",
    "weighted": "cross-entropy, weighted by inverse frequency",
    "focal": "focal, gamma 2 (Lin et al. 2017)",
    "class_balanced": "class-balanced, beta 0.999 (Cui et al. 2019)",
    "ldam_drw": "LDAM-DRW (Cao et al. 2019)",
    "logit_adjustment": "logit adjustment (Menon et al. 2021)",
    "cfa": "CFA (shipped)",
    "cfa_gamma": "CFA, focal gamma 1 added",
    "cfa_weights": "CFA, class weights and gamma 1 in place of logit adjustment",
    "cfa_unbalanced": "CFA, plain cross-entropy in place of the focal part",
    "cfa_less_alignment": "CFA less alignment",
    "cfa_less_calibration": "CFA less calibration",
    "cfa_less_consistency": "CFA less consistency",
    "cfa_less_departure": "CFA less departure from the readout",
}


class LDAM(nn.Module):
    """Label-distribution-aware margins with deferred re-weighting (Cao et al. 2019).

    The margin of class c is `largest` * (n_min / n_c)^(1/4), in units of cosine; logits are cosines times `scale`.
    Class-balanced weights (beta 0.9999) set in after 80 % of the training.
    """

    margins: Tensor
    late_weight: Tensor

    def __init__(self, counts: list[int], largest: float = 0.5, scale: float = 10.0) -> None:
        super().__init__()
        n = torch.tensor(counts, dtype=torch.float32).clamp_min(1)
        self.register_buffer("margins", largest * scale * (n.min() / n) ** 0.25)
        self.register_buffer("late_weight", class_balanced_weights(counts, 0.9999))

    def forward(self, logits: Tensor, target: Tensor, done: float) -> Tensor:
        """The mean over labelled photos; `done` is the share of the training that is over."""
        kept = target != MISSING
        logits, target = logits[kept], target[kept]
        lowered = logits - F.one_hot(target, logits.shape[1]) * self.margins[target].unsqueeze(1)
        return F.cross_entropy(lowered, target, self.late_weight if done >= 0.8 else None)


def losses(counts: list[int], recipe: TrainConfig) -> dict[str, Loss]:
    """All losses by name, fresh (CFA remembers recent predictions), for training classes of `counts` photos."""
    n = torch.tensor(counts, dtype=torch.float32).clamp_min(1)
    inverse = (1 / n) / (1 / n).mean()
    ldam = LDAM(counts, scale=10.0)
    shipped = dataclasses.replace(recipe.loss, w_lang=0.0)

    def of(module: FocalLoss) -> Loss:
        return Loss(lambda x, _: module(x.logits, x.target), tilt=module.class_weight)

    def ce(x: CFAInputs, adjust: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        logits = x.logits if adjust is None else x.logits + adjust
        return F.cross_entropy(logits, x.target, weight, ignore_index=MISSING)

    def cfa(**changes: float) -> Loss:
        config = dataclasses.replace(shipped, **changes)
        by_source = config.by_source and config.tau > 0  # else it is not adjusted, by whatever prior
        module = CFALoss(config, class_counts=None if by_source else counts)
        tilt = None if by_source else prior_tilt(counts, config.beta, config.tau)
        return Loss(lambda x, _: module(x)["total"], config.w_con > 0, tilt, by_source)

    return {
        "cross_entropy": Loss(lambda x, _: ce(x)),
        "weighted": Loss(lambda x, _: ce(x, weight=inverse), tilt=inverse),
        "focal": of(FocalLoss(None, gamma=2.0)),
        "class_balanced": of(FocalLoss(counts, beta=0.999, gamma=0.0)),
        "ldam_drw": Loss(lambda x, done: ldam(x.logits, x.target, done), tilt=ldam.late_weight),
        "logit_adjustment": Loss(lambda x, _: ce(x, adjust=log_shares(counts)), tilt=prior_tilt(counts, 0.0, 1.0)),
        "cfa": cfa(),
        "cfa_gamma": cfa(gamma=1.0),
        "cfa_weights": cfa(gamma=1.0, beta=0.999, tau=0.0),
        "cfa_unbalanced": cfa(gamma=0.0, beta=0.0, tau=0.0),
        "cfa_less_alignment": cfa(w_align=0.0),
        "cfa_less_calibration": cfa(w_cal=0.0),
        "cfa_less_consistency": cfa(w_con=0.0),
        "cfa_less_departure": cfa(w_departure=0.0),
    }


def feature_sets(bench: Bench, *splits: str) -> dict[str, Features]:
    """Features of the training photos ("train") and of HAM10000's named splits.

    Views that stage 2 has kept are taken where `bench.work / "cache"` is the cache of that training. Raises DataError
    for a split without a case.
    """
    keep_memory()
    model, recipe, cache = bench.assessor.model, bench.recipe, bench.work / "cache"
    train = training_photos(recipe, gather_calibrated(bench.data, cache)["train"], cache)
    sets = {"train": augmented(model, train, recipe, cache)}

    def assessed(cases: list[Case]) -> Features:
        # the pixels are those that the plain classifier reads
        return features_of(model, AssessedPhotos(photo_set(cases, IMAGE_SIZE, cache)), cache)

    for split in splits:
        cases = bench.cases(DATA, split)
        if not cases:
            raise DataError(f"{bench.data} has no cases of {DATA}, split {split}")
        bench.touch_test(DATA, cases)
        sets[split] = assessed(cases)
        if split == CHOSEN_ON:
            sets[TWO_VIEWS] = augmented(model, photo_set(cases, recipe.photo_size, cache), recipe, cache)
    labelled = [c for c in bench.cases(CRITERIA_DATA, CHOSEN_ON) if c.criteria]
    if labelled and not model.evidence.frozen:  # which says the same of criteria whatever a head learns
        sets[CRITERIA_DATA] = assessed(labelled)
    return sets


def prior_shift(sets: dict[str, Features], trained: np.ndarray) -> np.ndarray:
    """[C] log natural prior less log prior as trained."""
    return np.log(home_prior(sets)) - np.log(np.maximum(trained, 1e-6))


def calibrated(logits: dict[str, np.ndarray], sets: dict[str, Features], trained: np.ndarray) -> dict[str, np.ndarray]:
    """Probabilities at natural prevalence by split: bias-corrected temperature fitted on calib, as shipped."""
    fitted = fit_calibration(logits["calib"], sets["calib"].photos.diagnosis.numpy(), prior_shift(sets, trained))
    return {split: fitted.apply(values) for split, values in logits.items()}


def home_prior(sets: dict[str, Features]) -> np.ndarray:
    """[C] shares of the diagnoses among the training photos of the data set that calib is from."""
    train, sources = sets["train"].photos, {c.source for c in sets["calib"].photos.cases}
    home = torch.tensor([c.source in sources for c in train.cases])
    return natural_prior(train.diagnosis[home]).numpy()


def metrics_of(p: np.ndarray, prior: np.ndarray, labels: np.ndarray, counts: list[int]) -> dict[str, metrics.Metric]:
    """The metrics of one run's probabilities."""
    balanced = (p / prior).argmax(axis=1)
    groups = {
        "recall_head": [c for c, n in enumerate(counts) if n >= HEAD_FROM],
        "recall_middle": [c for c, n in enumerate(counts) if MIDDLE_FROM <= n < HEAD_FROM],
        "recall_tail": [c for c, n in enumerate(counts) if n < MIDDLE_FROM],
    }
    return {
        **diagnosis_metrics(p, labels, balanced),
        **{k: metrics.mean_of([metrics.recall(labels, balanced, c) for c in cs]) for k, cs in groups.items()},
    }


def run(bench: Bench, splits: tuple[str, ...] = ("valid", "test"), seeds: tuple[int, ...] = SEEDS) -> dict[str, Any]:
    """Every loss and seed, each kept in `bench.work` and not trained again."""
    sets = feature_sets(bench, "calib", *splits)
    counts = class_counts(sets["train"].photos.diagnosis).tolist()
    # less a term that the recipe does without would be the same run again
    names = [name for name in TITLES if name != "cfa_less_departure" or bench.recipe.loss.w_departure]
    kept = {(name, s): one_run(bench, sets, name, s, splits) for name in names for s in seeds}
    seconds = sum(float(run["seconds"]) for run in kept.values())
    return {
        "meta": bench.meta(
            train=len(sets["train"]),
            steps=STEPS,
            batch_size=BATCH_SIZE,
            seeds=list(seeds),
            cpu_hours=cpu_hours(seconds),
        ),
        "classes": {"counts": dict(zip(DIAGNOSIS_CODES, counts, strict=True))},
        "purposes": {
            name: {f: [float(kept[name, s][f]) for s in seeds] for f in PURPOSES if f in kept[name, seeds[0]]}
            for name in names
        },
        **{split: summary(bench, kept, sets, counts, split, seeds) for split in splits},
    }


def cpu_hours(seconds: float) -> float:
    """Core hours of `seconds` of wall time on all threads."""
    return seconds * torch.get_num_threads() / 3600


def one_run(
    bench: Bench, sets: dict[str, Features], name: str, seed: int, splits: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Probabilities of one loss and seed by split, with the seconds it took."""
    path = run_path(bench, name, seed, splits)
    if not path.exists():
        loss = losses(class_counts(sets["train"].photos.diagnosis).tolist(), bench.recipe)[name]
        trained = train_head(bench.assessor.model, sets["train"], bench.recipe, loss, STEPS, BATCH_SIZE, seed)
        logits = {split: head_logits(trained.model, sets[split])[0] for split in ("calib", *splits)}
        probabilities = calibrated(logits, sets, trained.prior)
        extra = purposes(trained, sets, logits)
        save_arrays(path, {**{s: probabilities[s] for s in splits}, **extra, "seconds": np.array(trained.seconds)})
    return dict(np.load(path))


def purposes(trained: Trained, sets: dict[str, Features], logits: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Measures of what CFA's terms are for, on valid photos alone.

    Returns:
        "ece_raw": ECE of the head's own softmax, brought to the natural prior, before anything is fitted;
        "disagreement": mean total variation between the answers to two augmented views of a photo;
        "criteria_auroc": mean over the criteria of Derm7pt of the macro AUROC of their states.
        Those whose photos are not there are left out.
    """
    figures = {}
    shift = prior_shift(sets, trained.prior)
    if CHOSEN_ON in logits:
        p = softmax(logits[CHOSEN_ON] + shift, axis=1)
        figures["ece_raw"] = _plainly(metrics.ece(p, sets[CHOSEN_ON].photos.diagnosis.numpy()), len(p))
    if TWO_VIEWS in sets:
        first, second = (
            softmax(head_logits(trained.model, sets[TWO_VIEWS], view=v)[0] + shift, axis=1) for v in (0, 1)
        )
        figures["disagreement"] = np.abs(first - second).sum(axis=1).mean() / 2
    if CRITERIA_DATA in sets:
        labels = sets[CRITERIA_DATA].photos.criteria.numpy()
        rows = criterion_log_probs(head_logits(trained.model, sets[CRITERIA_DATA])[1])
        each = [metrics.auroc_macro(row.numpy(), labels[:, q]) for q, row in enumerate(rows)]
        figures["criteria_auroc"] = _plainly(metrics.mean_of(each), len(labels))
    return {name: np.asarray(value) for name, value in figures.items()}


def _plainly(metric: metrics.Metric, n: int) -> float:
    """A metric of all n photos, once each."""
    return float(metric(np.ones((1, n)))[0])


def run_path(bench: Bench, name: str, seed: int, splits: tuple[str, ...]) -> Path:
    """File of a run, named by all it depends on; the language part's weights are not among it."""
    model = bench.assessor.model
    settings = f"{_VERSION}|{frozen_sha(model)}|{model.config}|{bench.recipe}|{STEPS}|{BATCH_SIZE}|{splits}"
    return bench.work / "losses" / f"{name}-{seed}-{hashlib.sha256(settings.encode()).hexdigest()[:16]}.npz"


def summary(
    bench: Bench,
    kept: dict[tuple[str, int], dict[str, np.ndarray]],
    sets: dict[str, Features],
    counts: list[int],
    split: str,
    seeds: tuple[int, ...],
) -> dict[str, Any]:
    """Mean over seeds with interval, spread between seeds, and the paired difference CFA less the other loss."""
    cases = sets[split].photos.cases
    labels, prior = labels_of(cases), home_prior(sets)
    resamples = metrics.GroupBootstrap([cluster(c) for c in cases], bench.n_boot, bench.seed)
    of = {key: metrics_of(run[split], prior, labels, counts) for key, run in kept.items()}
    names = list(dict.fromkeys(name for name, _ in kept))
    mean = {(n, f): metrics.mean_of([of[n, s][f] for s in seeds]) for n in names for f in (*FIGURES, *RECALLS)}
    ones = np.ones((1, len(labels)))
    return {
        "n": len(labels),
        "losses": {
            name: {
                f: {
                    **(resamples.interval(mean[name, f]) or {}),
                    "seeds": [finite(float(of[name, s][f](ones)[0])) for s in seeds],
                    "cfa_less_this": None
                    if name == "cfa"
                    else resamples.interval(metrics.difference(mean["cfa", f], mean[name, f])),
                }
                for f in (*FIGURES, *RECALLS)
            }
            for name in names
        },
    }


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    meta = result["meta"]
    text: list[Block | str] = [
        f"The head without language on frozen features of {meta['train']} training photos, {meta['steps']} steps of "
        f"{meta['batch_size']}, {len(meta['seeds'])} seeds; calibrated on calib alike. Mean over seeds with 95 % "
        "interval by bootstrap of lesions; ± is the standard deviation between seeds. "
        f"{meta['cpu_hours']:.2f} core hours.",
    ]
    for split in ("valid", "test"):
        if split not in result:
            continue
        text += [f"**HAM10000 {split}**, n = {result[split]['n']}"]
        text += [_table(result[split]["losses"])]
    text += [*_purpose_text(result["purposes"])]
    return Section.of("Losses", [*text, _chart(result)])


def _purpose_text(by_loss: dict[str, dict[str, list[float]]]) -> list[Block | str]:
    """Table of what CFA's terms are for, mean over seeds; empty where none was measured."""
    measured = [f for f in PURPOSES if by_loss["cfa"].get(f)]
    if not measured:
        return []
    rows = [
        [TITLES[name], *(f"{np.mean(own[f]):.3f} ± {np.std(own[f], ddof=1):.3f}" for f in measured)]
        for name, own in by_loss.items()
    ]
    criteria = "alignment for criteria, " if "criteria_auroc" in measured else ""
    text = (
        f"What CFA's terms are for, on valid photos: {criteria}calibration for a softmax that can be believed before "
        "anything is fitted, consistency for the same answer to two augmented views (total variation)."
    )
    return [text, table(["loss", *(PURPOSES[f] for f in measured)], rows)]


def _table(by_loss: dict[str, Any]) -> Table:
    header = ["loss", "balanced accuracy", "CFA less this", "argmax p", "AUROC", "NLL", "CFA less this", "Brier", "ECE"]
    rows = []
    for name, f in by_loss.items():
        accuracy, nll = f["balanced_accuracy"], f["nll"]
        cells = [TITLES[name], _with_spread(accuracy), _gap(accuracy)]
        cells += [number(f[k].get("value")) for k in ("balanced_accuracy_argmax", "auroc_macro")]
        cells += [_with_spread(nll), _gap(nll)]
        cells += [number(f[k].get("value")) for k in ("brier", "ece", *RECALLS)]
        rows.append(cells)
    return table([*header, "recall head", "middle", "tail"], rows)


def _with_spread(f: dict[str, Any]) -> str:
    return f"{with_interval(f)} ± {np.std(f['seeds'], ddof=1):.3f}"


def _gap(f: dict[str, Any]) -> str:
    return "" if f["cfa_less_this"] is None else with_interval(f["cfa_less_this"], sign=True)


@style.styled
def _chart(result: dict[str, Any]) -> Picture:
    split = "test" if "test" in result else "valid"
    by_loss = result[split]["losses"]
    colours = [style.BLUE if name.startswith("cfa") else style.ORANGE for name in by_loss]
    figure, axes = style.charts(2, width=4.6, height=3.8)
    for ax, (f, title) in zip(axes, (("balanced_accuracy", "Balanced accuracy"), ("nll", "NLL")), strict=True):
        style.dots(ax, [row[f] for row in by_loss.values()], colours)
        ax.set_title(f"{title}, HAM10000 {split}")
    axes[0].set_yticks(range(len(by_loss))[::-1], [TITLES[name] for name in by_loss])
    axes[1].set_yticks([])
    return picture(figure, "losses", "Balanced accuracy and NLL of each loss")
