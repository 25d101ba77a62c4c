"""The model beside what a user would do instead: same test photos, same towers, same calibration.

shipped            the whole model, as the page runs it
no language        evidence finder and two linear layers in place of the language model (three seeds)
readout alone      the linear readout of photo and context that the answer starts from
linear probe       logistic regression on the frozen tower's features
zero-shot          the frozen tower and the descriptions alone
plain              a trunk fine-tuned with cross-entropy, raw softmax as a user would read it
plain, calibrated  the same with the calibration that the model gets
plain, four flips  calibrated, averaged over the mirror images that the model averages over

The plain classifier is the embedded one (`assets/plain`): a smaller trunk, trained on a CPU, fewer and smaller photos.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eval_study.benchmarks import losses
from eval_study.benchmarks.blocks import picture, table
from eval_study.benchmarks.common import Bench, diagnosis_metrics, labels_of
from eval_study.benchmarks.features import Features
from eval_study.benchmarks.heads import EVEN, patients
from skinclip.calibration.kind import labels_among
from skinclip.calibration.temperature import fit_calibration
from skinclip.core.config import Stage0Config, TrainConfig
from skinclip.core.formatting import with_interval
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.evaluation import metrics
from skinclip.evaluation.scores import cluster
from skinclip.model.checkpoint import weights_sha256
from skinclip.model.errors import CheckpointError
from skinclip.model.perception import MIRRORS
from skinclip.model.plain import PLAIN_FOLDER, PlainClassifier, load_plain
from skinclip.model.skinclip_vl import NO_LOGIT, SkinClipVL
from skinclip.reporting import style
from skinclip.reporting.document import Block, Picture, Section, Table
from skinclip.training.derm_clip import stage0_weights
from skinclip.training.losses import MISSING
from skinclip.training.photo_sets import PhotoSet
from skinclip.training.plain import plain_logits
from skinclip.training.sampling import drawn_shares

NAME = "baselines"
FIGURES = ("balanced_accuracy", "balanced_accuracy_argmax", "accuracy", "auroc_macro", "nll", "brier", "ece")
TITLES = {
    "shipped": "SkinCLIP-VL mini",
    "no_language": "without its language part",
    "readout": "its linear readout alone",
    "linear_probe": "linear probe on the frozen tower",
    "zero_shot": "zero-shot, frozen tower and descriptions",
    "plain": "plain fine-tuned trunk, raw softmax",
    "plain_calibrated": "plain fine-tuned trunk, calibrated",
    "plain_flips": "plain fine-tuned trunk, calibrated, four flips",
}
PROBE_C = (0.003, 0.01, 0.03, 0.1, 0.3)


def run(bench: Bench, splits: tuple[str, ...] = ("valid", "test")) -> dict[str, Any]:
    """All systems on HAM10000's `splits`; the plain classifier is left out where it was not trained yet."""
    sets = losses.feature_sets(bench, "calib", *splits)
    prior, model = losses.home_prior(sets), bench.assessor.model
    systems = {
        **no_language(bench, sets, splits),
        **readout_alone(model, sets, splits),
        "linear_probe": linear_probe(sets, splits),
        "zero_shot": zero_shot(model, bench.recipe, sets, splits),
        **plain(sets, splits),
    }
    never = {"shipped", *(["readout"] if model.reasoner.readout is None else [])}
    missing = sorted(set(TITLES) - {name.split("-")[0] for name in systems} - never)
    return {
        "meta": bench.meta(
            not_measured=missing, plain_sha256=weights_sha256(PLAIN_FOLDER) if PLAIN_FOLDER.exists() else None
        ),
        **{split: compare(bench, sets[split], systems, prior, split) for split in splits},
    }


def no_language(bench: Bench, sets: dict[str, Features], splits: tuple[str, ...]) -> dict[str, dict[str, np.ndarray]]:
    """One system a seed: the ablation's runs under CFA are taken from there."""
    runs = {s: losses.one_run(bench, sets, "cfa", s, splits) for s in losses.SEEDS}
    return {f"no_language-{s}": {split: predictions[split] for split in splits} for s, predictions in runs.items()}


@torch.no_grad()
def readout_alone(
    model: SkinClipVL, sets: dict[str, Features], splits: tuple[str, ...]
) -> dict[str, dict[str, np.ndarray]]:
    """The linear readout, which is fitted at even shares of the diagnoses; none where the model has none."""
    readout = model.reasoner.readout
    if readout is None:
        return {}
    logits = {}
    for split in ("calib", *splits):
        whole = (sets[split].part(name)[:, 0] for name in ("embedding", "style"))
        read = readout.read(*whole, patients(c.context for c in sets[split].photos.cases)).double()
        read[:, list(model.known.unknown_columns)] = NO_LOGIT
        logits[split] = read.numpy()
    return {"readout": losses.calibrated(logits, sets, EVEN.numpy())}


