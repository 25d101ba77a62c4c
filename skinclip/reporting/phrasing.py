"""An Assessment in plain sentences: page, PDF and command line say the same in the same words.

Verdict, threshold, prediction set and what they leave open are worded from one source, `advice`, so that no sentence
contradicts another. The rationale follows the same rule: it says that the runner-up remains possible only where the
prediction set holds it (`Assessment.differential`). Words between `**` matter most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skinclip.core.assessment import Assessment, Finding, Kind, PhotoInfo, PredictionSet, Revision
from skinclip.core.formatting import count, listed, per_cent, percent
from skinclip.core.vocabulary import (
    CRITERION_BY_CODE,
    DIAGNOSIS_BY_CODE,
    DIAGNOSIS_CODES,
    MALIGNANT_CODES,
    STATE_BY_KEY,
    state_key,
    unnamed_tumours,
)

if TYPE_CHECKING:
    from skinclip.explain.grounding import SecondOpinion

ABSTAINS = "No assessment: the model abstains"
INSTEAD_OF_AN_ANSWER = (
    "No diagnosis, probability or referral advice is shown for this photo. Take it again if you can; otherwise judge "
    "the lesion as you would without"
)
KIND_NAMES: dict[Kind, str] = {
    "dermoscopy": "dermoscopy",
    "clinical": "clinical close-up",
    "neither": "neither dermoscopy nor a close-up",
}
REFER, DO_NOT_REFER, BELOW_THRESHOLD = "Refer", "Referral not advised", "Below the referral threshold"


@dataclass(frozen=True)
class Advice:
    """Referral advice in words.

    Attributes:
        verdict: a heading of a few words.
        basis: the figures that the verdict rests on.
        prediction_set: the diagnoses that cannot be ruled out.
        reconciliation: why verdict and set point in different directions; "" where they do not.
        leaves_open: what "Referral not advised" does not answer, to be shown as large as the verdict's own sentence;
            empty for "Refer".
    """

    verdict: str
    basis: str
    prediction_set: str
    reconciliation: str
    leaves_open: tuple[str, ...]


def advice(assessment: Assessment) -> Advice:
    """The referral advice of an Assessment; of one that abstained there is none to show."""
    return Advice(
        verdict(assessment),
        malignancy(assessment),
        prediction_set(assessment),
        reconciliation(assessment),
        leaves_open(assessment),
    )


def verdict(assessment: Assessment) -> str:
    """The verdict in a few words: "Referral not advised" only where no malignant diagnosis is left in the set."""
    return verdict_of(assessment.malignancy.refer, assessment.prediction_set.codes)


def verdict_of(refer: bool, set_codes: Sequence[str]) -> str:
    """`verdict` of a referral decision and the codes of a prediction set."""
    if refer:
        return REFER
    return BELOW_THRESHOLD if MALIGNANT_CODES & set(set_codes) else DO_NOT_REFER


def malignancy(assessment: Assessment) -> str:
    """The figures that the verdict rests on."""
    m = assessment.malignancy
    relation = "at or above" if m.refer else "below"
    caveat = "" if m.refer else " Clinical suspicion comes first."
    return (
        f"Probability of malignancy **{per_cent(m.probability, 1)}**, {relation} the referral threshold of "
        f"**{per_cent(m.threshold, 1)}**.{caveat}"
    )


def prediction_set(assessment: Assessment) -> str:
    """The diagnoses that cannot be ruled out, or the only one that remains."""
    chosen = assessment.prediction_set
    names = _names(chosen.codes)
    often = f"in {_coverage(chosen)} of such photos the true diagnosis is among those named"
    if not names:
        return f"No diagnosis stands out enough to be named ({often})."
    if len(names) == len(assessment.diagnosis):
        return f"**None of the {count(len(names))} can be ruled out** ({often})."
    if len(names) == 1:
        return f"Only **{names[0]}** remains in the {_coverage(chosen)} set ({often})."
    return f"Cannot be ruled out: **{listed(names, 'or')}** ({often})."


def reconciliation(assessment: Assessment) -> str:
    """The sentence that explains a set and a verdict which point in different directions; "" where they agree."""
    refer, codes = assessment.malignancy.refer, assessment.prediction_set.codes
    malignant = [code for code in codes if code in MALIGNANT_CODES]
    if refer and codes and not malignant:
        return (
            "The set names no malignant diagnosis, yet the malignant ones together reach the threshold, which is set "
            "low so that few are missed."
        )
    if not refer and malignant:
        several = "them" if len(malignant) > 1 else "it"
        return (
            f"**{listed(_names(malignant), 'or').capitalize()} cannot be ruled out**, although the probability of "
            f"malignancy is below the threshold: the clinical picture decides on {several}."
        )
    return ""


def leaves_open(assessment: Assessment) -> tuple[str, ...]:
    """The sentences on what a photo below the threshold leaves open; empty for one that is referred."""
    m = assessment.malignancy
    if m.refer:
        return ()
    sentences = []
    if m.sensitivity is not None:
        share = per_cent(1 - m.sensitivity)
        sentences.append(f"At this threshold {share} of malignant calibration photos were missed.")
    sentences.append(unnamed(assessment))
    return tuple(sentences)


def unnamed(assessment: Assessment) -> str:
    """The tumours that the model cannot name."""
    tumours = listed([*unnamed_tumours(_codes(assessment)), "any other tumour outside the list"], "or")
    return f"The model knows {count(len(assessment.diagnosis))} diagnoses and cannot name {tumours}."


def malignant_here(assessment: Assessment) -> str:
    """The diagnoses that count into the probability of malignancy, and one that does not although it may be either."""
    known = [DIAGNOSIS_BY_CODE[code] for code in _codes(assessment)]
    names = [listed([d.name, *d.also], "or") for d in known if d.malignant]
    mixed = [f' "{d.name.capitalize()}" may be either and is counted as not malignant.' for d in known if d.mixed]
    return f"Malignant here: {'; '.join(names)}.{''.join(mixed)}"


def _codes(assessment: Assessment) -> list[str]:
    """The diagnoses that the model knows, in the vocabulary's order."""
    answered = {d.code for d in assessment.diagnosis}
    return [code for code in DIAGNOSIS_CODES if code in answered]


