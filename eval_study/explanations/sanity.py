"""Sanity check of the maps: parameters randomised, from the answer down (Adebayo et al. 2018).

A map that stays the same when the weights are shuffled shows edges of the photo and nothing the model learnt. Shuffled
are the entries of each weight tensor, so that its scale stays and signals neither vanish nor explode. Each step keeps
what the step before shuffled: the reasoner, then the evidence finder too, then the image tower too. Beside them stands
what small noise on the photo does, the most alike that maps of the same model can be expected to be.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from eval_study.benchmarks.blocks import table
from eval_study.benchmarks.common import Bench
from eval_study.explanations.maps import chosen, with_noise
from skinclip.core.formatting import with_interval
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.evaluation import metrics
from skinclip.evaluation.scores import cluster
from skinclip.explain import faithfulness
from skinclip.explain.methods import METHODS, reported
from skinclip.explain.registry import SANITY
from skinclip.explain.subject import Subject, on_grid
from skinclip.imaging.photo import load_photo
from skinclip.model.skinclip_vl import SkinClipVL
from skinclip.pipeline.assessor import Assessor
from skinclip.reporting.document import Block, Section

NAME = "sanity"
DATA, SPLIT, N = "ham10000", "valid", 24
STEPS = {"reasoner": ("reasoner.",), "evidence": ("reasoner.", "evidence."), "tower": ("",)}
TITLES = {
    "noise": "none (small noise on the photo)",
    "reasoner": "reasoner",
    "evidence": "reasoner, evidence finder",
    "tower": "reasoner, evidence finder, image tower",
}
COMPARED = reported(SANITY)
CRITERIA = "criteria"  # the criterion maps, each with itself


@torch.no_grad()
def shuffled(model: SkinClipVL, prefixes: tuple[str, ...], seed: int) -> SkinClipVL:
    """A copy whose floating-point parameters under `prefixes` have their entries in another order."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in other.named_parameters():
        if name.startswith(prefixes) and parameter.is_floating_point():
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return other


def with_model(assessor: Assessor, model: SkinClipVL) -> Assessor:
    """The assessor with another model in its place."""
    return Assessor(model, assessor.transform, assessor.calibrator, assessor.thresholds, assessor.model_info)


def explained_by(assessor: Assessor, subject: Subject) -> Subject:
    """The same photo and diagnosis, explained by another model."""
    return assessor.subject(subject.image, subject.context, DIAGNOSIS_CODES[subject.target])


def alike(one: Subject, other: Subject) -> dict[str, tuple[float, float]]:
    """Method -> rank correlation inside the lesion that `one` sees, and SSIM of the whole window."""
    similarity = {}
    for key in COMPARED:
        a, b = (on_grid(METHODS[key].maps(s)[0].heat) for s in (one, other))
        similarity[key] = (faithfulness.rank_correlation(a[one.lesion], b[one.lesion]), faithfulness.ssim(a, b))
    known = list(one.predictor.model.known.states)
    maps = [[on_grid(m) for m in s.output.evidence.maps[0, known].numpy()] for s in (one, other)]
    pairs = [
        (faithfulness.rank_correlation(a[one.lesion], b[one.lesion]), faithfulness.ssim(a, b))
        for a, b in zip(*maps, strict=True)
    ]
    similarity[CRITERIA] = tuple(np.nanmean(np.array(pairs), axis=0))  # type: ignore[assignment]
    return similarity


def _explained_by_shuffled(bench: Bench, prefixes: tuple[str, ...]) -> Callable[[Subject], Subject]:
    """The change of a subject to one explained by a model with shuffled parameters."""
    random = with_model(bench.assessor, shuffled(bench.assessor.model, prefixes, bench.seed))
    return lambda subject: explained_by(random, subject)


def _intervals(resamples: metrics.GroupBootstrap, pairs: list[tuple[float, float]]) -> dict[str, Any]:
    """Mean rank correlation and SSIM over photos, with intervals."""
    names = ("rank_correlation", "ssim")
    return {name: resamples.interval(metrics.mean(np.array([p[i] for p in pairs]))) for i, name in enumerate(names)}


def run(bench: Bench) -> dict[str, Any]:
    """Similarity of the maps before and after each step of shuffling, with intervals."""
    cases = chosen(bench.cases(DATA, SPLIT), N, bench.seed)
    assessor = bench.assessor
    others: dict[str, Callable[[Subject], Subject]] = {"noise": lambda s: with_noise(bench.assessor, s, bench.seed)}
    others |= {step: _explained_by_shuffled(bench, prefixes) for step, prefixes in STEPS.items()}
    rows: dict[str, list[dict[str, tuple[float, float]]]] = {step: [] for step in others}
    for case in tqdm(cases, desc="shuffling weights", mininterval=10):
        subject = assessor.subject(load_photo(case.image), case.context)
        for step, other in others.items():
            rows[step].append(alike(subject, other(subject)))
    resamples = metrics.GroupBootstrap([cluster(c) for c in cases], bench.n_boot, bench.seed)
    steps = {
        step: {key: _intervals(resamples, [row[key] for row in measured]) for key in (*COMPARED, CRITERIA)}
        for step, measured in rows.items()
    }
    return {"meta": bench.meta(data=DATA, split=SPLIT), "n": len(cases), "steps": steps}


def title(key: str) -> str:
    """Name of a method, or of the criterion maps, for a table."""
    return "Criterion maps" if key == CRITERIA else METHODS[key].title


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    text: list[Block | str] = [
        f"HAM10000 {result['meta']['split']}, n = {result['n']}: the map of the trained model against that of the "
        "model with shuffled weights, same photo, same diagnosis.",
    ]
    keys = (*COMPARED, CRITERIA)
    for name, heading in (("rank_correlation", "Rank correlation inside the lesion"), ("ssim", "SSIM of the window")):
        rows = [[TITLES[s], *(with_interval(row[k][name]) for k in keys)] for s, row in result["steps"].items()]
        text += [f"{heading}:", table(["shuffled", *(title(k) for k in keys)], rows)]
    return Section.of("Weights shuffled", text)
