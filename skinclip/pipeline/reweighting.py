"""The figures of an Assessment at another prevalence, from those that it has: no photo is looked at again.

Probabilities are scaled by the ratio of prevalences and renormalised (Saerens, Latinne and Decaestecker 2002), which is
what `Calibrator.at` does to the model's own outputs; prediction set and threshold are those that it fits anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

import numpy as np

from skinclip.calibration.calibrator import Calibrator
from skinclip.calibration.outputs import PAIR
from skinclip.calibration.prevalence import Prevalence
from skinclip.core.assessment import Assessment, ModelInfo, PrevalenceUsed
from skinclip.core.vocabulary import DIAGNOSIS_CODES, MALIGNANT_CODES


def _of_malignant(shares: Mapping[str, float]) -> float:
    """What the malignant diagnoses have together."""
    return sum(share for code, share in shares.items() if code in MALIGNANT_CODES)


def shares_of(calibrator: Calibrator) -> dict[str, float]:
    """The prevalence of a calibrator: the share of each diagnosis that the model knows."""
    return {DIAGNOSIS_CODES[c]: float(calibrator.natural_prior[c]) for c in calibrator.known.tolist()}


class ReadsPhotos(Protocol):
    """The part of an `Assessor` whose answers are re-weighted."""

    model_info: ModelInfo

    @property
    def calibrator(self) -> Calibrator:
        """The calibrator of the active model."""
        ...

    def using(self, weights: str | None) -> AbstractContextManager[None]:
        """Activates a checkpoint; see `Assessor.using`."""
        ...


def reweighted(assessor: ReadsPhotos, assessment: Assessment, malignant: float) -> Assessment:
    """The Assessment with the figures at a prevalence where this share of the lesions is malignant.

    Probabilities, prediction set, referral and threshold are those of `Assessor.assess(prevalence=...)`; findings,
    their effects and the rationale stay as they are. A checkpoint of before, which has no calibration photos to fit set
    and threshold anew to, keeps both. Raises CheckpointError where the model of the Assessment is no longer on offer.
    """
    weights = assessment.model.weights_sha256
    if weights == assessor.model_info.weights_sha256:  # does not wait for whatever is being assessed
        calibrator = assessor.calibrator
    else:
        with assessor.using(weights):
            calibrator = assessor.calibrator
    own = shares_of(calibrator)
    chosen = chosen_prevalence(own, malignant)
    if calibrator.photos is None:
        return probabilities_at(assessment, own, PrevalenceUsed(chosen.name, chosen.shares))
    return figures_at(assessment, calibrator, calibrator.at(chosen.vector(), chosen.name))


def figures_at(assessment: Assessment, own: Calibrator, other: Calibrator) -> Assessment:
    """The Assessment with probabilities, prediction set and referral of `other` in the place of those of `own`.

    Args:
        own: the calibrator that the Assessment was made with.
        other: that calibrator at another prevalence.
    """
    moved = probabilities_at(assessment, shares_of(own), PrevalenceUsed(other.prevalence, shares_of(other)))
    part = other.of(_calibrated_as(assessment, own))
    by_code = {d.code: d.probability for d in moved.diagnosis}
    p = np.array([[by_code.get(code, 0.0) for code in DIAGNOSIS_CODES]])
    referral, malignancy = part.referral, moved.malignancy
    costs = (referral.sensitivity, referral.specificity)
    sensitivity, specificity = (float(v) if np.isfinite(v) else None for v in costs)
    refer = bool(referral.refer(np.array([malignancy.probability]))[0])
    return replace(
        moved,
        prediction_set=replace(moved.prediction_set, codes=tuple(part.conformal.sets(p, DIAGNOSIS_CODES)[0])),
        malignancy=replace(
            malignancy, threshold=referral.threshold, refer=refer, sensitivity=sensitivity, specificity=specificity
        ),
    )


def probabilities_at(assessment: Assessment, own: dict[str, float], other: PrevalenceUsed) -> Assessment:
    """The Assessment with its probabilities alone at another prevalence; its set and its threshold stay.

    Args:
        own: share of each diagnosis at which its probabilities are.
    """
    scaled = {d.code: d.probability * other.shares[d.code] / own[d.code] for d in assessment.diagnosis}
    total = sum(scaled.values())
    moved = (replace(d, probability=scaled[d.code] / total) for d in assessment.diagnosis)
    order = {code: i for i, code in enumerate(DIAGNOSIS_CODES)}
    m, p = assessment.malignancy, _of_malignant(scaled) / total
    return replace(
        assessment,
        diagnosis=tuple(sorted(moved, key=lambda d: (-d.probability, order[d.code]))),
        malignancy=replace(
            m,
            probability=p,
            refer=p >= m.threshold,
            sensitivity=None,
            specificity=None,
            prevalence=_of_malignant(other.shares),
        ),
        prevalence=other,
    )


def chosen_prevalence(own: dict[str, float], malignant: float) -> Prevalence:
    """The prevalence at which a share of the lesions is malignant, with the proportions of `own` within each group.

    Args:
        own: share of each diagnosis.
        malignant: 0 to 1, of the malignant ones together.
    """
    before = _of_malignant(own)
    scale = {True: malignant / before, False: (1 - malignant) / (sum(own.values()) - before)}
    shares = {code: share * scale[code in MALIGNANT_CODES] for code, share in own.items()}
    return Prevalence(name=f"{100 * malignant:.0f} % malignant", source="the reader's choice", shares=shares)


def _calibrated_as(assessment: Assessment, own: Calibrator) -> str:
    """The kind of photo whose calibration the Assessment got, as `Calibrator.apply` chooses it."""
    if len(assessment.photos) > 1 and PAIR in own.by_kind:
        return PAIR
    photo = assessment.photo
    return next((kind for kind in (photo.kind, photo.kind_recognised) if kind and kind in own.by_kind), "")
