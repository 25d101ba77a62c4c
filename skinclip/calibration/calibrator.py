"""Calibrator: turns the model's logits into what a clinician is shown.

Fitted once on the calib split, stored with the checkpoint as plain arrays, applied to every photo: calibrated
probabilities, prediction set, P(malignant) with the referral decision, and the shift score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from skinclip.calibration.conformal import NOT_KNOWN, Conformal, fit_conformal, pooled_classes, ranking
from skinclip.calibration.referral import Referral, referral_threshold
from skinclip.calibration.shift import ShiftDetector, fit_shift
from skinclip.calibration.temperature import Calibration, fit_calibration
from skinclip.core.vocabulary import DIAGNOSIS_CODES, MALIGNANT_CODES, MIXED_CODES
from skinclip.hub.layout import CALIBRATION_ARRAYS

MALIGNANT = np.array([code in MALIGNANT_CODES for code in DIAGNOSIS_CODES])  # [C]
_MIXED = np.array([code in MIXED_CODES for code in DIAGNOSIS_CODES])  # [C] may be either
NO_SHARE = 1e-12  # the prior of a diagnosis that is not known; above 0, so that probabilities can be divided by it
_UNKNOWN = {"calibration.bias": -np.inf, "conformal.quantiles": NOT_KNOWN, "natural_prior": NO_SHARE}


@dataclass(frozen=True)
class CalibratedPrediction:
    """One row per photo. `probabilities` are at natural prevalence; `balanced` is p / natural prior, renormalised,
    whose argmax is the decision rule for balanced accuracy; `sets` are codes, most probable first."""

    probabilities: np.ndarray  # [n, C]
    balanced: np.ndarray  # [n, C]
    malignancy: np.ndarray  # [n]
    refer: np.ndarray  # [n] bool
    sets: list[tuple[str, ...]]
    shift_score: np.ndarray  # [n], 0-1
    in_domain: np.ndarray  # [n] bool

    @property
    def ranking(self) -> np.ndarray:
        """[n, C] class numbers of each photo, most probable first; equals keep the vocabulary's order."""
        return ranking(self.probabilities)


