"""Derm7pt's eight tasks: labels, and the model's probabilities for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.model_selection import GroupKFold

from eval_study.benchmarks.common import (
    Measured,
    criteria_of,
)
from skinclip.calibration.criteria import CriteriaCalibration, fit_criteria
from skinclip.core.vocabulary import (
    CODE_TO_DERM7PT_GROUP,
    CRITERIA,
    DERM7PT_GROUPS,
    DERM7PT_STATES,
    DIAGNOSIS_CODES,
)
from skinclip.data.cases import Case
from skinclip.model.criteria import criterion_log_probs

DIAG = "diagnosis"
LABELLED = {q: c for q, c in enumerate(CRITERIA) if c.code in DERM7PT_STATES}  # number -> criterion, of those it labels
STATES: dict[str, tuple[str, ...]] = {DIAG: DERM7PT_GROUPS, **{c.code: c.labels for c in LABELLED.values()}}
_TO_GROUP = np.array([[CODE_TO_DERM7PT_GROUP[code] == g for g in DERM7PT_GROUPS] for code in DIAGNOSIS_CODES], float)
MEL = DERM7PT_GROUPS.index("MEL")
ByTask = dict[str, np.ndarray]  # task -> one row per case: labels [n], -1 unlabelled, or probabilities [n, S]


def labels_of(cases: Sequence[Case]) -> ByTask:
    """Task -> [n] number of the state in STATES, -1 where it is not labelled."""
    diag = [DERM7PT_GROUPS.index(c.diagnosis_group) if c.diagnosis_group else -1 for c in cases]
    columns = criteria_of(cases)
    return {DIAG: np.array(diag, dtype=np.int64), **{c.code: columns[:, q] for q, c in LABELLED.items()}}


def as_shipped(m: Measured, calibration: CriteriaCalibration | None = None) -> ByTask:
    """The model's own probabilities: the criteria's, and the diagnoses' added up by group.

    Args:
        calibration: of the criteria; None leaves them as the maps give them.
    """
    return _by_task(m, np.asarray(m.scores) if calibration is None else calibration.apply(m.scores))


def cross_calibrated(m: Measured, seed: int, folds: int = 5) -> ByTask:
    """As `as_shipped`, each photo's criteria calibrated by a fit on the other folds; a lesion lies in one fold."""
    scores = np.array(m.scores, dtype=np.float64)
    for rest, fold in GroupKFold(folds, shuffle=True, random_state=seed).split(scores, groups=m.groups):
        scores[fold] = fit_criteria(m.scores[rest], m.criteria[rest]).apply(m.scores[fold])
    return _by_task(m, scores)


def _by_task(m: Measured, scores: np.ndarray) -> ByTask:
    log_p = criterion_log_probs(torch.from_numpy(np.asarray(scores, dtype=np.float32)))
    criteria = {c.code: log_p[q].double().exp().numpy() for q, c in LABELLED.items()}
    return {DIAG: m.probabilities @ _TO_GROUP, **criteria}


def at_prevalence(p: ByTask, natural_prior: np.ndarray, shares: np.ndarray) -> ByTask:
    """`p` with DIAG moved from the training data's prevalence [C] to `shares` [5] of the groups."""
    moved = p[DIAG] * shares / (natural_prior @ _TO_GROUP)
    return {**p, DIAG: moved / moved.sum(axis=1, keepdims=True)}


def commonest(train: ByTask, n: int) -> ByTask:
    """The training labels' shares for each of `n` cases: deciding by them always says the commonest state."""
    return {task: np.tile(shares(labels, len(STATES[task])), (n, 1)) for task, labels in train.items()}


def shares(labels: np.ndarray, n_states: int) -> np.ndarray:
    """[S] share of each state among the labelled rows."""
    counts = np.bincount(labels[labels >= 0], minlength=n_states)
    return counts / max(1, counts.sum())
