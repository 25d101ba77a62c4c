"""Contents of a training prompt: its context, parts of it left out, and the findings that may be cited."""

from __future__ import annotations

import random

import torch.nn.functional as F
from torch import Tensor

from skinclip.core.assessment import Context
from skinclip.core.vocabulary import CRITERIA, MAX_FINDINGS
from skinclip.data.cases import Case
from skinclip.imaging.abcd_features import measure_lesion, measured_findings
from skinclip.model.criteria import criterion_log_probs

# A training rationale cites a labelled state only where its map gives it at least this probability.
MIN_MAP_PROBABILITY = 0.3


def training_context(case: Case, rng: random.Random) -> Context:
    """The case's context with parts left out at random, so that the model can do without any of them."""
    c = case.context
    keep = [rng.random() > 0.3 for _ in range(3)]
    return Context(c.age if keep[0] else None, c.sex if keep[1] else None, c.site if keep[2] else None)


def supported_findings(photo: Tensor, mask: Tensor, labels: Tensor, scores: Tensor) -> list[str]:
    """State keys that a training rationale may cite: labelled and shown by their map, or measured on the mask.

    Args:
        photo: [3, side, side] in 0..1.
        mask: [m, m] bool.
        labels: [Q] labelled states, MISSING where not labelled.
        scores: [K] evidence scores.
    """
    findings: list[tuple[float, str]] = []
    for q, log_p in enumerate(criterion_log_probs(scores.unsqueeze(0))):
        state = int(labels[q])
        if state > 0 and log_p[0, state].exp() >= MIN_MAP_PROBABILITY:
            findings.append((log_p[0, state].exp().item(), CRITERIA[q].states[state - 1].key))
    pixels = (photo.permute(1, 2, 0) * 255).byte().numpy()
    size = (pixels.shape[1], pixels.shape[0])
    whole = F.interpolate(mask[None, None].float(), (size[1], size[0]), mode="nearest")[0, 0].bool().numpy()
    if whole.any():
        findings += [(score, key) for key, score in measured_findings(measure_lesion(pixels, whole))]
    return [key for _, key in sorted(findings, reverse=True)][:MAX_FINDINGS]
