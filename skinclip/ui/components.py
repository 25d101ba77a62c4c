"""Pieces of the page as HTML, from an Assessment and arrays; the markup itself is in `skinclip/ui/templates`.

Pictures and the files to save are written into the page itself (data URLs): no file of a photo is ever served.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

from skinclip import RESEARCH_USE_ONLY
from skinclip.core.assessment import Assessment, Kind, Malignancy, ModelInfo, QualityIssue, Revision
from skinclip.core.formatting import count, listed, per_cent, percent
from skinclip.core.known import FIRST_CRITERIA
from skinclip.core.vocabulary import (
    CRITERIA,
    CRITERION_BY_CODE,
    DIAGNOSES,
    DIAGNOSIS_BY_CODE,
    DIAGNOSIS_CODES,
    STATE_BY_KEY,
    unnamed_tumours,
)
from skinclip.imaging.photo import MAX_FILE_MB, SUPPORTED, LesionImage, encode_jpeg
from skinclip.pipeline.settings import Settings
from skinclip.reporting import limits, phrasing
from skinclip.reporting.phrasing import phrase
from skinclip.ui import templating
from skinclip.ui.state import answer_key, describe_context, photos_mark
from skinclip.ui.templating import macro

if TYPE_CHECKING:
    from skinclip.explain.grounding import SecondOpinion

_page, _answer, _changes = (partial(macro, f"{name}.html") for name in ("page", "assessment", "changes"))

BANNER = _page("banner", RESEARCH_USE_ONLY)
HEADER = _page("header", MAX_FILE_MB * 1_000_000)
FORMATS = _page("formats", SUPPORTED, MAX_FILE_MB)
DROP_ZONE = _page("drop_zone")
OTHER_DROP = _page("other_drop")
OTHER_LOST = _page("other_lost")
PATIENT_HEADING = _page("patient_heading")
EXAMPLES_HEADING = _page("examples_heading")
EMPTY = _page("empty", count(len(DIAGNOSES)))
READY = _page("ready")
STOPPED = _page("stopped")
CHANGE_NOTE = _changes("change_note")
OPINION_NOTE = _changes("opinion_note")
FAILED = "The program failed; its log has the details. Try again, or another photo."


def error(message: str, heading: str = "This photo could not be assessed") -> Markup:
    """A refusal or failure in words, read out by screen readers."""
    return _page("error", heading, message)


def notice(heading: str, words: str) -> Markup:
    """A message in the place of an answer; `heading` may be empty."""
    return _page("notice", heading, words)


def computing(what: str) -> Markup:
    """Words and grey bars in the place of what is being computed."""
    return _page("computing", what)


def footer(info: ModelInfo, several: bool = False) -> Markup:
    """The page's last line.

    Args:
        several: there are several models; each answer names the one that gave it.
    """
    return _page("footer", RESEARCH_USE_ONLY, info, several)


# --- the photo ----------------------------------------------------------------------------------------------------


def preview(
    pixels: np.ndarray,
    image: LesionImage,
    issues: tuple[QualityIssue, ...] = (),
    label: str = "",
    edited: str = "",
) -> Markup:
    """The photo as it will be assessed, upright and without metadata, with its quality issues.

    Args:
        pixels: a scaled copy of `image`.
        edited: how it was turned and cropped, in words.
    """
    return _answer("preview", data_url(pixels), image.sha256, image.width, image.height, label, issues, edited)


def other_preview(
    pixels: np.ndarray, image: LesionImage, issues: tuple[QualityIssue, ...] = (), edited: str = ""
) -> Markup:
    """The other photo of the lesion, as `preview` shows the first one."""
    return _answer("other_preview", data_url(pixels), image.sha256, image.width, image.height, issues, edited)


def one_kind(kind: Kind) -> Markup:
    """The words on two photos of one kind."""
    return _page("one_kind", phrasing.one_kind(kind))


# --- the result ---------------------------------------------------------------------------------------------------


def running(step: str = "", ahead: str = "") -> Markup:
    """The page while an assessment runs or waits: its step, or its place in the queue, over grey bars."""
    return _answer("running", step, ahead)


def result(assessment: Assessment, settings: Settings | None = None, natural: float | None = None) -> Markup:
    """Warnings and the verdict. A model that abstains gives no figures at all.

    Args:
        settings: what the reader chose, already followed by `assessment`.
        natural: the model's own prevalence, where the reader chose another.
    """
    if assessment.abstained:
        return belonging(assessment, abstention(assessment) + made_for(assessment), phrasing.ABSTAINS)
    strip = referral(assessment, settings or Settings(), natural)
    return belonging(assessment, warnings(assessment) + strip + limits_dialog(assessment), _summary(assessment))


def side(assessment: Assessment) -> Markup:
    """The differential and the findings, beside the viewer; nothing after an abstention."""
    if assessment.abstained:
        return Markup("")
    return belonging(assessment, differential(assessment) + findings(assessment))


def made_for(assessment: Assessment, made_by: str | None = None) -> Markup:
    """The photos and the entries that an answer was made for, in a line."""
    context = describe_context(assessment.context)
    return _answer("made", phrasing.photos_named(assessment), context, made_by, assessment.model.weights_sha256)


def belonging(assessment: Assessment, html: Markup, announce: str = "") -> Markup:
    """Marks HTML with the photos and the answer it belongs to; beside others the page hides it.

    Args:
        announce: words for screen readers when it appears.
    """
    return _answer("belonging", photos_mark(assessment), answer_key(assessment), announce, html)


def _summary(assessment: Assessment) -> str:
    leading, share = assessment.diagnosis[0], percent(assessment.malignancy.probability)
    likely = percent(leading.probability)
    return f"Assessment ready. {phrasing.verdict(assessment)}: {share} malignant. {leading.name} {likely}."


def outdated(context: str, model: str = "") -> Markup:
    """The mark on an answer whose entries have changed since.

    Args:
        context: the entries it was made with, in words; "" where they are no longer kept.
        model: the name of the model that made it, where another is chosen now.
    """
    return _page("outdated", context, model)


def abstention(assessment: Assessment) -> Markup:
    """No answer: the reasons, and what to do instead."""
    return _answer("abstention", phrasing.ABSTAINS, phrasing.cautions(assessment), phrasing.INSTEAD_OF_AN_ANSWER)


def warnings(assessment: Assessment) -> Markup:
    """Quality and out-of-domain warnings; empty where there are none."""
    return _answer("warnings", phrasing.cautions(assessment))


def referral(assessment: Assessment, settings: Settings | None = None, natural: float | None = None) -> Markup:
    """The verdict strip: the figures it rests on, what the threshold costs, and what it leaves open."""
    m, advice, settings = assessment.malignancy, phrasing.advice(assessment), settings or Settings()
    costs = phrasing.costs(m.sensitivity, m.specificity)
    values = {
        "malignancy": m,
        "advice": advice,
        "look": {phrasing.REFER: "refer", phrasing.BELOW_THRESHOLD: "below"}.get(advice.verdict, "keep"),
        "mark": {phrasing.REFER: "▲", phrasing.BELOW_THRESHOLD: "◆"}.get(advice.verdict, "●"),
        "costs": costs,
        "leaves_open": advice.leaves_open[-1:] if costs else advice.leaves_open,  # the costs say what is missed
        "prevalence": _prevalence_words(m, settings),
        "threshold_value": _slider(m.threshold),
        "prevalence_value": None if m.prevalence is None else _slider(m.prevalence),
        "changed": settings != Settings(),
        "counted_on": _counted_on(assessment),
        "malignant": phrasing.malignant_here(assessment),
        "basis": phrasing.photos_alone(assessment),
    }
    return _answer("referral", values)


def _slider(share: float) -> int:
    return min(99, max(1, round(100 * share)))


def _prevalence_words(m: Malignancy, settings: Settings) -> str:
    if m.prevalence is None:
        return "that of the training photos"
    whose = "your choice" if settings.prevalence is not None else "that of HAM10000"
    return f"{per_cent(m.prevalence)} malignant, {whose}"


def _counted_on(assessment: Assessment) -> str:
    known = limits.limits_of(assessment.model.weights_sha256)
    if known is None:
        return "the calibration photos"
    return f"{known.curve.n_malignant} malignant and {known.curve.n_benign} benign calibration photos of HAM10000"


def limits_dialog(assessment: Assessment) -> Markup:
    """The panel "What it cannot tell": diagnoses, distance to known photos, errors by group."""
    known = limits.limits_of(assessment.model.weights_sha256)
    groups = {} if known is None else {kind: [_group(g) for g in g_] for kind, g_ in limits.grouped(known).items()}
    note = (
        "Errors of this model have not been measured by group."
        if known is None
        else f"Shares with 95 % intervals, at the model's own threshold, on photos that neither training nor "
        f"calibration saw; a dash where a share would rest on fewer than ten. Measured {known.date} by {known.command}."
    )
    names = [d.name for d in DIAGNOSES if d.code in {one.code for one in assessment.diagnosis}]
    codes = [d.code for d in assessment.diagnosis]
    unnamed = listed([*unnamed_tumours(codes), "any other tumour or any inflammatory disease"], "or")
    return _answer("limits", names, unnamed, phrasing.unusual(assessment), groups, note)


def _group(group: limits.Group) -> dict[str, Any]:
    def words(figure: tuple[float, float, float] | None) -> str:
        if figure is None:
            return "–"
        return f"{per_cent(figure[0])} ({100 * figure[1]:.0f}-{100 * figure[2]:.0f})"

    return {
        "name": group.name,
        "n": group.n,
        "n_malignant": group.n_malignant,
        "missed": words(group.missed),
        "needless": words(group.needless),
        "abstained": per_cent(group.abstained),
    }


def differential(assessment: Assessment, leading: int = 3) -> Markup:
    """The leading diagnoses as bars, the rest folded, malignant ones marked, and the prediction set in words."""
    rows = [
        {
            "name": d.name,
            "probability": d.probability,
            "malignant": DIAGNOSIS_BY_CODE[d.code].malignant,
            "in_set": d.code in assessment.prediction_set.codes,
        }
        for d in assessment.diagnosis
    ]
    together = sum(d.probability for d in assessment.diagnosis[leading:])
    return _answer("differential", rows[:leading], rows[leading:], together, prediction_set(assessment))


def prediction_set(assessment: Assessment) -> Markup:
    """The prediction set in words."""
    return templating.strong(phrasing.prediction_set(assessment))


def findings(assessment: Assessment) -> Markup:
    """The findings with their certainty, each to be struck out, those to add, and the 7-point checklist or ABCD."""
    pivotal = assessment.pivotal
    rows = [
        {
            "number": i + 1,
            "ref": f.ref,
            "phrase": phrase(f),
            "certainty": phrasing.certainty(f),
            "pivotal": pivotal is not None and pivotal.ref == f.ref,
        }
        for i, f in enumerate(assessment.findings)
    ]
    cited = {f.key for f in assessment.findings}
    states = [
        (c.code, c.name, [(s.key, s.phrase) for s in c.states if s.key not in cited])
        for c in CRITERIA
        if c.code in assessment.criteria and any(s.key not in cited for s in c.states)
    ]
    checklist = _checklist(assessment) if assessment.dermoscopic else None
    return _answer("findings", rows, states, checklist, phrasing.abcd(assessment))


def _checklist(assessment: Assessment) -> dict[str, Any]:
    total = phrasing.seven_points(assessment.findings)
    by_criterion = {f.criterion: f for f in assessment.findings}
    rows = []
    for criterion in (CRITERION_BY_CODE[code] for code in FIRST_CRITERIA if code in assessment.criteria):
        finding = by_criterion.get(criterion.code)
        likeliest, p = max(assessment.criteria[criterion.code].items(), key=lambda one: one[1])
        rows.append(
            {
                "name": criterion.name,
                "seen": likeliest if finding is None else finding.state,
                "certainty": percent(p if finding is None else finding.score),
                "points": 0 if finding is None else STATE_BY_KEY[finding.key].points,
            }
        )
    return {"total": total, "meaning": f", {phrasing.seven_points_meaning(total)}", "rows": rows}


def chip(index: int) -> Markup:
    """The number of finding `index` (from 0) in the colour of its region; choosing it shows the region alone."""
    return macro("pieces.html", "chip", index + 1)


def rationale(assessment: Assessment, writing: bool = False, made_by: str | None = None) -> Markup:
    """The text and what it depends on, references as chips in the colours of their regions.

    Args:
        writing: the text is not finished; a reference that has only begun is not shown yet.
        made_by: the name of the model, where there are several to choose from.
    """
    if assessment.abstained or (not assessment.rationale and not writing):
        return Markup("")
    text = re.sub(r"\[[^\]]*$", "", assessment.rationale) if writing else assessment.rationale
    depends = phrasing.depends(assessment)
    drawn = _answer("rationale", _with_chips(text, assessment), _with_chips(depends, assessment), writing)
    return belonging(assessment, drawn if writing else drawn + made_for(assessment, made_by))


def _with_chips(text: str, assessment: Assessment) -> Markup:
    index = {finding.ref: i for i, finding in enumerate(assessment.findings)}
    parts = re.split(r"\[(r\d+)\]", templating.spaced(text))  # text, reference, text, ...
    drawn = [
        (chip(index[part]) if part in index else Markup("[{}]").format(part)) if i % 2 else escape(part)
        for i, part in enumerate(parts)
    ]
    return Markup("").join(drawn)


def first_question(ready: bool) -> Markup:
    """The question that stands in the place of an answer until the clinician has given one."""
    return _answer("first_question", [(d.code, d.name) for d in DIAGNOSES], ready)


def agreement(assessment: Assessment, first: str, agrees: bool) -> Markup:
    """The clinician's first diagnosis beside the model's leading one."""
    html = _answer("agreement", DIAGNOSIS_BY_CODE[first].name, assessment.diagnosis[0].name, agrees)
    return belonging(assessment, html)


def handover(assessment: Assessment) -> Markup:
    """Buttons that make a PDF, a JSON file and a letter on demand."""
    return belonging(assessment, _answer("handover", assessment.photo.sha256[:8]))


def reply(kind: str, number: int, name: str, data: bytes) -> Markup:
    """A file that the page saves by itself."""
    media = {"pdf": "application/pdf", "json": "application/json"}[kind]
    return _answer("reply", kind, number, name, templating.data_url(data, media))


def letter_reply(number: int, text: str) -> Markup:
    """A letter for the page to open."""
    return _answer("letter_reply", number, text)


def changed(
    assessment: Assessment,
    probabilities: np.ndarray,
    malignancy: float,
    set_codes: Sequence[str],
    heading: str,
    picture: np.ndarray | None = None,
) -> Markup:
    """Every probability before and after a change, in the order of the Assessment, and the referral advice after it.

    Args:
        probabilities: [C] after, in the order of `vocabulary.DIAGNOSIS_CODES`.
        set_codes: the prediction set after.
        picture: the photo after the change, where it was the photo that changed.
    """
    after = dict(zip(DIAGNOSIS_CODES, probabilities.tolist(), strict=True))
    rows = _before_after(assessment, after)
    m = assessment.malignancy
    address = None if picture is None else data_url(picture)
    verdict = phrasing.verdict_of(malignancy >= m.threshold, set_codes)
    turn = verdict != phrasing.verdict(assessment)
    return _changes("changed", heading, address, rows, m.probability, malignancy, turn, verdict)


def revised(assessment: Assessment, revision: Revision) -> Markup:
    """The clinician's version beside the model's own, marked."""
    after = {d.code: d.probability for d in revision.diagnosis}
    measured = [
        phrase(f)
        for f in assessment.findings
        if f.ref in revision.struck_out and CRITERION_BY_CODE[f.criterion].measured
    ]
    m, verdict = revision.malignancy, phrasing.verdict_of(revision.malignancy.refer, revision.prediction_set.codes)
    html = _changes(
        "revised",
        listed(phrasing.corrections(assessment, revision)),
        _before_after(assessment, after),
        (assessment.malignancy.probability, m.probability),
        None if verdict == phrasing.verdict(assessment) else verdict,
        listed(measured),
    )
    return belonging(assessment, html)


def _before_after(assessment: Assessment, after: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "name": d.name,
            "before": d.probability,
            "after": after[d.code],
            "amount": _amount(d.probability, after[d.code]),
        }
        for d in assessment.diagnosis
    ]


def _amount(before: float, after: float) -> str:
    points = round(100 * (after - before))
    mark, unit = "▲" if points > 0 else "▼", "point" if abs(points) == 1 else "points"
    return f"{mark} {abs(points)} {unit}" if points else "= the same"


def second_opinion(assessment: Assessment, opinions: Sequence[SecondOpinion], drawn: np.ndarray | None) -> Markup:
    """Qwen2.5-VL's answer on each finding, and its boxes on the photo where it gave any."""
    if not opinions:
        return _page("note", "No finding here has a region of its own to ask about.")
    index = {finding.ref: i for i, finding in enumerate(assessment.findings)}
    lines = [
        {
            "chip": chip(index[o.reference]),
            "finding": phrase(assessment.findings[index[o.reference]]),
            "words": phrasing.second_opinion(o),
        }
        for o in opinions
    ]
    return _changes("second_opinion", None if drawn is None else data_url(drawn), lines)


def data_url(pixels: np.ndarray) -> Markup:
    """The picture itself as an address (JPEG)."""
    return templating.data_url(encode_jpeg(pixels, 92))
