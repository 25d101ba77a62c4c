"""Integrated gradients (Sundararajan et al. 2017), with the blurred photo as baseline."""

from __future__ import annotations

from skinclip.explain import saliency
from skinclip.explain.registry import SANITY, Method
from skinclip.explain.subject import LabelledMap, Subject


def integrated_gradients(subject: Subject) -> list[LabelledMap]:
    """Attributions of the target diagnosis's logit, summed over the colour channels."""
    return subject.labelled(saliency.integrated_gradients(subject.network, subject.photo, subject.target))


METHOD = Method(
    "integrated_gradients",
    "Integrated gradients",
    integrated_gradients,
    "Which pixels raise the diagnosis, on the way from a blurred photo to this one.",
    reports=frozenset((SANITY,)),
)
