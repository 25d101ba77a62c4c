"""What an Assessment says in plain sentences: page and PDF tell the same in the same words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinclip.core.assessment import Assessment, Finding
from skinclip.core.vocabulary import DIAGNOSIS_BY_CODE, STATE_BY_KEY

if TYPE_CHECKING:
    from skinclip.explain.grounding import SecondOpinion

ABSTAINS = "No assessment: the model abstains"
INSTEAD_OF_AN_ANSWER = (
    "No diagnosis, probability or referral advice is shown for this photo. Take it again if you can; otherwise judge "
    "the lesion as you would without"
)
MALIGNANT_HERE = "Malignant here: melanoma, basal cell carcinoma, actinic keratosis or carcinoma in situ."


def cautions(assessment: Assessment) -> list[str]:
    """Why the answer, or its absence, is to be read with caution: quality of the photo and distance to known ones."""
    lines = [issue.message for issue in assessment.photo.quality.issues]
    if not assessment.shift.in_domain:
        share = "all" if assessment.shift.score > 0.9995 else f"{100 * assessment.shift.score:.1f}%"
        lines.append(
            "The photo does not look like those the model was calibrated on: it is more unusual than "
            f"{share} of them. What the model says about it cannot be relied on."
        )
    return lines


def prediction_set(assessment: Assessment) -> str:
    """What cannot be ruled out; what matters most in it stands between `**`."""
    names = [DIAGNOSIS_BY_CODE[c].name for c in assessment.prediction_set.codes]
    often = f"in {assessment.prediction_set.coverage:.0%} of such photos the true diagnosis is among those named"
    if not names:
        return f"No diagnosis stands out enough to be named ({often})."
    if len(names) == len(assessment.diagnosis):
        return f"**None of the seven can be ruled out** ({often})."
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
    return f"Cannot be ruled out: **{listed}** ({often})."


def malignancy(assessment: Assessment) -> str:
    """The figures that the referral advice rests on; what matters most in it stands between `**`."""
    m = assessment.malignancy
    relation = "at or above" if m.refer else "below"
    caveat = "" if m.refer else " Clinical suspicion comes first."
    return (
        f"Probability of malignancy **{m.probability:.1%}**, {relation} the referral threshold of "
        f"**{m.threshold:.1%}**.{caveat}"
    )


def verdict(assessment: Assessment) -> str:
    return "Refer" if assessment.malignancy.refer else "Do not refer"


def phrase(finding: Finding) -> str:
    return STATE_BY_KEY[finding.key].phrase


def depends(assessment: Assessment) -> str:
    """On which of the regions shown the answer depends, as measured; "" where none was weighed."""
    if all(finding.effect is None for finding in assessment.findings):
        return ""
    pivotal = assessment.pivotal
    if pivotal is None:
        return "Measured: no region shown carries the answer by itself; it rests on the lesion as a whole."
    return f"Measured: of the regions shown, the answer depends most on [{pivotal.ref}] (each blurred in turn)."


def second_opinion(opinion: SecondOpinion) -> str:
    """Whether Qwen2.5-VL itself sees a finding where its region is."""
    if opinion.iou is None:
        return "It gave no usable box."
    where = "It sees it there too" if opinion.agrees else "It points elsewhere"
    return f"{where} (overlap {opinion.iou:.2f})."
