"""Tests whether the diagnosis depends on the evidence: ablations of one model's inputs on the same photos.

    full           all inputs
    evidence_only  CLIP tokens and photo embedding hidden; evidence and patient context remain
    no_evidence    evidence tokens hidden; photo and patient context remain
    swapped        evidence tokens of another photo

Each readout (the diagnosis logits under one ablation) is calibrated on the calib split on its own, so that over- or
underconfidence does not count as a difference. If neither hiding nor swapping the evidence changes the diagnosis, the
cited findings do not explain it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from eval_study.benchmarks.blocks import table
from eval_study.benchmarks.common import BATCH, Bench, labels_of, scored_logits
from skinclip.calibration.temperature import Calibration, fit_calibration
from skinclip.core.formatting import with_interval
from skinclip.data.cases import Case
from skinclip.evaluation import metrics
from skinclip.evaluation.scores import cluster, scored_codes
from skinclip.imaging.photo import load_photo
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
    """Raw logits [n, C] of every readout, in the order of `cases`, of the diagnoses that these are scored on.

    `swapped` takes the evidence of a neighbour in a batch of shuffled photos; a last batch of one photo keeps its own.
    """
    model = assessor.model
    rows: dict[str, list[np.ndarray]] = {name: [] for name in READOUTS}
    order = np.random.default_rng(seed).permutation(len(cases))
    for start in tqdm(range(0, len(order), BATCH), desc="readouts", mininterval=10):
        part = [cases[i] for i in order[start : start + BATCH]]
        output = assessor.forward([load_photo(c.image) for c in part], [c.context for c in part])
        prompts = model.reasoner.writer.write([c.context for c in part])
        own = output.evidence
        others = own.pick(torch.arange(len(part)).roll(1))
        batch = {
            "full": output.logits,
            "evidence_only": model.reason(prompts, None, own).logits,
            "no_evidence": model.reason(prompts, output.tokens, None).logits,
            "swapped": model.reason(prompts, output.tokens, others).logits,
        }
        for name, logits in batch.items():
            rows[name].append(logits.double().numpy())
    unshuffle = np.argsort(order)
    codes = scored_codes(cases)
    return {name: scored_logits(np.concatenate(values)[unshuffle], codes) for name, values in rows.items()}


def run(bench: Bench, splits: tuple[str, ...] = ("valid", "test")) -> dict[str, Any]:
    """Balanced accuracy and AUROC of every readout, and how far its diagnoses differ from the full model's."""
    calib = bench.cases(DATA, "calib")
    calib_logits = readouts(bench.assessor, calib, bench.seed)
    bias = np.nan_to_num(np.asarray(bench.assessor.calibrator.calibration.bias), neginf=0.0)
    fitted = {name: fit_calibration(calib_logits[name], labels_of(calib), bias) for name in READOUTS}
    return {"meta": bench.meta(), **{split: _split(bench, fitted, split) for split in splits}}


def _split(bench: Bench, fitted: dict[str, Calibration], split: str) -> dict[str, Any]:
    cases = bench.cases(DATA, split)
    bench.touch_test(DATA, cases)
    labels = labels_of(cases)
    resamples = metrics.GroupBootstrap([cluster(c) for c in cases], bench.n_boot, bench.seed)
    prior = np.asarray(bench.assessor.calibrator.natural_prior)
    p = {name: fitted[name].apply(logits) for name, logits in readouts(bench.assessor, cases, bench.seed).items()}
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

    def ratio(weights: np.ndarray) -> np.ndarray:
        denominator = b(weights)
        return np.where(denominator == 0, np.nan, a(weights) / np.where(denominator == 0, 1.0, denominator))

    return ratio


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    text: list[Block | str] = [
        "What is left of the diagnosis when the photo or its evidence is hidden from the reasoner, or the evidence is "
        "another photo's; each readout calibrated on calib by itself. Changed: photos whose leading diagnosis is "
        "another; moved: the mean total variation of the probabilities.",
    ]
    for split in ("valid", "test"):
        if split not in result:
            continue
        text += [f"**HAM10000 {split}**, n = {result[split]['n']}"]
        keys = ("balanced_accuracy", "share_of_full", "auroc_macro", "changed", "total_variation")
        rows = [
            [TITLES[name], *(with_interval(figures[k]) for k in keys)]
            for name, figures in result[split]["readouts"].items()
        ]
        header = ["readout", "balanced accuracy", "share of the full model's", "macro AUROC", "changed", "moved"]
        text.append(table(header, rows))
    return Section.of("Evidence", text)
