"""Controls: maps that know nothing of the model, which an explanation has to beat."""

from __future__ import annotations

import cv2
import numpy as np

from skinclip.explain.registry import CURVES, SANITY, SUMMARY, Method
from skinclip.explain.subject import GRID, LabelledMap, Subject


def lesion_mask(subject: Subject) -> list[LabelledMap]:
    """The predicted lesion."""
    return subject.labelled(subject.mask)


def centred_gaussian(subject: Subject) -> list[LabelledMap]:
    """A bell, a third of the window wide (two standard deviations to either side of the middle)."""
    x = (np.arange(GRID) + 0.5) / GRID - 0.5
    bell = np.exp(-(x**2) / (2 * (1 / 6) ** 2))
    return subject.labelled(np.outer(bell, bell))


def random_regions(subject: Subject) -> list[LabelledMap]:
    """Smooth noise, the same at each call for the same photo."""
    coarse = subject.rng().random((8, 8)).astype(np.float32)
    return subject.labelled(cv2.resize(coarse, (GRID, GRID), interpolation=cv2.INTER_CUBIC))


METHODS = (
    Method(
        "lesion_mask",
        "Lesion mask",
        lesion_mask,
        "The lesion as the model outlines it.",
        uses_model=False,
        reports=frozenset((CURVES, SANITY)),
    ),
    Method(
        "gaussian",
        "Centred Gaussian",
        centred_gaussian,
        "The middle of the photo.",
        uses_model=False,
        reports=frozenset((SUMMARY, CURVES)),
    ),
    Method(
        "random",
        "Random regions",
        random_regions,
        "Chance.",
        uses_model=False,
        reports=frozenset((SUMMARY, CURVES)),
    ),
)
