"""Truth of the findings: criteria that an Assessment cites, against Derm7pt's labels.

    hallucination rate  criteria cited that the label says are absent, of all cited
    other type          criteria cited that are there, but of another type (typical for atypical), of all cited
    precision           what remains: the labelled state itself
    macro recall        mean over the seven criteria of the share of labelled ones that are cited, of whichever type
    of states           the same, where only the labelled state counts

At the thresholds shipped, which were chosen on these very photos (optimistic), and, as the honest part, at thresholds
chosen on the other half of the photos (two halves, drawn by lesion), for the recall of those shipped and for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from eval_study.benchmarks.blocks import table
from eval_study.benchmarks.common import Bench, criteria_of
from skinclip.calibration.criteria import fit_criteria
from skinclip.core.formatting import with_interval
from skinclip.core.vocabulary import CRITERIA, DERM7PT_STATES, STATE_BY_KEY
from skinclip.data.cases import Case
from skinclip.evaluation import metrics
from skinclip.evaluation.scores import cluster
from skinclip.imaging.photo import load_photo
from skinclip.model.criteria import cited_state, criterion_log_probs
from skinclip.reporting.document import Section
from skinclip.training.calibrate import NEVER, RECALL, presence_thresholds

NAME = "criteria"
DATA, SPLIT = "derm7pt", "valid"
RECALLS = (0.4, 0.5, RECALL, 0.6, 0.7)


def cited(probabilities: list[np.ndarray], thresholds: Sequence[float]) -> np.ndarray:
    """[n, Q] number of the state that is cited of each criterion, 0 for none, as an Assessment has it.

    Args:
        probabilities: Q arrays [n, 1 + states], "absent" first.
    """
    return np.stack([cited_state(p, t) for p, t in zip(probabilities, thresholds, strict=True)], 1)


def cross_fitted(scores: np.ndarray, labels: np.ndarray, half: np.ndarray, recall: float) -> np.ndarray:
    """`cited` by a calibration and thresholds for a macro recall that are fitted on the rows of `half` for the others,
    and the reverse; from evidence scores [n, K] before any calibration."""
    states = np.zeros_like(labels)
    for fit, rows in ((half, ~half), (~half, half)):
        p = probabilities(fit_criteria(scores[fit], labels[fit]).apply(scores))
        limits = presence_thresholds(np.stack([1 - q[fit, 0] for q in p], 1), labels[fit], recall)
        states[rows] = cited([q[rows] for q in p], limits)
    return states


def probabilities(scores: np.ndarray) -> list[np.ndarray]:
    """Q arrays [n, 1 + states], "absent" first, of calibrated scores [n, K]."""
    return [row.exp().numpy() for row in criterion_log_probs(torch.from_numpy(scores))]


def truth_of(stated: np.ndarray, labels: np.ndarray) -> dict[str, metrics.Metric]:
    """Metrics of cited states [n, Q] against labelled ones [n, Q]; citations of what is not labelled do not count."""
    stated = np.where(labels >= 0, stated, 0)
    count = (stated > 0).sum(1).astype(float)

    def of_cited(rows: np.ndarray) -> metrics.Metric:
        hits = rows.sum(1).astype(float)

        def figure(weights: np.ndarray) -> np.ndarray:
            total = weights @ count
            return np.where(total > 0, weights @ hits / np.maximum(total, 1e-9), np.nan)

        return figure

    criteria = np.flatnonzero((labels >= 0).any(axis=0))
    states = [(q, s) for q in criteria for s in range(1, 1 + len(CRITERIA[q].states))]
    return {
        "hallucination": of_cited((stated > 0) & (labels == 0)),
        "other_type": of_cited((stated > 0) & (labels > 0) & (stated != labels)),
        "precision": of_cited((stated > 0) & (stated == labels)),
        "macro_recall": metrics.mean_of([metrics.share(stated[:, q] > 0, labels[:, q] > 0) for q in criteria]),
        "macro_recall_of_states": metrics.mean_of([metrics.recall(labels[:, q], stated[:, q], s) for q, s in states]),
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
    """Mean correlation between the criterion maps of one photo."""
    evidence = bench.assessor.forward([load_photo(case.image)], [case.context]).evidence
    known = list(bench.assessor.model.known.states)  # the map of another is the same everywhere
    return map_correlation(evidence.maps[0, known].numpy(), evidence.lesion[0].numpy())


def run(bench: Bench) -> dict[str, Any]:
    """Truth of the findings, shipped and cross-fitted, on Derm7pt."""
    m = bench.measured(DATA, SPLIT)
    asked = [c.code in DERM7PT_STATES for c in CRITERIA]
    labelled = np.flatnonzero((criteria_of(m.cases)[:, asked] >= 0).all(axis=1))
    m = m.where(np.isin(np.arange(len(m)), labelled))
    labels, groups = criteria_of(m.cases), [cluster(c) for c in m.cases]
    p = probabilities(bench.assessor.calibrator.criteria.apply(m.scores))
    names = sorted(set(groups))
    rng = np.random.default_rng(bench.seed)
    first = set(rng.permutation(names)[: len(names) // 2].tolist())
    half = np.array([g in first for g in groups])
    resamples = metrics.GroupBootstrap(groups, bench.n_boot, bench.seed)
    alike = np.array([correlation(bench, c) for c in tqdm(m.cases, desc="criterion maps", mininterval=10)])
    shipped = cited(p, [bench.thresholds.get(c.code, NEVER) for c in CRITERIA])
    crossed = {recall: cross_fitted(m.scores, labels, half, recall) for recall in RECALLS}

    def intervals(stated: np.ndarray) -> dict[str, metrics.Interval]:
        return {k: resamples.interval(v) for k, v in truth_of(stated, labels).items()}

    def by_state(stated: np.ndarray, q: int, s: int) -> dict[str, metrics.Interval]:
        return {
            "precision": resamples.interval(metrics.precision(labels[:, q], stated[:, q], s)),
            "recall": resamples.interval(metrics.recall(labels[:, q], stated[:, q], s)),
        }

    return {
        "meta": bench.meta(data=DATA, split=SPLIT, recall=RECALL, thresholds=bench.thresholds),
        "n": len(labels),
        "map_correlation": resamples.interval(metrics.mean(alike)),
        "shipped": intervals(shipped),
        "cross_fitted": {str(recall): intervals(stated) for recall, stated in crossed.items()},
        "states": {
            state.key: {"shipped": by_state(shipped, q, s), "cross_fitted": by_state(crossed[RECALL], q, s)}
            for q, criterion in enumerate(CRITERIA)
            for s, state in enumerate(criterion.states, start=1)
            if asked[q]
        },
    }


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    systems = {"as shipped, chosen on these photos": result["shipped"]} | {
        f"for a macro recall of {recall}, cross-fitted": figures for recall, figures in result["cross_fitted"].items()
    }
    titles = {
        "hallucination": "hallucination rate (label: absent)",
        "other_type": "other type",
        "precision": "precision",
        "macro_recall": "macro recall",
        "macro_recall_of_states": "of states",
        "cited_per_photo": "cited a photo",
    }
    rows = [[name, *(with_interval(figures[k]) for k in titles)] for name, figures in systems.items()]
    each = [
        [
            STATE_BY_KEY[key].phrase,
            *(with_interval(figures[how][k]) for how in ("shipped", "cross_fitted") for k in ("precision", "recall")),
        ]
        for key, figures in result["states"].items()
    ]
    return Section.of(
        "Criteria cited",
        [
            f"Derm7pt {result['meta']['split']}, n = {result['n']}. Mean correlation of different criteria's maps "
            f"inside the lesion: {with_interval(result['map_correlation'])}. A criterion cited is a hallucination "
            "where the label says that it is absent; one of another type than the label's is counted beside it, and is "
            "false too. Macro recall is that of the seven criteria, of any type; of states, of the labelled type.",
            table(["thresholds", *titles.values()], rows),
            table(["state", "precision", "recall", "precision, cross-fitted", "recall, cross-fitted"], each),
        ],
    )
