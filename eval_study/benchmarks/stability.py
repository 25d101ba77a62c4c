"""Stability of the answer under changes that should not matter.

The same photos again, in another batch, turned, mirrored, saved anew as JPEG; the diagnoses or their descriptions in
another order, or the descriptions replaced by paraphrases that training never saw. A flip is a change of the leading
diagnosis. On valid photos: stability needs no labels, so no test photo is spent on it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from eval_study.benchmarks.blocks import picture, table
from eval_study.benchmarks.common import BATCH, Bench
from eval_study.benchmarks.paraphrases import PARAPHRASES
from skinclip.core.formatting import with_interval
from skinclip.core.vocabulary import DIAGNOSES
from skinclip.data.cases import Case
from skinclip.evaluation import metrics
from skinclip.evaluation.scores import cluster
from skinclip.imaging.photo import LesionImage, from_array, load_photo
from skinclip.model.skinclip_vl import SkinClipVL
from skinclip.pipeline.assessor import Assessor
from skinclip.reporting import style
from skinclip.reporting.document import Block, Picture, Section

NAME = "stability"
DATA, SPLIT, SAMPLE = "ham10000", "valid", 300
Change = Callable[[np.ndarray], np.ndarray]  # pixels uint8 [H, W, 3] -> the same, changed
SETS_OF_THREE = {"descriptions paraphrased": slice(0, 3), "descriptions paraphrased otherwise": slice(3, 6)}
NOTHING = ("repeat", "diagnoses reordered", "descriptions reordered")
TARGETS = {**dict.fromkeys(NOTHING, 0.0), **dict.fromkeys(SETS_OF_THREE, 0.03)}


def rotated(degrees: float) -> Change:
    """Turned about the middle; what comes in at the corners is mirrored."""

    def change(pixels: np.ndarray) -> np.ndarray:
        h, w = pixels.shape[:2]
        matrix = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), degrees, 1.0)
        return cv2.warpAffine(pixels, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)

    return change


def jpeg(quality: int) -> Change:
    """Saved as JPEG of that quality and read again."""

    def change(pixels: np.ndarray) -> np.ndarray:
        ok, data = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not ok:
            raise ValueError(f"a photo of shape {pixels.shape} cannot be written as JPEG")
        return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])

    return change


def turned(quarters: int) -> Change:
    """Rotation by quarters of a circle, without resampling."""
    return lambda pixels: np.ascontiguousarray(np.rot90(pixels, quarters))


def mirrored(axis: int) -> Change:
    """Reflection along an axis: 0 top to bottom, 1 left to right."""
    return lambda pixels: np.ascontiguousarray(np.flip(pixels, axis))


PHOTO_CHANGES: dict[str, Change] = {
    **{f"rotation {d:+d} degrees": rotated(d) for d in (-15, -10, -5, 5, 10, 15)},
    "rotation 90 degrees": turned(1),
    "mirrored left to right": mirrored(1),
    "mirrored top to bottom": mirrored(0),
    **{f"JPEG quality {q}": jpeg(q) for q in (95, 75, 50, 30)},
}


@contextlib.contextmanager
def described(model: SkinClipVL, bank: Sequence[Sequence[str]]) -> Iterator[None]:
    """The model with other descriptions: `bank` holds the paraphrases of each diagnosis."""
    before = model.descriptions
    with torch.no_grad():
        embedded = torch.stack([model.perception.embed_texts(texts).mean(0) for texts in bank])
    try:
        model.descriptions = F.normalize(embedded, dim=-1)
        yield
    finally:
        model.descriptions = before


@contextlib.contextmanager
def reordered(model: SkinClipVL, order: Sequence[int]) -> Iterator[None]:
    """The model with its diagnoses in another order: logit i is that of diagnosis `order[i]`."""
    before, readout = model.descriptions, model.reasoner.readout
    columns = None if readout is None else readout.columns
    try:
        model.descriptions = before[list(order)]
        if readout is not None and columns is not None:  # its answers go where their diagnoses now are
            readout.columns = torch.as_tensor(np.argsort(list(order)), device=columns.device)[columns]
        yield
    finally:
        model.descriptions = before
        if readout is not None and columns is not None:
            readout.columns = columns


def probabilities(
    assessor: Assessor,
    cases: Sequence[Case],
    change: Change | None = None,
    batch: int = BATCH,
    reverse: bool = False,
    order: Sequence[int] = range(len(DIAGNOSES)),
) -> np.ndarray:
    """[n, C] calibrated probabilities of `cases`, their photos changed by `change`.

    Args:
        reverse: the cases from last to first, so that batches hold others.
        order: of the diagnoses in the model, see `reordered`; the result is in the usual one.
    """
    queue = list(range(len(cases)))[::-1] if reverse else list(range(len(cases)))
    rows, back = np.zeros((len(cases), len(DIAGNOSES))), np.argsort(list(order))
    for start in tqdm(range(0, len(queue), batch), desc="stability", mininterval=10):
        index = queue[start : start + batch]
        photos = [_changed(load_photo(cases[i].image), change) for i in index]
        logits = assessor.forward(photos, [cases[i].context for i in index]).logits.double().numpy()
        rows[index] = assessor.calibrator.calibration.apply(logits[:, back])
    return rows


@torch.inference_mode()
def reworded(
    assessor: Assessor, cases: Sequence[Case], banks: Mapping[str, Sequence[Sequence[str]]]
) -> dict[str, np.ndarray]:
    """[n, C] calibrated probabilities under other descriptions, by name; each photo is perceived once for all."""
    model, rows = assessor.model, {name: np.zeros((len(cases), len(DIAGNOSES))) for name in banks}
    for start in tqdm(range(0, len(cases), BATCH), desc="stability, paraphrases", mininterval=10):
        part = cases[start : start + BATCH]
        output = assessor.forward([load_photo(c.image) for c in part], [c.context for c in part])
        prompts = model.reasoner.writer.write([c.context for c in part])
        for name, bank in banks.items():
            with described(model, bank):
                logits = model.reason(prompts, output.tokens, output.evidence).logits.double().numpy()
            rows[name][start : start + len(part)] = assessor.calibrator.calibration.apply(logits)
    return rows


def _changed(photo: LesionImage, change: Change | None) -> LesionImage:
    return photo if change is None else from_array(change(photo.pixels))


def run(bench: Bench, n: int = SAMPLE) -> dict[str, Any]:
    """Flips and total variation of every change against the photos as they are."""
    everything = bench.cases(DATA, SPLIT)
    chosen = np.random.default_rng(bench.seed).permutation(len(everything))[:n]
    cases = [everything[i] for i in sorted(chosen)]
    assessor, model = bench.assessor, bench.assessor.model
    plain = probabilities(assessor, cases)
    changed = {
        "repeat": probabilities(assessor, cases),
        "another batch": probabilities(assessor, cases, batch=7, reverse=True),
    }
    order = np.random.default_rng(bench.seed).permutation(len(DIAGNOSES)).tolist()
    with reordered(model, order):
        changed["diagnoses reordered"] = probabilities(assessor, cases, order=order)
    changed |= reworded(assessor, cases, paraphrases())
    for name, change in PHOTO_CHANGES.items():
        changed[name] = probabilities(assessor, cases, change)
    resamples = metrics.GroupBootstrap([cluster(c) for c in cases], bench.n_boot, bench.seed)
    return {
        "meta": bench.meta(data=DATA, split=SPLIT, n=len(cases)),
        "changes": {name: compare(plain, p, resamples) for name, p in changed.items()},
    }


def paraphrases() -> dict[str, list[tuple[str, ...]]]:
    """Name -> the descriptions of each diagnosis in its place."""
    banks = {"descriptions reordered": [d.descriptions[::-1] for d in DIAGNOSES]}
    for name, chosen in SETS_OF_THREE.items():
        banks[name] = [PARAPHRASES[d.code][chosen] for d in DIAGNOSES]
    banks["all paraphrases added"] = [(*d.descriptions, *PARAPHRASES[d.code]) for d in DIAGNOSES]
    for i in range(len(PARAPHRASES["mel"])):
        banks[f"paraphrase {i + 1} alone"] = [(PARAPHRASES[d.code][i],) for d in DIAGNOSES]
    return banks


def compare(before: np.ndarray, after: np.ndarray, resamples: metrics.GroupBootstrap) -> dict[str, Any]:
    """Share of photos whose leading diagnosis flips, and how far their probabilities move (total variation, 0-1)."""
    moved = np.abs(before - after).sum(axis=1) / 2
    flips = (before.argmax(axis=1) != after.argmax(axis=1)).astype(float)
    return {
        "flips": resamples.interval(metrics.mean(flips)),
        "moved": resamples.interval(metrics.mean(moved)),
        "moved_most": float(moved.max()),
    }


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    meta = result["meta"]
    rows = [
        [
            name,
            with_interval(f["flips"]),
            f"{TARGETS[name]:.0%}" if name in TARGETS else "",
            with_interval(f["moved"]),
            f"{f['moved_most']:.3f}",
        ]
        for name, f in result["changes"].items()
    ]
    text: list[Block | str] = [
        f"{meta['n']} seeded photos of {meta['data']} {meta['split']}. A flip is another leading diagnosis; moved is "
        "the total variation of the probabilities. Descriptions are replaced by three others at a time, as the model "
        "has three itself, then by single ones; the others were written without knowledge of what training reads "
        "(`eval_study/benchmarks/paraphrases.py`).",
        table(["change", "flips", "wanted at most", "moved, mean", "moved, most"], rows),
        _chart(result),
    ]
    return Section.of("Stability", text)


@style.styled
def _chart(result: dict[str, Any]) -> Picture:
    changes = result["changes"]
    figure, (axes,) = style.charts(1, width=6.4, height=4.2)
    values, (below, above) = style.whiskers([f["flips"] for f in changes.values()])
    rows = range(len(changes))[::-1]
    axes.errorbar(values, rows, xerr=[below, above], fmt="o", color=style.BLUE, markersize=4, linewidth=1)
    axes.set_yticks(list(rows), list(changes))
    axes.set(xlabel="share of photos whose leading diagnosis flips", xlim=(-0.005, None))
    axes.grid(axis="x", color=style.PALE, linewidth=0.6)
    return picture(figure, "stability", "Share of photos whose leading diagnosis flips under each change")
