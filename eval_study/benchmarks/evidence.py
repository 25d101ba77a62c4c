"""Does the diagnosis rest on the evidence? Three readouts of the same model on the same photos.

    evidence only  CLIP tokens and photo embedding hidden: the answer has findings and patient context to go by
    no evidence    evidence tokens hidden: the answer has the photo alone
    swapped        evidence tokens of another photo: how often the answer follows them

Each readout is calibrated on calib by itself, so that a readout is not charged for its confidence. Citations are
decoration where hiding or swapping evidence changes nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from eval_study.benchmarks.blocks import table
from eval_study.benchmarks.common import BATCH, Bench, labels_of
from skinclip.calibration.temperature import fit_calibration
from skinclip.core.formatting import with_interval
from skinclip.data.cases import Case
from skinclip.evaluation import metrics
from skinclip.evaluation.scores import cluster
from skinclip.imaging.photo import load_photo
from skinclip.model.evidence import Evidence
from skinclip.pipeline.assessor import Assessor
from skinclip.reporting.document import Block, Section

NAME = "evidence"
DATA = "ham10000"
READOUTS = ("full", "evidence_only", "no_evidence", "swapped")
TITLES = {
    "full": "full model",
    "evidence_only": "evidence only",
    "no_evidence": "no evidence",
    "swapped": "evidence of another photo",
}


@torch.inference_mode()
def readouts(assessor: Assessor, cases: list[Case], seed: int) -> dict[str, np.ndarray]:
    """Raw logits [n, C] of every readout; evidence is swapped within batches of a seeded order."""
    model = assessor.model
    rows: dict[str, list[np.ndarray]] = {name: [] for name in READOUTS}
    order = np.random.default_rng(seed).permutation(len(cases))
    for start in tqdm(range(0, len(order), BATCH), desc="readouts", mininterval=10):
        part = [cases[i] for i in order[start : start + BATCH]]
        seen = assessor.forward([load_photo(c.image) for c in part], [c.context for c in part])
        prompts = model.reasoner.writer.write([c.context for c in part])
        own = seen.evidence
        others = Evidence(*(getattr(own, f).roll(1, 0) for f in Evidence.__dataclass_fields__))
        found = {
            "full": seen.logits,
            "evidence_only": model.reason(prompts, None, own).logits,
            "no_evidence": model.reason(prompts, seen.tokens, None).logits,
            "swapped": model.reason(prompts, seen.tokens, others).logits,
        }
        for name, logits in found.items():
            rows[name].append(logits.double().numpy())
    back = np.argsort(order)
    return {name: np.concatenate(values)[back] for name, values in rows.items()}


def run(bench: Bench, splits: tuple[str, ...] = ("valid", "test")) -> dict[str, Any]:
    """Balanced accuracy and AUROC of every readout, and how far each moves the diagnosis."""
    calib = bench.cases(DATA, "calib")
    fitted_on = readouts(bench.assessor, calib, bench.seed)
    bias = np.asarray(bench.assessor.calibrator.calibration.bias)
    maps = {name: fit_calibration(fitted_on[name], labels_of(calib), bias) for name in READOUTS}
    return {"meta": bench.meta(), **{split: _split(bench, maps, split) for split in splits}}


def _split(bench: Bench, maps: dict[str, Any], split: str) -> dict[str, Any]:
    cases = bench.cases(DATA, split)
    bench.touch_test(DATA, cases)
    labels = labels_of(cases)
    resamples = metrics.GroupBootstrap([cluster(c) for c in cases], bench.n_boot, bench.seed)
    prior = np.asarray(bench.assessor.calibrator.natural_prior)
    p = {name: maps[name].apply(logits) for name, logits in readouts(bench.assessor, cases, bench.seed).items()}
    accuracy = {n: metrics.balanced_accuracy(labels, (q / prior).argmax(axis=1)) for n, q in p.items()}
    full = p["full"].argmax(axis=1)
    return {
        "n": len(cases),
        "readouts": {
            name: {
                "balanced_accuracy": resamples.interval(accuracy[name]),
                "share_of_full": resamples.interval(_ratio(accuracy[name], accuracy["full"])),
                "less_than_full": resamples.interval(metrics.difference(accuracy["full"], accuracy[name])),
                "auroc_macro": resamples.interval(metrics.auroc_macro(p[name], labels)),
                "changed": resamples.interval(metrics.mean((p[name].argmax(axis=1) != full).astype(float))),
                "total_variation": resamples.interval(metrics.mean(np.abs(p[name] - p["full"]).sum(axis=1) / 2)),
            }
            for name in READOUTS
        },
    }


def _ratio(a: metrics.Metric, b: metrics.Metric) -> metrics.Metric:
    """a / b on the same resamples; NaN where b is 0."""

    def figure(weights: np.ndarray) -> np.ndarray:
        below = b(weights)
        return np.where(below == 0, np.nan, a(weights) / np.where(below == 0, 1.0, below))

    return figure


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    text: list[Block | str] = [
        "What is left of the diagnosis when the photo or its evidence is hidden from the reasoner, or the evidence is "
        "another photo's; each readout calibrated on calib by itself. The last two columns: photos whose leading "
        "diagnosis changes, and the mean total variation of the probabilities.",
    ]
    for split in ("valid", "test"):
        if split not in result:
            continue
        text += [f"**HAM10000 {split}**, n = {result[split]['n']}"]
        keys = ("balanced_accuracy", "share_of_full", "auroc_macro", "changed", "total_variation")
        rows = [
            [TITLES[name], *(with_interval(found[k]) for k in keys)]
            for name, found in result[split]["readouts"].items()
        ]
        header = ["readout", "balanced accuracy", "share of the full model's", "macro AUROC", "changed", "moved"]
        text.append(table(header, rows))
    return Section.of("Evidence", text)
