"""Grad-CAM (Selvaraju et al. 2017) of the model's own diagnosis, tuned, and as it is mostly used."""

from __future__ import annotations

from skinclip.explain import saliency
from skinclip.explain.registry import CURVES, GALLERY, SANITY, SUMMARY, Method
from skinclip.explain.saliency import Cam
from skinclip.explain.subject import LabelledMap, Subject

# The best of 16 settings on validation photos: `eval_study.explanations`, part "tuning"
OWN_CAM = Cam(stage=-3, relu=True, mirrors=False)


def grad_cam(subject: Subject) -> list[LabelledMap]:
    """The map of the tuned layer."""
    return subject.labelled(saliency.grad_cam(subject.network, subject.photo, subject.target, OWN_CAM))


def untuned_grad_cam(subject: Subject) -> list[LabelledMap]:
    """The map of the last stage, ReLU, as Grad-CAM is mostly used."""
    return subject.labelled(saliency.grad_cam(subject.network, subject.photo, subject.target, Cam()))


METHOD = Method(
    "grad_cam",
    "Grad-CAM",
    grad_cam,
    "Where the maps of the image tower raise the leading diagnosis; it says not what is seen there.",
    reports=frozenset((SUMMARY, CURVES, SANITY, GALLERY)),
)
UNTUNED = Method(
    "usual_grad_cam",
    "Grad-CAM, untuned",
    untuned_grad_cam,
    "The same at the last stage, as mostly used.",
    reports=frozenset((SUMMARY, CURVES)),
)
