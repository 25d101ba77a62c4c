"""A reader's choices: another referral threshold, and how many of the lesions that they see are malignant.

A specialist clinic sees more cancers than HAM10000 holds, a screening programme fewer. The prevalence chosen keeps the
proportions within the malignant and within the benign diagnoses; the figures at it are the calibrator's own
(`Assessor.reweighted`), as `skinclip assess --prevalence` gives them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from skinclip.core.assessment import Assessment

LOWEST, HIGHEST = 0.01, 0.99  # of a threshold and of a prevalence


@dataclass(frozen=True)
class Settings:
    """A reader's choices; None is the model's own value.

    Attributes:
        threshold: probability of malignancy from which to refer.
        prevalence: share of malignant lesions among those that the reader sees.
    """

    threshold: float | None = None
    prevalence: float | None = None

    def __post_init__(self) -> None:
        for value in (self.threshold, self.prevalence):
            if value is not None and not LOWEST <= value <= HIGHEST:
                raise ValueError(f"{value} is no share between {LOWEST} and {HIGHEST}")


def at_threshold(assessment: Assessment, threshold: float | None) -> Assessment:
    """The Assessment with the referral at a reader's threshold; the record itself for None.

    Sensitivity and specificity are those of the model's own threshold, so they are None at another one: the caller
    looks them up (`reporting.limits`).
    """
    if threshold is None:
        return assessment
    refer = assessment.malignancy.probability >= threshold
    m = replace(assessment.malignancy, threshold=threshold, refer=refer, sensitivity=None, specificity=None)
    return replace(assessment, malignancy=m)


def shifted(p: float, before: float, after: float) -> float:
    """A probability of malignancy calibrated at prevalence `before`, at prevalence `after`."""
    if before == after:
        return p
    odds = p / max(1 - p, 1e-12) * (after / (1 - after)) / (before / (1 - before))
    return odds / (1 + odds)
