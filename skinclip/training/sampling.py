"""Sampling of photos into batches, and the priors and soft targets that follow from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.training.losses import MISSING

LEAST_PRIOR = 0.001


def class_counts(labels: Tensor) -> Tensor:
    """[C] number of photos with each diagnosis; one without a label counts nowhere."""
    return torch.bincount(labels[labels != MISSING], minlength=len(DIAGNOSIS_CODES))


def draw_weights(labels: Tensor, power: float) -> Tensor:
    """Chance of each photo to be drawn: n^-power of its class's size n, so rare classes come up more often.

    Photos without a label are drawn as an average photo is.
    """
    weights = class_counts(labels).clamp_min(1).double().pow(-power)[labels.clamp_min(0)]
    labelled = labels != MISSING
    weights[~labelled] = weights[labelled].mean() if labelled.any() else 1.0
    return weights / weights.sum()


def favour_criteria(weights: Tensor, known: Tensor, share: float) -> Tensor:
    """Chances [n] by which photos with labelled criteria make up `share` of those drawn, where both kinds are drawn.

    One photo in twenty-five has such labels: drawn as they come, a batch would hold one or two. Among them a photo is
    drawn the more often, the more its labels say.

    Args:
        known: [n, Q] weight of the label of each criterion, 0 where there is none.
    """
    labelled = (known > 0).any(1)
    weights = weights.clone()
    if weights[labelled].sum() > 0 and weights[~labelled].sum() > 0:
        weights[labelled] *= known[labelled].sum(1).to(weights.dtype)
        weights[labelled] *= share / weights[labelled].sum()
        weights[~labelled] *= (1 - share) / weights[~labelled].sum()
    return weights / weights.sum()


def drawn_shares(labels: Tensor, drawn: Tensor) -> Tensor:
    """[C] shares of the diagnoses among labelled photos that are drawn with chances `drawn` [n], float64."""
    known = labels != MISSING
    shares = torch.zeros(len(DIAGNOSIS_CODES), dtype=torch.double)
    shares.index_add_(0, labels[known], drawn[known].double())
    return shares / shares.sum().clamp_min(1e-12)


def source_priors(labels: Tensor, drawn: Tensor, sources: Sequence[str]) -> Tensor:
    """[n, C] shares of the diagnoses among the photos as drawn from the source of each of n photos.

    A diagnosis that a source never has keeps `LEAST_PRIOR`, so that its photos say little of that diagnosis.

    Args:
        drawn: [n] chance of each photo to be drawn.
        sources: name of each photo's source.
    """
    known, names = labels != MISSING, sorted(set(sources))
    group = torch.tensor([names.index(source) for source in sources])
    shares = torch.zeros(len(names), len(DIAGNOSIS_CODES), dtype=torch.double)
    shares.index_put_((group[known], labels[known]), drawn[known].double(), accumulate=True)
    shares = shares / shares.sum(1, keepdim=True).clamp_min(1e-12) + LEAST_PRIOR
    return (shares / shares.sum(1, keepdim=True)).float()[group]


def natural_prior(labels: Tensor) -> Tensor:
    """Shares of the diagnoses among the labelled photos, [C] (one photo added to each, so that none is zero)."""
    counts = class_counts(labels).double() + 1
    return counts / counts.sum()


def soft_targets(labels: Tensor, smoothing: float) -> Tensor:
    """Smoothed one-hot rows [B, C] of labels [B]; a row of zeros where there is no label."""
    n = len(DIAGNOSIS_CODES)
    targets = F.one_hot(labels.clamp_min(0), n).float() * (1 - smoothing) + smoothing / n
    return torch.where((labels == MISSING).unsqueeze(1), torch.zeros_like(targets), targets)


def batches(order: Tensor, size: int) -> Iterator[Tensor]:
    """`order` in runs of `size`; the last incomplete one is left out."""
    for start in range(0, len(order) - size + 1, size):
        yield order[start : start + size]