def probe_inputs(features: Features) -> np.ndarray:
    """[n, V, E + S] what the probe reads."""
    return torch.cat([features.part("embedding"), features.part("style")], 2).numpy()


def linear_probe(sets: dict[str, Features], splits: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Logistic regression on the features of augmented training photos; its regularisation is chosen on valid."""
    train = sets["train"]
    known = (train.photos.diagnosis != MISSING).numpy()
    inputs = probe_inputs(train)[known]
    x, y = np.concatenate(inputs), train.photos.diagnosis.numpy()[known].repeat(inputs.shape[1])
    drawn = np.bincount(y, minlength=len(DIAGNOSIS_CODES)) / len(y)
    valid = sets["valid"]
    best: tuple[float, dict[str, np.ndarray]] = (np.inf, {})
    for c in PROBE_C:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500)).fit(x, y)
        logits = {s: model.decision_function(probe_inputs(sets[s])[:, 0]) for s in ("calib", *splits)}
        p = losses.calibrated(logits, sets, drawn)
        nll = log_loss(valid.photos.diagnosis.numpy(), p["valid"], labels=range(len(DIAGNOSIS_CODES)))
        best = min(best, (nll, p), key=lambda pair: pair[0])
    return {s: best[1][s] for s in splits}


def zero_shot(
    model: SkinClipVL, recipe: TrainConfig, sets: dict[str, Features], splits: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Similarity of the photo embedding with each diagnosis's descriptions, as stage 0 was trained.

    A recipe that takes the prior out by source is one for towers that were trained so too (`eval_study.gpu.train`).
    """
    prior = EVEN.numpy() if recipe.loss.by_source else drawn_prior(sets["train"].photos, recipe.stage0)
    bank, scale = model.description_bank, model.perception.tower.similarity_scale().clamp(max=50)
    logits = {
        s: (torch.einsum("ne,cpe->ncp", sets[s].part("embedding")[:, 0], bank) * scale).logsumexp(2)
        for s in ("calib", *splits)
    }
    return losses.calibrated({s: v.detach().double().numpy() for s, v in logits.items()}, sets, prior)


def drawn_prior(photos: PhotoSet, cfg: Stage0Config) -> np.ndarray:
    """[C] shares of the diagnoses among photos drawn as stage 0 draws them."""
    weights = stage0_weights(photos.diagnosis, photos.criterion_targets.weight, cfg)
    return drawn_shares(photos.diagnosis, weights).numpy()


def plain(sets: dict[str, Features], splits: tuple[str, ...]) -> dict[str, dict[str, np.ndarray]]:
    """The plain classifier's three readings; none where there is no checkpoint of it."""
    try:
        model = load_plain()
    except CheckpointError:
        return {}
    logits = {s: plain_logits(model, sets[s].photos) for s in splits}
    flipped = {s: flipped_logits(model, sets[s].photos) for s in ("calib", *splits)}
    known = np.array([DIAGNOSIS_CODES.index(code) for code in model.diagnoses])
    calib = labels_among(sets["calib"].photos.diagnosis.numpy(), known)
    averaged = fit_calibration(flipped["calib"][:, known], calib, np.asarray(model.bias))

    def in_columns(p: np.ndarray) -> np.ndarray:
        every = np.zeros((len(p), len(DIAGNOSIS_CODES)))
        every[:, known] = p
        return every

    return {
        "plain": {s: v.double().softmax(1).numpy() for s, v in logits.items()},
        "plain_calibrated": {s: model.probabilities(v) for s, v in logits.items()},
        "plain_flips": {s: in_columns(averaged.apply(flipped[s][:, known])) for s in splits},
    }


def flipped_logits(model: PlainClassifier, photos: PhotoSet) -> np.ndarray:
    """Log of the mean softmax [n, C] over a photo and its three mirror images."""
    total = torch.zeros(len(photos), len(DIAGNOSIS_CODES), dtype=torch.double)
    for axes in MIRRORS:
        total += plain_logits(model, mirrored(photos, axes)).double().softmax(1)
    return (total / len(MIRRORS)).log().numpy()


def mirrored(photos: PhotoSet, axes: tuple[int, ...]) -> PhotoSet:
    """`photos` with the pixels mirrored along `axes` of [n, 3, side, side]; masks stay as they are."""
    return dataclasses.replace(photos, photos=photos.photos.flip(axes))


def compare(
    bench: Bench, features: Features, systems: dict[str, dict[str, np.ndarray]], prior: np.ndarray, split: str
) -> dict[str, Any]:
    """Every system's figures and the paired difference shipped less it, on the same resamples of lesions."""
    cases = features.photos.cases
    labels = labels_of(cases)
    resamples = metrics.GroupBootstrap([cluster(c) for c in cases], bench.n_boot, bench.seed)
    ours = bench.measured(losses.DATA, split)
    of: dict[str, list[dict[str, metrics.Metric]]] = {
        "shipped": [diagnosis_metrics(ours.probabilities, labels, ours.balanced.argmax(axis=1))]
    }
    for name, predictions in systems.items():
        p = predictions[split]
        of.setdefault(name.split("-")[0], []).append(diagnosis_metrics(p, labels, (p / prior).argmax(axis=1)))
    mean = {(n, f): metrics.mean_of([m[f] for m in seeds]) for n, seeds in of.items() for f in FIGURES}
    return {
        "n": len(labels),
        "systems": {
            name: {
                f: {
                    **(resamples.interval(mean[name, f]) or {}),
                    "shipped_less_this": None
                    if name == "shipped"
                    else resamples.interval(metrics.difference(mean["shipped", f], mean[name, f])),
                }
                for f in FIGURES
            }
            for name in TITLES
            if name in of
        },
    }


def headline(result: dict[str, Any]) -> str:
    """Sentence where the language part adds nothing to the readout it starts from, on the last split; else empty."""
    readout = list(result.values())[-1]["systems"].get("readout")
    if readout is None:
        return ""
    auroc, nll = (readout[f]["shipped_less_this"] for f in ("auroc_macro", "nll"))
    if auroc["low"] > 0 or nll["high"] < 0:
        return ""
    return (
        "The language part adds nothing to the diagnosis. The whole model less the linear readout that it starts from: "
        f"macro AUROC {with_interval(auroc, sign=True)}, NLL {with_interval(nll, sign=True)}."
    )


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    text: list[Block | str] = [
        "Same test photos; all but the plain classifier on the same frozen towers. Below each figure: SkinCLIP-VL less "
        "this system, with the 95 % interval of the paired difference by bootstrap of lesions. Higher is better for "
        "accuracies and AUROC, lower for NLL, Brier score and ECE.",
        "The plain classifier has a smaller trunk (EfficientNet-Lite0, 160 px), trained on a CPU without MILK10k on "
        "about 200 thousand views, where the towers saw 483 and 582 thousand: its distance from SkinCLIP-VL is not due "
        "to the architecture alone.",
    ]
    for split in ("valid", "test"):
        if split in result:
            text += [f"**HAM10000 {split}**, n = {result[split]['n']}", "", _table(result[split]["systems"])]
    for name in result["meta"]["not_measured"]:
        text += [f"{TITLES[name][0].upper()}{TITLES[name][1:]}: not measured yet."]
    return Section.of("Baselines", [*text, _chart(result)])


def _table(systems: dict[str, Any]) -> Table:
    rows = []
    for name, figures in systems.items():
        rows.append([TITLES[name], *(with_interval(v) for v in figures.values())])
        if name != "shipped":
            rows.append(["", *(with_interval(v["shipped_less_this"], sign=True) for v in figures.values())])
    return table(["system", "balanced accuracy", "argmax p", "accuracy", "macro AUROC", "NLL", "Brier", "ECE"], rows)


@style.styled
def _chart(result: dict[str, Any]) -> Picture:
    split = "test" if "test" in result else "valid"
    systems = result[split]["systems"]
    colours = [style.BLUE if name == "shipped" else style.ORANGE for name in systems]
    figure, axes = style.charts(3, width=3.4, height=2.8)
    panels = (("balanced_accuracy", "Balanced accuracy"), ("nll", "NLL"), ("brier", "Brier score"))
    for ax, (f, title) in zip(axes, panels, strict=True):
        style.dots(ax, [row[f] for row in systems.values()], colours)
        ax.set_title(f"{title}, HAM10000 {split}")
        ax.set_yticks([])
    axes[0].set_yticks(range(len(systems))[::-1], [TITLES[name] for name in systems])
    return picture(figure, "baselines", "Balanced accuracy, NLL and Brier score of each system")
