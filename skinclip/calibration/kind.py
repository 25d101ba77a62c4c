"""The calibration of one kind of photo: dermoscopy, or clinical close-ups, which the model knows less well.

A close-up needs a higher temperature, wider sets, a lower referral threshold and a shift score of its own; in one
calibration for all, dermoscopy would pay for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from skinclip.calibration.conformal import NOT_KNOWN, Conformal, fit_conformal, pooled_classes
from skinclip.calibration.outputs import MALIGNANT, LabelledOutputs, balanced_weights
from skinclip.calibration.referral import Referral, SourceSensitivity, guaranteed_threshold
from skinclip.calibration.shift import ShiftDetector
from skinclip.calibration.temperature import Calibration, fit_calibration
from skinclip.core.vocabulary import DIAGNOSIS_CODES

REQUIRED_ARRAYS = (
    *("calibration.temperature", "calibration.bias", "conformal.coverage", "conformal.quantiles"),
    *("referral.threshold", "referral.sensitivity", "referral.specificity"),
    *("shift.mean", "shift.scale", "shift.directions", "shift.variances", "shift.residual_variance"),
    "shift.calibration_distances",
)
MIN_ITA = 100  # photos whose skin was measured, from which a range is given
_GROUPS, _GROUP_FIGURES = "referral.groups", "referral.by_group"


@dataclass(frozen=True)
class KindCalibration:
    """The fitted parts.

    Attributes:
        min_confidence: balanced probability of the leading diagnosis below which the model abstains.
        ita_range: individual typology angles (degrees) between which the skin on nearly all photos lies; None where it
            was not measured.
    """

    calibration: Calibration
    conformal: Conformal
    referral: Referral
    shift: ShiftDetector
    min_confidence: float = 0.0
    ita_range: tuple[float, float] | None = None

    def at(self, log_change: np.ndarray, photos: LabelledOutputs, known: np.ndarray) -> KindCalibration:
        """The same at another prevalence: probabilities moved by `log_change` [C], sets and threshold fitted anew.

        Args:
            photos: calibration photos of this kind; known: numbers of the diagnoses that the model knows.
        """
        bias = tuple(float(b) for b in np.asarray(self.calibration.bias) + log_change)
        moved = replace(self.calibration, bias=bias)
        conformal, referral = sets_and_threshold(moved, photos, known)
        return replace(self, calibration=moved, conformal=conformal, referral=referral)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Named arrays that say everything; `from_arrays` is the exact inverse."""
        groups = self.referral.by_group
        figures = [[g.n, g.sensitivity, g.bound, g.specificity] for g in groups]
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
            "abstention.min_confidence": np.array([self.min_confidence]),
            **({} if self.ita_range is None else {"skin_tone.ita_range": np.array(self.ita_range)}),
            **({_GROUPS: text_array([g.group for g in groups]), _GROUP_FIGURES: np.array(figures)} if groups else {}),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], known: np.ndarray) -> KindCalibration:
        """The same again, also of arrays that hold places for the `known` diagnoses alone.

        Raises ValueError for missing arrays and those of other lengths.
        """
        missing = sorted(set(REQUIRED_ARRAYS) - set(arrays))
        if missing:
            raise ValueError(f"not the arrays of a fitted calibration: missing {missing}")

        def number(name: str, default: float = 0.0) -> float:
            return float(arrays[name][0]) if name in arrays else default

        names, figures = texts(arrays.get(_GROUPS)), arrays.get(_GROUP_FIGURES, np.zeros((0, 4)))
        groups = tuple(
            SourceSensitivity(name, int(n), *(float(v) for v in rest))
            for name, (n, *rest) in zip(names, figures, strict=True)
        )
        return cls(
            calibration=Calibration(
                number("calibration.temperature"), padded("calibration.bias", arrays["calibration.bias"], known)
            ),
            conformal=Conformal(
                number("conformal.coverage"), padded("conformal.quantiles", arrays["conformal.quantiles"], known)
            ),
            referral=Referral(
                number("referral.threshold"), number("referral.sensitivity"), number("referral.specificity"), groups
            ),
            shift=ShiftDetector(
                mean=arrays["shift.mean"],
                scale=arrays["shift.scale"],
                directions=arrays["shift.directions"],
                variances=arrays["shift.variances"],
                residual_variance=number("shift.residual_variance"),
                calibration_distances=arrays["shift.calibration_distances"],
            ),
            min_confidence=number("abstention.min_confidence"),
            ita_range=None if (ita := arrays.get("skin_tone.ita_range")) is None else (float(ita[0]), float(ita[1])),
        )


