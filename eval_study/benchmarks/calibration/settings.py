"""Settings and types that the parts of the calibration benchmark share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from skinclip.core.vocabulary import DIAGNOSIS_CODES

NAME = "calibration"
DATA = "ham10000"
SPLITS = ("valid", "test")
BINS = 15
FOLDS = 5
NOISE_DRAWS = 500
SHIPPED = "shipped"
C = len(DIAGNOSIS_CODES)
Apply = Callable[[np.ndarray], np.ndarray]  # logits [n, C] -> probabilities [n, C]
