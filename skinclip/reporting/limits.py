"""Measured limits of the embedded model: what a referral threshold costs, and how often the model errs in which group.

`assets/limits.json` holds the figures with the weights that they belong to (`python -m eval_study.limits` makes it
from the photos themselves). For other weights nothing is claimed.
"""

from __future__ import annotations

import json
from functools import cache

import numpy as np
from pydantic import BaseModel, ConfigDict

from skinclip.core.assessment import Malignancy
from skinclip.core.paths import ASSETS
from skinclip.pipeline.settings import shifted

FIGURES = ASSETS / "limits.json"


class OperatingCurve(BaseModel):
    """Sensitivity and specificity of the referral at each threshold, with 95 % intervals.

    Attributes:
        data, split: the photos it was measured on.
        thresholds: rising, at the model's own prevalence.
        sensitivity, specificity: [value, low, high] at each threshold.
    """

    model_config = ConfigDict(extra="forbid")
    data: str
    split: str
    n_malignant: int
    n_benign: int
    thresholds: list[float]
    sensitivity: list[tuple[float, float, float]]
    specificity: list[tuple[float, float, float]]

    def at(self, threshold: float) -> tuple[float, float]:
        """Sensitivity and specificity at a threshold: those of the nearest one that was measured."""
        i = int(np.argmin(np.abs(np.array(self.thresholds) - threshold)))
        return self.sensitivity[i][0], self.specificity[i][0]


class Group(BaseModel):
    """The referral's errors on one group of photos, at the model's own threshold.

    Attributes:
        kind: "kind of photo", "body site", "sex", "age", or "skin tone" with the kind of photo.
        name: the group in words.
        missed: [value, low, high], the share of malignant photos not referred; None where there are fewer than ten.
        needless: likewise, the share of benign photos referred.
        abstained: the share of photos on which the model abstains: unlike those it knows, or too unsure of.
        auroc: [value, low, high] of malignant against benign; None where either has fewer than ten.
    """

    model_config = ConfigDict(extra="forbid")
    kind: str
    name: str
    data: str
    n: int
    n_malignant: int
    missed: tuple[float, float, float] | None
    needless: tuple[float, float, float] | None
    abstained: float
    auroc: tuple[float, float, float] | None


class MeasuredLimits(BaseModel):
    """All of `assets/limits.json`."""

    model_config = ConfigDict(extra="forbid")
    weights_sha256: str
    command: str
    date: str
    seed: int
    curve: OperatingCurve
    groups: list[Group]


@cache
def measured() -> MeasuredLimits | None:
    """The figures that are shipped; None where nothing was measured."""
    return MeasuredLimits.model_validate(json.loads(FIGURES.read_text())) if FIGURES.exists() else None


def limits_of(weights: str) -> MeasuredLimits | None:
    """The limits of the model with this `weights_sha256`; None where they were not measured."""
    known = measured()
    return known if known is not None and known.weights_sha256 == weights else None


def costs(malignancy: Malignancy, weights: str, natural: float | None) -> tuple[float | None, float | None]:
    """Sensitivity and specificity of a referral decision; None where they are not known.

    Args:
        natural: the prevalence that the thresholds of the curve are at.
    """
    known = limits_of(weights)
    if malignancy.sensitivity is not None or known is None:
        return malignancy.sensitivity, malignancy.specificity
    threshold = malignancy.threshold
    if natural is not None and malignancy.prevalence is not None:
        threshold = shifted(threshold, malignancy.prevalence, natural)
    return known.curve.at(threshold)


def grouped(known: MeasuredLimits) -> dict[str, list[Group]]:
    """The groups by their kind, in the order of the file."""
    kinds = list(dict.fromkeys(g.kind for g in known.groups))
    return {kind: [g for g in known.groups if g.kind == kind] for kind in kinds}