def cautions(assessment: Assessment) -> list[str]:
    """Reasons to read the answer, or its absence, with caution: quality of the photo and distance to known ones."""
    lines = [issue.message for issue in assessment.photo.quality.issues]
    for other in assessment.photos[1:]:
        lines += [f"The other photo: {issue.message[0].lower()}{issue.message[1:]}" for issue in other.quality.issues]
    if assessment.of_one_kind is not None:
        lines.append(one_kind(assessment.of_one_kind))
    if assessment.photo.kind_given == "clinical" and assessment.photo.kind_recognised is None:
        lines.append(
            "The photo is taken for a clinical close-up, as given. This model does not tell close-ups from dermoscopy: "
            "its figures are those for dermoscopy, and how well they hold for a close-up is not known."
        )
    neither = f"is recognised as {KIND_NAMES['neither']}."
    lines += [f"The other photo {neither}" for other in assessment.photos[1:] if other.kind == "neither"]
    if not assessment.shift.in_domain:
        share = "all" if assessment.shift.score > 0.9995 else per_cent(assessment.shift.score, 1)
        lines += [f"The photo {neither}"] if assessment.photo.kind == "neither" else []
        lines.append(
            "The photo does not look like those the model was calibrated on: it is more unusual than "
            f"{share} of them. What the model says about it cannot be relied on."
        )
    elif assessment.abstained and assessment.photo.quality.usable:
        lines.append(
            "The photo's own evidence for the leading diagnosis is too weak: photos of this kind with as little are "
            "diagnosed less well than dermoscopy photos are."
        )
    return [*lines, *skin_tone(assessment)]


