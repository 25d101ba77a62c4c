"""Calibration: calibrated probabilities, prediction sets, shift detection and the referral threshold."""

from skinclip.calibration.calibrator import CalibratedPrediction, Calibrator
from skinclip.calibration.conformal import Conformal, fit_conformal
from skinclip.calibration.referral import Referral, referral_threshold
from skinclip.calibration.shift import ShiftDetector, fit_shift
from skinclip.calibration.temperature import Calibration, fit_calibration

__all__ = [
    "CalibratedPrediction",
    "Calibration",
    "Calibrator",
    "Conformal",
    "Referral",
    "ShiftDetector",
    "fit_calibration",
    "fit_conformal",
    "fit_shift",
    "referral_threshold",
]
