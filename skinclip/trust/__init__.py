"""Trust: calibrated probabilities, prediction sets, shift detection and the referral threshold."""

from skinclip.trust.bundle import Trust, TrustOutput
from skinclip.trust.calibration import Calibration, fit_calibration
from skinclip.trust.conformal import Conformal, fit_conformal
from skinclip.trust.referral import Referral, referral_threshold
from skinclip.trust.shift import ShiftDetector, fit_shift

__all__ = [
    "Calibration",
    "Conformal",
    "Referral",
    "ShiftDetector",
    "Trust",
    "TrustOutput",
    "fit_calibration",
    "fit_conformal",
    "fit_shift",
    "referral_threshold",
]
