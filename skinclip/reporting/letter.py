"""A referral letter as plain text, to be edited and copied by the clinician. It names no patient."""

from __future__ import annotations

from skinclip import RESEARCH_USE_ONLY
from skinclip.core.assessment import Assessment, ClinicianRecord, Revision
from skinclip.core.formatting import listed, per_cent, percent
from skinclip.core.vocabulary import DIAGNOSIS_BY_CODE, STATE_BY_KEY, state_key
from skinclip.reporting import phrasing

WIDTH = 3  # diagnoses that a letter names


def referral_letter(assessment: Assessment) -> str:
    """The letter; of a photo on which the model abstained it says that, and gives no figure."""
    added = assessment.clinician or ClinicianRecord()
    parts = [
        f"Case: {added.case_id or '________'}    Date: {added.date or '________'}",
        "Dear colleague,",
        f"Thank you for seeing this patient ({_patient(assessment)}) with a skin lesion that I photographed"
        f"{' twice' if assessment.photos else ''}.",
    ]
    if assessment.abstained:
        reasons = " ".join(phrasing.cautions(assessment))
        parts.append(f"A computer program that I asked gave no answer on this photo. {reasons}")
    else:
        parts += [_mine(added), _findings(assessment), _model(assessment)]
        parts += [_revised(assessment, added.revision)] if added.revision else []
        parts.append(f"{phrasing.plain(phrasing.prediction_set(assessment))} {phrasing.unnamed(assessment)}")
    parts += [
        "My own findings and question: ________",
        "With kind regards,",
        f"[{RESEARCH_USE_ONLY}: SkinCLIP-VL, model {assessment.model.preset} {assessment.model.version}, "
        f"{phrasing.photos_named(assessment, 12)}. The figures are no diagnosis.]",
    ]
    return "\n\n".join(filter(None, parts))


def _patient(assessment: Assessment) -> str:
    c = assessment.context
    age = "" if c.age is None else f"{c.age:g} years"
    return ", ".join(filter(None, (age, c.sex, c.site))) or "age, sex and body site: ________"


def _mine(added: ClinicianRecord) -> str:
    if added.first_diagnosis is None:
        return ""
    return f"My own diagnosis, before I saw the program's answer: {DIAGNOSIS_BY_CODE[added.first_diagnosis].name}."


def _findings(assessment: Assessment) -> str:
    abcd = "; ".join(f"{name} {words}" for _, name, words in phrasing.abcd(assessment))
    if abcd:
        return f"ABCD on the clinical photo: {abcd}."
    if not assessment.findings:
        return "No dermoscopic finding was marked."
    total = phrasing.seven_points(assessment.findings)
    named = listed([phrasing.phrase(f) for f in assessment.findings])
    return (
        f"Findings marked in the photo: {named}. 7-point checklist: {total} ({phrasing.seven_points_meaning(total)})."
    )


def _model(assessment: Assessment) -> str:
    m = assessment.malignancy
    leading = listed([f"{d.name} {percent(d.probability)}" for d in assessment.diagnosis[:WIDTH]])
    among = "" if m.prevalence is None else f", among lesions of which {per_cent(m.prevalence)} are malignant"
    return (
        f"A research program puts the probability of malignancy at {percent(m.probability)} (referral threshold "
        f"{percent(m.threshold)}: {phrasing.verdict(assessment).lower()}{among}). It finds {leading}."
    )


def _revised(assessment: Assessment, revision: Revision) -> str:
    struck = [phrasing.phrase(f) for f in assessment.findings if f.ref in revision.struck_out]
    added = [STATE_BY_KEY[state_key(*one)].phrase for one in revision.added.items()]
    what = [
        *(["redrew the outline"] if revision.outline else []),
        *([f"do not see {listed(struck)}"] if struck else []),
        *([f"see {listed(added)}"] if added else []),
    ]
    return f"I {listed(what)}; with that, its probability of malignancy is {percent(revision.malignancy.probability)}."
