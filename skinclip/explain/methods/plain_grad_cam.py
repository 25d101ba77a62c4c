"""Grad-CAM of a plain fine-tuned classifier: the explanation that a usual product would show."""

from __future__ import annotations

from functools import cache

from skinclip.explain import saliency
from skinclip.explain.registry import SUMMARY, Method
from skinclip.explain.saliency import Cam, Network
from skinclip.explain.subject import LabelledMap, Subject
from skinclip.model.plain import load_plain

# The best of 16 settings on validation photos: `eval_study.explanations`, part "tuning"
PLAIN_CAM = Cam(stage=-2, relu=False, mirrors=True)


def plain_grad_cam(subject: Subject) -> list[LabelledMap]:
    """The map of the plain classifier's logit for the same diagnosis. Raises CheckpointError without a classifier."""
    return subject.labelled(saliency.grad_cam(plain_network(), subject.photo, subject.target, PLAIN_CAM))


@cache
def plain_network() -> Network:
    """The plain classifier, loaded at its first use."""
    return saliency.plain_network(load_plain())


METHOD = Method(
    "plain_grad_cam",
    "Grad-CAM of a plain classifier",
    plain_grad_cam,
    "The same for a usual classifier.",
    of_criteria=False,  # the classifier knows diagnoses only
    reports=frozenset((SUMMARY,)),
)
