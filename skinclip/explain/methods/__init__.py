"""Every way to explain a photo's diagnosis: one file per method, listed in the order of the page and the tables."""

from __future__ import annotations

from skinclip.explain.methods import (
    controls,
    evidence,
    grad_cam,
    integrated_gradients,
    layer_cam,
    occlusion,
    plain_grad_cam,
    rise,
)
from skinclip.explain.registry import Method, registry

METHODS: dict[str, Method] = registry(
    (
        evidence.METHOD,
        grad_cam.METHOD,
        grad_cam.UNTUNED,
        plain_grad_cam.METHOD,
        layer_cam.METHOD,
        integrated_gradients.METHOD,
        occlusion.METHOD,
        rise.METHOD,
        *controls.METHODS,
    )
)
# What the page lays over a photo first: the model's own explanation, and the usual one to compare it with.
OWN, USUAL = evidence.METHOD.key, grad_cam.METHOD.key


def reported(report: str) -> tuple[str, ...]:
    """Keys of the methods that a report shows; see `registry.Method.reports`."""
    return tuple(key for key, method in METHODS.items() if report in method.reports)