def kind_of(photo: PhotoInfo) -> str:
    """The kind of a photo in words, and that a person said so where the model did not; "" where it is not known."""
    if photo.kind is None:
        return ""
    said = photo.kind_given is not None and photo.kind_given != photo.kind_recognised
    return f"{KIND_NAMES[photo.kind]}{' as given' if said else ''}"


def one_kind(kind: Kind) -> str:
    """The words on two photos that were taken for the same kind."""
    several = {"clinical": "clinical close-ups"}.get(kind, KIND_NAMES[kind])
    return (
        f"Both photos are taken for {several}. Two photos are meant to be one of dermoscopy and one clinical close-up: "
        "correct the kind where it is wrong, or take one photo out."
    )


def photos_named(assessment: Assessment, digits: int = 8) -> str:
    """The photos of an Assessment by the first `digits` of their hash, "photos 1a2b3c4d (dermoscopy) and ..."."""
    photos = assessment.photos or (assessment.photo,)
    names = [
        f"{photo.sha256[:digits]} ({kind})" if (kind := kind_of(photo)) else photo.sha256[:digits] for photo in photos
    ]
    return f"photo{'s' if len(names) > 1 else ''} {listed(names)}"


def photos_alone(assessment: Assessment) -> str:
    """The photos that a verdict rests on: "this photo alone", or "these two photos alone: dermoscopy and ..."."""
    if len(assessment.photos) < 2:
        return "this photo alone"
    kinds = listed([kind for kind in map(kind_of, assessment.photos) if kind])
    return f"these two photos alone{f': {kinds}' if kinds else ''}"


def beside(assessment: Assessment) -> str:
    """The caption of the photo that was read beside the first one; "" where there is none."""
    if len(assessment.photos) < 2:
        return ""
    kind = kind_of(assessment.photos[1])
    return f"Other photo{f', {kind}' if kind else ''}: read together with the one above; nothing is drawn in it."


def abcd(assessment: Assessment) -> list[tuple[str, str, str]]:
    """(letter, name, words) of the ABCD of a clinical photo; empty for dermoscopy, which has a checklist of its own."""
    if assessment.dermoscopic:
        return []
    seen = {f.criterion: f"{f.state}, {certainty(f)}" for f in assessment.findings}
    rows = [(c[0].upper(), c, seen.get(c, "not clear either way")) for c in ("asymmetry", "border", "colour")]
    return [*rows, ("D", "diameter", "not measured")]


def skin_tone(assessment: Assessment) -> list[str]:
    """The caution for skin that hardly any photo behind the model shows; empty where there is none to give."""
    tone = assessment.skin_tone
    if tone is None or tone.ita is None or tone.in_range is not False:
        return []
    return [
        f"The skin around the lesion (ITA {tone.ita:.0f} degrees on this photo) looks unlike that on nearly all photos "
        "that the model was trained and calibrated on: how well it does on such skin is not known."
    ]


def phrase(finding: Finding) -> str:
    """The clinical phrase for a finding, "irregular streaks"."""
    return STATE_BY_KEY[finding.key].phrase


def costs(sensitivity: float | None, specificity: float | None) -> str:
    """The price of the referral threshold in words; "" where it was not measured."""
    if sensitivity is None:
        return ""
    referred = round(100 * sensitivity)
    words = f"At this threshold, of 100 malignant lesions **{referred} are referred and {100 - referred} missed**"
    if specificity is None:
        return f"{words}."
    return f"{words}; of 100 benign ones, **{round(100 * (1 - specificity))} are referred too**."


_CERTAINTY = ((0.9, "very likely"), (0.75, "likely"), (0.6, "fairly likely"), (0.0, "uncertain"))


def certainty(finding: Finding) -> str:
    """The certainty of a finding in words and figures, "likely, 0.78"; of one measured on the outline, "measured"."""
    if CRITERION_BY_CODE[finding.criterion].measured:
        return f"measured, {finding.score:.2f}"
    return f"{next(words for least, words in _CERTAINTY if finding.score >= least)}, {finding.score:.2f}"


