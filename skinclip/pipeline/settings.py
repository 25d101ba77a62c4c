"""An Assessment at another referral threshold or another prevalence: arithmetic on its figures, no model.

A specialist clinic sees more cancers than HAM10000 holds, a screening programme fewer. Changing the prevalence scales
the odds of malignancy by the ratio of prior odds, and leaves the proportions within the malignant and within the benign
diagnoses as they are (Saerens, Latinne and Decaestecker 2002). Prediction sets are fitted per diagnosis, so they keep
their promise at any prevalence and stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from skinclip.core.assessment import Assessment
from skinclip.core.vocabulary import MALIGNANT_CODES

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


def at_settings(assessment: Assessment, settings: Settings) -> Assessment:
    """The Assessment with probabilities and referral at the reader's settings; the record itself where there are none.

    Sensitivity and specificity are those of the model's own threshold, so they are None at another one: the caller
    looks them up (`reporting.limits`). An Assessment without a known prevalence keeps its probabilities.
    """
    own = assessment.malignancy
    if settings == Settings():
        return assessment
    prevalence = settings.prevalence if own.prevalence is not None else None
    before = own.prevalence or 0.5
    after = before if prevalence is None else prevalence
    p = shifted(own.probability, before, after)
    scale = {True: p / max(own.probability, 1e-12), False: (1 - p) / max(1 - own.probability, 1e-12)}
    scaled = (min(1.0, d.probability * scale[d.code in MALIGNANT_CODES]) for d in assessment.diagnosis)
    pairs = zip(assessment.diagnosis, scaled, strict=True)
    diagnosis = sorted((replace(d, probability=q) for d, q in pairs), key=lambda d: -d.probability)
    threshold = own.threshold if settings.threshold is None else settings.threshold
    malignancy = replace(
        own,
        probability=p,
        threshold=threshold,
        refer=p >= threshold,
        sensitivity=None,
        specificity=None,
        prevalence=own.prevalence if prevalence is None else prevalence,
    )
    return replace(assessment, diagnosis=tuple(diagnosis), malignancy=malignancy)


def shifted(p: float, before: float, after: float) -> float:
    """A probability of malignancy calibrated at prevalence `before`, at prevalence `after`."""
    if before == after:
        return p
    odds = p / max(1 - p, 1e-12) * (after / (1 - after)) / (before / (1 - before))
    return odds / (1 + odds)