def fit_probabilities(
    photos: LabelledOutputs, log_prior_shift: np.ndarray, offsets: np.ndarray, known: np.ndarray
) -> Calibration:
    """Temperature and bias from photos of one kind and several sources, each source weighing the same.

    Args:
        log_prior_shift: [C] log natural prior less log prior as drawn in training.
        offsets: [n, C] log prior of a photo's source less log natural prior.
        known: numbers of the diagnoses that the model knows; the others get a bias of -inf.
    """
    weights = balanced_weights(photos.sources, photos.kinds)
    labels = labels_among(photos.labels, known)
    fitted = fit_calibration(photos.logits[:, known], labels, log_prior_shift[known], weights, offsets[:, known])
    return Calibration(fitted.temperature, padded("calibration.bias", fitted.bias, known))


def sets_and_threshold(
    calibration: Calibration, photos: LabelledOutputs, known: np.ndarray
) -> tuple[Conformal, Referral]:
    """Prediction sets and referral threshold from the photos that `calibration` was fitted on.

    About ten calibration parameters on over a thousand photos leave no overfit worth a split of its own.
    """
    p = calibration.apply(photos.logits)
    labels, lesions = labels_among(photos.labels, known), np.char.add(photos.groups, photos.lesions.astype(str))
    groups = pooled_classes(labels, lesions, len(known))
    sets = fit_conformal(
        p[:, known], labels, class_groups=groups, weights=balanced_weights(photos.sources, photos.kinds)
    )
    threshold = guaranteed_threshold(p[:, MALIGNANT].sum(axis=1), photos.malignant, photos.groups, photos.lesions)
    return Conformal(sets.coverage, padded("conformal.quantiles", sets.quantiles, known)), threshold


def usual_ita(ita: np.ndarray) -> tuple[float, float] | None:
    """The range that 98 % of the angles [n] lie in, NaN left out; None where there are too few to say."""
    known = ita[np.isfinite(ita)]
    if len(known) < MIN_ITA:
        return None
    low, high = np.percentile(known, (1, 99))
    return float(low), float(high)


def labels_among(labels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[n] labels counted among the `known` diagnoses, -1 for any other."""
    place = np.full(len(DIAGNOSIS_CODES) + 1, -1)
    place[known] = np.arange(len(known))
    return place[labels]


NO_SHARE = 1e-12  # the prior of a diagnosis that is not known; above 0, so that probabilities can be divided by it
_FILL = {"calibration.bias": -np.inf, "conformal.quantiles": NOT_KNOWN, "natural_prior": NO_SHARE}


def padded(name: str, values: np.ndarray | tuple[float, ...], known: np.ndarray) -> tuple[float, ...]:
    """One number per diagnosis, of `values` for all of them, for those `known` or, of quantiles, one for all.

    Raises ValueError for another length.
    """
    n, given = len(DIAGNOSIS_CODES), np.asarray(values, dtype=np.float64)
    one_for_all = name == "conformal.quantiles" and len(given) == 1
    if len(given) == n or (one_for_all and len(known) == n):
        return tuple(float(v) for v in given)
    if len(given) != len(known) and not one_for_all:
        raise ValueError(
            f"{name} holds {len(given)} numbers, expected {len(known)}, one for each diagnosis that the model knows, "
            f"or {n}, one for each there is; use the config.yaml and the trust.safetensors of one checkpoint"
        )
    every = np.full(n, _FILL[name])
    every[known] = given
    return tuple(float(v) for v in every)


def text_array(words: list[str]) -> np.ndarray:
    """Words as an array of bytes, for a file that holds numbers only; `texts` is the inverse."""
    return np.frombuffer("\n".join(words).encode(), dtype=np.uint8)


def texts(array: np.ndarray | None) -> list[str]:
    """The words in an array of `text_array`; none of None."""
    return [] if array is None or not len(array) else array.tobytes().decode().split("\n")
