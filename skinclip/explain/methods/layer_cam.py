"""LayerCAM (Jiang et al. 2021)."""

from __future__ import annotations

from skinclip.explain import saliency
from skinclip.explain.methods.grad_cam import OWN_CAM
from skinclip.explain.registry import Method
from skinclip.explain.subject import LabelledMap, Subject


def layer_cam(subject: Subject) -> list[LabelledMap]:
    """The map of the layer that Grad-CAM was tuned to."""
    return subject.labelled(saliency.layer_cam(subject.network, subject.photo, subject.target, OWN_CAM))


METHOD = Method(
    "layer_cam",
    "LayerCAM",
    layer_cam,
    "As Grad-CAM, each place weighted by its own gradient.",
    reports=frozenset(),
)