def seven_points(findings: Sequence[Finding]) -> int:
    """The total of the 7-point checklist (Argenziano et al. 1998) for the findings that are cited."""
    return sum(STATE_BY_KEY[f.key].points for f in findings)


def seven_points_meaning(total: int) -> str:
    """The rule that goes with a total: from three points on, melanoma is suspected."""
    return "three points or more: melanoma suspected" if total >= 3 else "fewer than three points"


def unusual(assessment: Assessment) -> str:
    """Comparison of the photo with those that the model was calibrated on."""
    share = assessment.shift.score
    tone = assessment.skin_tone
    skin = "" if tone is None or tone.in_range is not False else " Its skin tone is outside the range it was fitted on."
    if not assessment.shift.in_domain:
        return f"This photo does not look like those that the model was calibrated on.{skin}"
    known = "looks like those it knows" if share < 0.75 else "is less usual than most it knows"
    return f"This photo {known}: {per_cent(share)} of the calibration photos look more usual.{skin}"


def depends(assessment: Assessment) -> str:
    """The sentence on whether the answer depends on one region, as measured; "" where it was not measured."""
    d = assessment.dependence
    if d is None:
        return ""
    leading = _names([assessment.diagnosis[0].code])[0]
    if assessment.pivotal is None:
        return (
            "Measured: the answer is not shown to depend on any one region. With the structures of "
            f"[{d.ref}] blurred, the probability of {leading} goes from {percent(d.before)} to {percent(d.after)}; "
            f"with random places of the lesion as large, to {percent(d.after_random)} on average. Chance may explain "
            "the difference."
        )
    return (
        f"Measured: the answer depends most on [{d.ref}]. With its structures blurred, the probability of {leading} "
        f"falls from {percent(d.before)} to {percent(d.after)}; with random places of the lesion as large, to "
        f"{percent(d.after_random)} on average."
    )


def second_opinion(opinion: SecondOpinion) -> str:
    """Agreement of Qwen2.5-VL itself with where a finding was located."""
    if opinion.iou is None:
        return "It gave no usable box."
    where = "It sees it there too" if opinion.agrees else "It points elsewhere"
    return f"{where} (overlap {opinion.iou:.2f})."


def _names(codes: Sequence[str]) -> list[str]:
    return [DIAGNOSIS_BY_CODE[code].in_text for code in codes]


def _coverage(chosen: PredictionSet) -> str:
    return per_cent(chosen.coverage)


def clinicians_part(assessment: Assessment) -> list[str]:
    """The clinician's part, a sentence each: their diagnosis, their corrections and the answer to these."""
    added = assessment.clinician
    lines: list[str] = []
    if added is None:
        return lines
    if added.photo_edit:
        lines.append(f"The photo was {added.photo_edit} before it was assessed.")
    if added.first_diagnosis is not None:
        agrees = "the model's leading diagnosis is the same" if added.agrees else "the model's leading one differs"
        name = DIAGNOSIS_BY_CODE[added.first_diagnosis].name
        lines.append(f"Given before the answer was shown: {name}; {agrees}.")
    if added.revision is not None:
        lines.append(
            f"Corrected: {listed(corrections(assessment, added.revision))}. With that, the probability of malignancy "
            f"is {percent(added.revision.malignancy.probability)}; the figures below are the model's own."
        )
    return lines


def corrections(assessment: Assessment, revision: Revision) -> list[str]:
    """The corrections of a revision, a few words each."""
    return [
        *(["outline redrawn"] if revision.outline else []),
        *(f"{phrase(f)} struck out" for f in assessment.findings if f.ref in revision.struck_out),
        *(f"{STATE_BY_KEY[state_key(*one)].phrase} added" for one in revision.added.items()),
    ]


def plain(text: str) -> str:
    """A sentence without the marks of emphasis."""
    return text.replace("**", "")
