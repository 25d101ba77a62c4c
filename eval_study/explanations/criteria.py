"""Are the findings true? Criteria that an Assessment cites, against Derm7pt's labels.

    hallucination rate  cited states that the label does not give, of all cited (1 - precision)
    macro recall        mean over states of the share of labelled ones that are cited

At the thresholds shipped, which were chosen on these very photos (optimistic), and, as the honest part, at thresholds
chosen for a macro recall of one half on the other half of the photos (two halves, drawn by lesion).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from eval_study.benchmarks import figures
from eval_study.benchmarks.common import Bench, criteria_of
from skinclip import images, metrics
from skinclip.clinical import CRITERIA, EVIDENCE_STATES, STATE_BY_KEY
from skinclip.data.cases import Case
from skinclip.losses import criterion_log_probs
from skinclip.scores import cluster

NAME = "criteria"
DATA, SPLIT = "derm7pt", "valid"
RECALL = 0.5


def cited(probabilities: list[np.ndarray], thresholds: Mapping[str, float]) -> np.ndarray:
    """[n, Q] number of the state that is cited of each criterion, 0 for none: the most probable above its threshold.

    Args:
        probabilities: Q arrays [n, 1 + states], "absent" first.
    """
    columns = []
    for criterion, p in zip(CRITERIA, probabilities, strict=True):
        limits = np.array([thresholds[s.key] for s in criterion.states])
        passing = np.where(p[:, 1:] >= limits, p[:, 1:], -1.0)
        columns.append(np.where(passing.max(axis=1) < 0, 0, passing.argmax(axis=1) + 1))
    return np.stack(columns, 1)


def at_recall(probabilities: list[np.ndarray], labels: np.ndarray, recall: float) -> dict[str, float]:
    """State -> the highest threshold that `recall` of its labelled photos reach; never cited where none is labelled."""
    found = {}
    for q, criterion in enumerate(CRITERIA):
        for s, state in enumerate(criterion.states, start=1):
            own = probabilities[q][labels[:, q] == s, s]
            found[state.key] = float(np.quantile(own, 1 - recall, method="lower")) if len(own) else 2.0
    return found


def truth_of(said: np.ndarray, labels: np.ndarray) -> dict[str, metrics.Metric]:
    """Metrics of cited states [n, Q] against labelled ones [n, Q]."""
    asserted, wrong = (said > 0), (said > 0) & (said != labels)
    recalls = [
        metrics.share(said[:, q] == s, labels[:, q] == s)
        for q, criterion in enumerate(CRITERIA)
        for s in range(1, 1 + len(criterion.states))
    ]
    count, errors = asserted.sum(1).astype(float), wrong.sum(1).astype(float)

    def hallucination(weights: np.ndarray) -> np.ndarray:
        total = weights @ count
        return np.where(total > 0, weights @ errors / np.maximum(total, 1e-9), np.nan)

    return {
        "hallucination": hallucination,
        "macro_recall": metrics.mean_of(recalls),
        "cited_per_photo": metrics.mean(count),
    }


def map_correlation(maps: np.ndarray, lesion: np.ndarray) -> float:
    """Mean over pairs of different criterion states of the correlation of their maps [K, h, w] inside the lesion.

    Near 1 all maps would be one map, be it of the lesion. NaN where the lesion has fewer than three patches.
    """
    inside = maps[:, lesion > 0.5]  # [K, patches]
    if inside.shape[1] < 3:
        return float("nan")
    return float(np.corrcoef(inside)[np.triu_indices(len(inside), 1)].mean())


def correlation(bench: Bench, case: Case) -> float:
    evidence = bench.assessor.see([images.load(case.image)], [case.context]).evidence
    return map_correlation(evidence.maps[0].numpy(), evidence.lesion[0].numpy())


def run(bench: Bench) -> dict[str, Any]:
    m = bench.measured(DATA, SPLIT)
    labelled = np.flatnonzero((criteria_of(m.cases) >= 0).all(axis=1))
    m = m.where(np.isin(np.arange(len(m)), labelled))
    labels, groups = criteria_of(m.cases), [cluster(c) for c in m.cases]
    p = [row.exp().numpy() for row in criterion_log_probs(torch.from_numpy(m.scores))]
    names = sorted(set(groups))
    rng = np.random.default_rng(bench.seed)
    first = set(rng.permutation(names)[: len(names) // 2].tolist())
    half = np.array([g in first for g in groups])
    crossed = np.zeros_like(labels)
    for fit, rows in ((half, ~half), (~half, half)):
        limits = at_recall([q[fit] for q in p], labels[fit], RECALL)
        crossed[rows] = cited([q[rows] for q in p], limits)
    resamples = metrics.GroupBootstrap(groups, bench.n_boot, bench.seed)
    alike = np.array([correlation(bench, c) for c in tqdm(m.cases, desc="criterion maps", mininterval=10)])
    systems = {"shipped": cited(p, bench.assessor.thresholds), "at_recall": crossed}
    return {
        "meta": bench.meta(data=DATA, split=SPLIT, recall=RECALL),
        "n": len(labels),
        "map_correlation": resamples.interval(metrics.mean(alike)),
        "systems": {
            name: {
                **{k: resamples.interval(v) for k, v in truth_of(said, labels).items()},
                "states": {
                    state.key: {
                        "precision": resamples.interval(metrics.precision(labels[:, q], said[:, q], s)),
                        "recall": resamples.interval(metrics.recall(labels[:, q], said[:, q], s)),
                    }
                    for q, criterion in enumerate(CRITERIA)
                    for s, state in enumerate(criterion.states, start=1)
                },
            }
            for name, said in systems.items()
        },
    }


def section(result: dict[str, Any], folder: Path) -> str:
    titles = {"shipped": "thresholds as shipped", "at_recall": f"macro recall {result['meta']['recall']}, cross-fitted"}
    keys = ("hallucination", "macro_recall", "cited_per_photo")
    rows = [[titles[n], *(figures.shown(found[k]) for k in keys)] for n, found in result["systems"].items()]
    each = [
        [
            STATE_BY_KEY[state.key].phrase,
            *(
                figures.shown(found["states"][state.key][k])
                for found in result["systems"].values()
                for k in ("precision", "recall")
            ),
        ]
        for state in EVIDENCE_STATES
    ]
    return "\n".join(
        [
            "## Criteria cited",
            "",
            f"Derm7pt {result['meta']['split']}, n = {result['n']}. Mean correlation of different criteria's maps "
            f"inside the lesion: {figures.shown(result['map_correlation'])}.",
            "",
            figures.table(["", "hallucination rate", "macro recall", "cited a photo"], rows),
            "",
            figures.table(["state", "precision", "recall", "precision, cross-fitted", "recall, cross-fitted"], each),
        ]
    )
