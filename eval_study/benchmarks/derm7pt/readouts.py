"""Logistic readouts of the frozen tower's features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from eval_study.benchmarks.common import (
    Bench,
)
from eval_study.benchmarks.derm7pt.photos import DATA, view
from eval_study.benchmarks.derm7pt.tasks import DIAG, STATES, ByTask
from skinclip.core.vocabulary import SEXES, SITES
from skinclip.data.cases import Case

READOUTS: dict[str, tuple[str, ...]] = {
    "dermoscopy": ("dermoscopy",),
    "dermoscopy + clinical photo": ("dermoscopy", "clinical"),
    "dermoscopy + clinical photo + context": ("dermoscopy", "clinical", "context"),
}
FOLDS = 5
STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)  # scikit-learn's C


@dataclass(frozen=True)
class ReadoutInputs:
    """`x` [n, F]; `weights` [F] give each block of columns the same total variance, lest a wide one drown others."""

    x: np.ndarray
    weights: np.ndarray


def features(bench: Bench, splits: Sequence[str], parts: Sequence[str], crop: str) -> ReadoutInputs:
    """Of each photo the embedding, the evidence scores and the style; context one-hot; NaN where a photo is missing."""
    cases = [case for split in splits for case in bench.cases(DATA, split)]
    blocks: list[np.ndarray] = []
    for part in parts:
        if part == "context":
            blocks.append(context_columns(cases))
            continue
        measured = [view(bench, split, part, crop) for split in splits]
        row_of = {c.image_id: i for i, c in enumerate(case for m in measured for case in m.cases)}
        rows = np.array([row_of.get(c.image_id, -1) for c in cases])
        for name in ("embeddings", "scores", "style"):
            values = np.concatenate([getattr(m, name) for m in measured]).astype(np.float64)
            blocks.append(np.where(rows[:, None] >= 0, values[rows], np.nan))
    weights = np.concatenate([np.full(b.shape[1], b.shape[1] ** -0.5) for b in blocks])
    return ReadoutInputs(np.hstack(blocks), weights)


def context_columns(cases: Sequence[Case]) -> np.ndarray:
    """[n, F] one-hot sex and body site; zeros where not given."""
    rows = [[*(float(c.context.sex == s) for s in SEXES), *(float(c.context.site == s) for s in SITES)] for c in cases]
    return np.array(rows).reshape(len(cases), len(SEXES) + len(SITES))


def readout(weights: np.ndarray, strength: float) -> Pipeline:
    """Logistic regression on standardised, block-weighted features; a missing photo counts as an average one."""
    return make_pipeline(
        StandardScaler(),
        SimpleImputer(strategy="constant", fill_value=0.0, keep_empty_features=True),
        FunctionTransformer(lambda x: x * weights),
        LogisticRegression(C=strength, max_iter=3000),
    )


def fit_predict(
    f: ReadoutInputs, labels: np.ndarray, fit: np.ndarray, rows: np.ndarray, s: float, n_states: int
) -> np.ndarray:
    """[rows, S] probabilities from a readout fitted on the labelled of the rows `fit`."""
    fit = fit[labels[fit] >= 0]
    p = np.zeros((len(rows), n_states))
    present = np.unique(labels[fit])
    if len(present) < 2:  # nothing to tell apart
        p[:, present] = 1.0
        return p
    model = readout(f.weights, s).fit(f.x[fit], labels[fit])
    p[:, model.classes_] = model.predict_proba(f.x[rows])
    return p


def folds_of(labels: ByTask, groups: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rest, fold) row numbers; a case's photos lie in one fold, DIAG's groups are spread evenly."""
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(groups)), labels[DIAG], groups))


def out_of_fold(
    f: ReadoutInputs, labels: np.ndarray, folds: Sequence[tuple[np.ndarray, np.ndarray]], s: float, n_states: int
) -> np.ndarray:
    """[n, S] probabilities of each row from the readout fitted on the other folds."""
    p = np.zeros((len(labels), n_states))
    for rest, fold in folds:
        p[fold] = fit_predict(f, labels, rest, fold, s, n_states)
    return p


def chosen_strengths(f: ReadoutInputs, labels: ByTask, groups: np.ndarray, seed: int) -> dict[str, float]:
    """For each task the strength of least log loss over folds of these rows."""
    folds, strengths = folds_of(labels, groups, seed), {}
    for task, own in labels.items():
        known, n_states = own >= 0, len(STATES[task])
        losses = {
            s: log_loss(own[known], out_of_fold(f, own, folds, s, n_states)[known], labels=np.arange(n_states))
            for s in STRENGTHS
        }
        strengths[task] = min(losses, key=losses.__getitem__)
    return strengths
