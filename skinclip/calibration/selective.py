"""Abstention: the photos that a model does not answer, so that those it answers are diagnosed well.

Close-ups are diagnosed less well than dermoscopy, and looking like the training photos does not tell which of them:
the balanced probability of the leading diagnosis does, the photo's own evidence for it with the prevalence taken out.
(Area under the risk-coverage curve on MILK10k's close-ups, valid: 0.457, where the probability itself has 0.601 and
the shift score 0.754; on PAD-UFES, on which nothing was chosen, 0.438, 0.470 and 0.693.) So a kind of photo has a least
such confidence, chosen so that those above it are diagnosed as well as dermoscopy photos are (selective
classification; Geifman and El-Yaniv 2017).
"""

from __future__ import annotations

import numpy as np

MIN_ANSWERED = 20  # calibration photos that must stay in for their accuracy to mean something


def leading_confidence(probabilities: np.ndarray, balanced: np.ndarray) -> np.ndarray:
    """[n] balanced probability of each photo's most probable diagnosis."""
    confidence: np.ndarray = balanced[np.arange(len(balanced)), probabilities.argmax(axis=1)]
    return confidence


def least_confidence(confidence: np.ndarray, correct: np.ndarray, weights: np.ndarray, accuracy: float) -> float:
    """The lowest confidence above which `accuracy` is reached among the photos; 0 where all of them reach it.

    Where it is reached nowhere, the confidence above which the accuracy is highest. At least `MIN_ANSWERED` photos stay
    in; of fewer than that all do, since nothing can be said of them.

    Args:
        confidence: [n]; correct: [n] bool, of the leading diagnosis; weights: [n].
    """
    if len(confidence) < MIN_ANSWERED:
        return 0.0
    order = np.argsort(-confidence, kind="stable")
    reached = np.cumsum((weights * correct)[order]) / np.cumsum(weights[order])
    last_of_run = np.append(np.diff(confidence[order]) != 0, True)  # equal confidences stay in together
    allowed = last_of_run & (np.arange(len(order)) >= MIN_ANSWERED - 1)
    enough = np.flatnonzero(allowed & (reached >= accuracy - 1e-12))
    cut = int(enough[-1]) if len(enough) else int(np.where(allowed, reached, -1.0).argmax())
    return 0.0 if cut == len(order) - 1 else float(confidence[order][cut])
