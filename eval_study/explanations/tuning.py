"""Grad-CAM as good as it gets: stage, ReLU and mirror images chosen on validation photos, for both networks.

A straw man proves nothing. The settings are chosen for what the maps are compared by, insertion less deletion inside
the predicted lesion; where a map lies stands beside it. `explain.methods` holds what was chosen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eval_study.benchmarks.blocks import table
from eval_study.benchmarks.common import Bench
from eval_study.explanations.maps import chosen, kept, reference_lesion, short
from skinclip.core.formatting import with_interval
from skinclip.data.cases import Case
from skinclip.evaluation import metrics
from skinclip.evaluation.scores import cluster
from skinclip.explain import faithfulness, saliency
from skinclip.explain.saliency import Cam, Network
from skinclip.explain.subject import GRID, Subject, on_grid
from skinclip.model.checkpoint import weights_sha256
from skinclip.model.plain import PLAIN_FOLDER, load_plain
from skinclip.reporting.document import Block, Section

NAME = "tuning"
DATA, SPLIT, N = "ham10000", "valid", 60
STAGES = (-1, -2, -3, -4)
CAMS = tuple(Cam(stage, relu, mirrors) for stage in STAGES for relu in (True, False) for mirrors in (False, True))
NETWORKS = ("own", "plain")


def name_of(cam: Cam) -> str:
    """The settings of a Grad-CAM in words."""
    return f"stage {cam.stage}, {'ReLU' if cam.relu else 'signed'}, {'four views' if cam.mirrors else 'one view'}"


def _intervals(resamples: metrics.GroupBootstrap, measured: np.ndarray) -> dict[str, Any]:
    """Means over photos [n, 2], with intervals."""
    names = ("insertion_less_deletion", "energy")
    return {name: resamples.interval(metrics.mean(measured[:, i])) for i, name in enumerate(names)}


def run(bench: Bench) -> dict[str, Any]:
    """Figures of every Grad-CAM on both networks, and the best one for each network."""
    cases = chosen(bench.cases(DATA, SPLIT), N, bench.seed)
    plain = saliency.plain_network(load_plain())

    def made(subject: Subject, case: Case, _: int) -> dict[str, np.ndarray]:
        reference = reference_lesion(case, subject)
        networks = {"own": subject.network, "plain": plain}
        return {
            f"{network}/{name_of(cam)}": np.array(_measured(subject, of, cam, reference))
            for network, of in networks.items()
            for cam in CAMS
        }

    settings = f"{bench.sha}|{weights_sha256(PLAIN_FOLDER)}|{GRID}|{faithfulness.STEPS}|{CAMS}"
    rows = kept(bench, cases, Path(short(settings)) / NAME, made)
    resamples = metrics.GroupBootstrap([cluster(c) for c in cases], bench.n_boot, bench.seed)
    figures = {
        network: {
            name: _intervals(resamples, np.array([row[f"{network}/{name}"] for row in rows]))
            for name in map(name_of, CAMS)
        }
        for network in NETWORKS
    }
    best = {n: max(of, key=lambda name: of[name]["insertion_less_deletion"]["value"]) for n, of in figures.items()}
    return {"meta": bench.meta(data=DATA, split=SPLIT), "n": len(cases), "chosen": best, "networks": figures}


def _measured(subject: Subject, network: Network, cam: Cam, reference: np.ndarray | None) -> tuple[float, float]:
    """Insertion less deletion, and energy in the labelled lesion (NaN without a label), of one photo."""
    heat = on_grid(saliency.grad_cam(network, subject.photo, subject.target, cam))
    followed = faithfulness.perturbation_curves(subject.answer, subject.photo, heat, subject.lesion)
    energy = float("nan") if reference is None else faithfulness.energy(heat, reference)
    return followed.insertion - followed.deletion, energy


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    text: list[Block | str] = [
        f"HAM10000 {result['meta']['split']}, n = {result['n']}; chosen: bold.",
    ]
    for network, title in (("own", "the model's own diagnosis"), ("plain", "the plain classifier's")):
        best = result["chosen"][network]
        rows = [
            [
                f"**{name}**" if name == best else name,
                with_interval(row["insertion_less_deletion"], sign=True),
                with_interval(row["energy"]),
            ]
            for name, row in result["networks"][network].items()
        ]
        text += [f"Of {title}:", table(["", "insertion less deletion", "energy in the lesion"], rows)]
    return Section.of("Grad-CAM tuned", text)