@dataclass(frozen=True)
class Calibrator:
    """The fitted parts. `natural_prior` is the classes' shares among the training photos, before any balancing.

    Each part has a place for every diagnosis. One that the model does not know has a bias of -inf, so the probability
    0, a prior of `NO_SHARE`, and is in no set.
    """

    calibration: Calibration
    conformal: Conformal
    referral: Referral
    shift: ShiftDetector
    natural_prior: tuple[float, ...]

    @classmethod
    def fit(
        cls,
        calib_logits: np.ndarray,
        calib_labels: np.ndarray,
        train_style: np.ndarray,
        held_out_style: np.ndarray,
        natural_prior: np.ndarray,
        log_prior_shift: np.ndarray,
        calib_lesions: np.ndarray | None = None,
    ) -> Calibrator:
        """Fits every part; rows labelled -1 are left out, of the referral threshold those that may be either too.

        Args:
            calib_logits: [n, C] diagnosis logits of calibration photos, order of `vocabulary.DIAGNOSIS_CODES`; -inf for
                a diagnosis that the model does not know. A row labelled with such a one is left out.
            calib_labels: [n] class numbers.
            train_style: [m, S] what the shift score reads, of training photos.
            held_out_style: [k, S] of photos of the same kind that the tower was not trained on.
            natural_prior: [C] classes' shares of the training photos; all of those known above 0.
            log_prior_shift: [C] log natural prior less log prior as drawn in training (0 where drawn naturally).
            calib_lesions: [n] lesion of each calibration photo; None: each photo is its own lesion.

        Raises ValueError where shapes disagree, a prior is 0, or calibration photos or malignant ones are missing.
        """
        known = np.flatnonzero(~np.isneginf(calib_logits).all(axis=0))
        prior = _checked_prior(natural_prior, known)
        labelled = np.isin(calib_labels, known)
        logits, codes = np.asarray(calib_logits)[labelled][:, known], np.asarray(calib_labels)[labelled]
        labels = np.searchsorted(known, codes)
        calibration = fit_calibration(logits, labels, np.asarray(log_prior_shift)[known])
        # About ten calibration parameters on about 800 photos leave no overfit worth a split of its own: sets and
        # threshold are fitted on the same photos.
        p = calibration.apply(logits)
        lesions = np.arange(len(labels)) if calib_lesions is None else np.asarray(calib_lesions)[labelled]
        sets = fit_conformal(p, labels, class_groups=pooled_classes(labels, lesions, p.shape[1]))
        sure = ~_MIXED[codes]
        return cls(
            calibration=Calibration(calibration.temperature, _padded("calibration.bias", calibration.bias, known)),
            conformal=Conformal(sets.coverage, _padded("conformal.quantiles", sets.quantiles, known)),
            referral=referral_threshold(p[sure][:, MALIGNANT[known]].sum(axis=1), MALIGNANT[codes[sure]]),
            shift=fit_shift(train_style, held_out_style),
            natural_prior=prior,
        )

    def apply(self, logits: np.ndarray, style: np.ndarray) -> CalibratedPrediction:
        """Computes what is shown for photos with `logits` [n, C] and `style` [n, S]."""
        p = self.calibration.apply(logits)
        balanced = p / np.asarray(self.natural_prior)
        malignancy = p[:, MALIGNANT].sum(axis=1)
        score = self.shift.score(style)
        return CalibratedPrediction(
            probabilities=p,
            balanced=balanced / balanced.sum(axis=1, keepdims=True),
            malignancy=malignancy,
            refer=self.referral.refer(malignancy),
            sets=self.conformal.sets(p, DIAGNOSIS_CODES),
            shift_score=score,
            in_domain=self.shift.in_domain(score),
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Named arrays that say everything, ready for safetensors; `from_arrays` is the exact inverse."""
        return {
            "calibration.temperature": np.array([self.calibration.temperature]),
            "calibration.bias": np.array(self.calibration.bias),
            "conformal.coverage": np.array([self.conformal.coverage]),
            "conformal.quantiles": np.array(self.conformal.quantiles),
            "referral.threshold": np.array([self.referral.threshold]),
            "referral.sensitivity": np.array([self.referral.sensitivity]),
            "referral.specificity": np.array([self.referral.specificity]),
            "shift.mean": np.ascontiguousarray(self.shift.mean),
            "shift.scale": np.ascontiguousarray(self.shift.scale),
            "shift.directions": np.ascontiguousarray(self.shift.directions),
            "shift.variances": np.ascontiguousarray(self.shift.variances),
            "shift.residual_variance": np.array([self.shift.residual_variance]),
            "shift.calibration_distances": np.ascontiguousarray(self.shift.calibration_distances),
            "natural_prior": np.array(self.natural_prior),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], diagnoses: Sequence[str] = DIAGNOSIS_CODES) -> Calibrator:
        """The same Calibrator again, also of arrays that hold places for `diagnoses` alone, those that the model knows.

        Raises ValueError for missing or unknown names, and for arrays of other lengths.
        """
        missing, unknown = sorted(CALIBRATION_ARRAYS - set(arrays)), sorted(set(arrays) - CALIBRATION_ARRAYS)
        if missing or unknown:
            raise ValueError(f"not the arrays of a fitted Calibrator: missing {missing}, unknown {unknown}")

        columns = np.array([DIAGNOSIS_CODES.index(code) for code in diagnoses])

        def numbers(name: str) -> tuple[float, ...]:
            return _padded(name, arrays[name], columns)

        def number(name: str) -> float:
            return float(arrays[name][0])

        return cls(
            calibration=Calibration(number("calibration.temperature"), numbers("calibration.bias")),
            conformal=Conformal(number("conformal.coverage"), numbers("conformal.quantiles")),
            referral=Referral(
                number("referral.threshold"), number("referral.sensitivity"), number("referral.specificity")
            ),
            shift=ShiftDetector(
                mean=arrays["shift.mean"],
                scale=arrays["shift.scale"],
                directions=arrays["shift.directions"],
                variances=arrays["shift.variances"],
                residual_variance=number("shift.residual_variance"),
                calibration_distances=arrays["shift.calibration_distances"],
            ),
            natural_prior=numbers("natural_prior"),
        )


def _padded(name: str, values: Sequence[float] | np.ndarray, known: np.ndarray) -> tuple[float, ...]:
    """One number per diagnosis, of `values` for all of them, for those `known` or, of quantiles, one for all.

    Raises ValueError for another length.
    """
    n, given = len(DIAGNOSIS_CODES), np.asarray(values, dtype=np.float64)
    if len(given) == n or (name == "conformal.quantiles" and len(given) == 1 and len(known) == n):
        return tuple(float(v) for v in given)
    if len(given) not in (len(known), 1) or (len(given) == 1 and name != "conformal.quantiles"):
        raise ValueError(
            f"{name} holds {len(given)} numbers, expected {len(known)}, one for each diagnosis that the model knows, "
            f"or {n}, one for each there is; use the config.yaml and the trust.safetensors of one checkpoint"
        )
    every = np.full(n, _UNKNOWN[name])
    every[known] = given
    return tuple(float(v) for v in every)


def _checked_prior(prior: np.ndarray, known: np.ndarray) -> tuple[float, ...]:
    """The shares of the diagnoses `known`, padded. Raises ValueError where one is missing or not above 0."""
    prior = np.asarray(prior, dtype=np.float64)
    if prior.shape != (len(DIAGNOSIS_CODES),) or not (prior[known] > 0).all():
        raise ValueError(
            f"natural_prior must hold {len(DIAGNOSIS_CODES)} shares, one per diagnosis, with shares above 0 for those "
            f"that are known; got {prior}"
        )
    return _padded("natural_prior", prior[known] / prior[known].sum(), known)
