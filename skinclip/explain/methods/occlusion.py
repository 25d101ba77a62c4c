"""Occlusion (Zeiler and Fergus 2014): squares of the photo are blurred, one at a time."""

from __future__ import annotations

from skinclip.explain import saliency
from skinclip.explain.registry import GALLERY, SUMMARY, Method
from skinclip.explain.subject import LabelledMap, Subject


def occlusion(subject: Subject) -> list[LabelledMap]:
    """Mean drop of the logit over the squares that cover a pixel."""
    return subject.labelled(saliency.occlusion(subject.network, subject.photo, subject.target))


METHOD = Method(
    "occlusion",
    "Occlusion",
    occlusion,
    "How far the diagnosis drops when a square is blurred.",
    reports=frozenset((SUMMARY, GALLERY)),
)
