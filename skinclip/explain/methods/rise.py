"""RISE (Petsiuk et al. 2018) inside the lesion."""

from __future__ import annotations

import numpy as np

from skinclip.explain.effects import SHARE, weighed
from skinclip.explain.faithfulness import random_region
from skinclip.explain.methods.evidence import SMOOTH
from skinclip.explain.registry import CURVES, SUMMARY, Method
from skinclip.explain.subject import LabelledMap, Subject


def rise(subject: Subject) -> list[LabelledMap]:
    """As `evidence`, with as many random regions in place of the criteria's."""
    rng = subject.rng()
    area = round(SHARE * np.count_nonzero(subject.lesion))
    states = subject.predictor.model.known.states
    maps = np.stack([random_region(subject.lesion, area, rng) for _ in states]).astype(np.float32)
    return subject.labelled(weighed(subject.answer, subject.photo, maps, subject.lesion, SMOOTH))


METHOD = Method(
    "rise",
    "RISE",
    rise,
    "Random regions of the lesion, each by how far the diagnosis drops without it and holds by it alone.",
    reports=frozenset((SUMMARY, CURVES)),
)
