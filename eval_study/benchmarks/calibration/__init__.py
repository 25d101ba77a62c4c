"""Calibration of the probabilities, coverage of the sets, and what the referral threshold achieves.

Everything is fitted on HAM10000's `calib` lesions: maps from logits to probabilities, prediction sets, the referral
threshold. `valid` chooses between them, `test` reports. Shipped are the parts stored with the weights; all others are
fitted here on the same photos, and scikit-learn does the arithmetic where it can.
"""

from eval_study.benchmarks.calibration.measure import run
from eval_study.benchmarks.calibration.report import section
from eval_study.benchmarks.calibration.settings import NAME

__all__ = ["NAME", "run", "section"]
