"""Effect of the evidence on the answer: the checklist edited by hand, one state at a time.

Each criterion is turned from absent to each of its states, all else as it was seen; measured is how P(melanoma) moves,
on Derm7pt's validation photos, whose criteria are what the checklist is about. Evidence exchanged between photos is in
the benchmarks ("evidence").
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tqdm import tqdm

from eval_study.benchmarks.blocks import table
from eval_study.benchmarks.common import BATCH, Bench
from skinclip.core.formatting import with_interval
from skinclip.core.vocabulary import DIAGNOSIS_CODES, EVIDENCE_STATES, STATE_BY_KEY, state_key
from skinclip.evaluation import metrics
from skinclip.evaluation.scores import cluster
from skinclip.explain.counterfactual import what_if
from skinclip.imaging.photo import load_photo
from skinclip.model.criteria import criterion_probabilities
from skinclip.reporting.document import Section

NAME = "changes"
DATA, SPLIT = "derm7pt", "valid"
MEL = DIAGNOSIS_CODES.index("mel")


def run(bench: Bench) -> dict[str, Any]:
    """For every state: share of photos where it raises P(melanoma) against absent, and against what was seen."""
    cases = bench.cases(DATA, SPLIT)
    rows: dict[str, list[np.ndarray]] = {}
    for start in tqdm(range(0, len(cases), BATCH), desc="editing the checklist", mininterval=10):
        for key, values in edited(bench, cases[start : start + BATCH]).items():
            rows.setdefault(key, []).append(values)
    p_of = {key: np.concatenate(values) for key, values in rows.items()}
    resamples = metrics.GroupBootstrap([cluster(c) for c in cases], bench.n_boot, bench.seed)
    states = {}
    for state in [EVIDENCE_STATES[k] for k in bench.assessor.config.known.states]:
        on, off = p_of[state.key], p_of[state_key(state.criterion, "absent")]
        unseen = p_of[f"{state.key} seen"] < 0.5
        states[state.key] = {
            "raises": resamples.interval(metrics.mean((on > off).astype(float))),
            "moves": resamples.interval(metrics.mean(on - off)),
            "raises_where_not_seen": resamples.interval(metrics.share(on > p_of["as seen"], unseen)),
            "not_seen": int(unseen.sum()),
        }
    return {"meta": bench.meta(data=DATA, split=SPLIT), "n": len(cases), "states": states}


def edited(bench: Bench, cases: list[Any]) -> dict[str, np.ndarray]:
    """P(melanoma) [n] of the photos as seen and under every edit, and how probable each state was as seen."""
    assessor = bench.assessor
    columns: dict[str, list[float]] = {}
    for case in cases:
        output = assessor.forward([load_photo(case.image)], [case.context])
        probable = criterion_probabilities(output.criterion_scores[0])
        values = {"as seen": float(output.calibrated.probabilities[0, MEL])}
        for criterion in assessor.config.known.known_criteria:
            for label in criterion.labels:
                p = what_if(assessor.predictor, output, case.context, {criterion.code: label}).probabilities
                values[f"{criterion.code}:{label}"] = float(p[0, MEL])
                values[f"{criterion.code}:{label} seen"] = probable[criterion.code][label]
        for key, value in values.items():
            columns.setdefault(key, []).append(value)
    return {key: np.array(values) for key, values in columns.items()}


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    rows = [
        [
            STATE_BY_KEY[key].phrase,
            with_interval(row["raises"]),
            with_interval(row["moves"], sign=True),
            with_interval(row["raises_where_not_seen"]),
            row["not_seen"],
        ]
        for key, row in result["states"].items()
    ]
    header = ["state turned on", "raises P(melanoma)", "mean change", "raises it where not seen", "photos not seen"]
    return Section.of(
        "The checklist edited",
        [
            f"Derm7pt {result['meta']['split']}, n = {result['n']}: each state against absent, all else as seen; and "
            "against the answer as it was, among photos where the model held the state less likely than not.",
            table(header, rows),
        ],
    )
