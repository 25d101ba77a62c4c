"""Criterion probabilities from evidence scores: the one place that the loss trains and an Assessment reads.

Each criterion's states compete in one softmax in which "absent" has the fixed logit 0.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skinclip.core.vocabulary import CRITERIA, CRITERION_CODES

STATE_COUNTS: tuple[int, ...] = tuple(len(criterion.states) for criterion in CRITERIA)  # present states of each of Q


def criterion_log_probs(scores: Tensor) -> list[Tensor]:
    """Log-probabilities of the states of each criterion; "absent" has the fixed logit 0.

    The model reads its criterion probabilities from the same function that the loss trains.

    Args:
        scores: [B, K] one score per criterion state, in the order of `vocabulary.EVIDENCE_STATES`

    Returns:
        Q tensors [B, 1 + states], "absent" first, in the order of `vocabulary.CRITERIA`.
    """
    return [state_log_probs(s) for s in split_by_criterion(scores)]


def split_by_criterion(scores: Tensor) -> tuple[Tensor, ...]:
    """Scores [B, K] as Q tensors [B, states]. Raises ValueError for another shape."""
    n = sum(STATE_COUNTS)
    if scores.ndim != 2 or scores.shape[1] != n:
        raise ValueError(f"scores must be [B, {n}], got {list(scores.shape)}")
    return scores.split(STATE_COUNTS, dim=1)


def state_log_probs(scores: Tensor) -> Tensor:
    """Scores [B, states] of one criterion as log-probabilities [B, 1 + states], "absent" first; at least float32."""
    wide = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    return F.pad(wide, (1, 0)).log_softmax(dim=-1)


def criterion_probabilities(scores: Tensor, codes: Collection[str] = CRITERION_CODES) -> dict[str, dict[str, float]]:
    """criterion -> state -> probability, from the evidence scores [K] of a photo, of the criteria `codes`."""
    log_p = criterion_log_probs(scores.unsqueeze(0))
    return {
        criterion.code: dict(zip(criterion.labels, row[0].exp().tolist(), strict=True))
        for criterion, row in zip(CRITERIA, log_p, strict=True)
        if criterion.code in codes
    }


def cited_state(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Number of the state of a criterion that is cited, 0 for none.

    Whether the criterion is there and of which type are two questions: it is cited where all states together reach the
    threshold, as the most probable of them.

    Args:
        probabilities: [..., 1 + states], "absent" first.
    """
    return np.where(1 - probabilities[..., 0] >= threshold, probabilities[..., 1:].argmax(-1) + 1, 0)
