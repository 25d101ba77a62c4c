"""Pieces of the page as HTML, from an Assessment and arrays; the markup itself is in `skinclip/ui/templates`.

Pictures and the files to save are written into the page itself (data URLs): no file of a photo is ever served.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup, escape

from skinclip import RESEARCH_USE_ONLY
from skinclip.core.assessment import Assessment, Finding, ModelInfo, QualityIssue
from skinclip.core.formatting import count, percent
from skinclip.core.vocabulary import DIAGNOSES, DIAGNOSIS_BY_CODE, DIAGNOSIS_CODES, MAX_FINDINGS
from skinclip.imaging.overlay import colour_of, hex_colour, ink_of
from skinclip.imaging.photo import MAX_FILE_MB, SUPPORTED, LesionImage, encode_jpeg
from skinclip.reporting import phrasing
from skinclip.reporting.assessment_pdf import assessment_pdf
from skinclip.reporting.phrasing import phrase
from skinclip.ui import templating
from skinclip.ui.state import answer_key, describe_context
from skinclip.ui.templating import macro

if TYPE_CHECKING:
    from skinclip.explain.grounding import SecondOpinion

_page, _answer, _changes = (partial(macro, f"{name}.html") for name in ("page", "assessment", "changes"))

BANNER = _page("banner", RESEARCH_USE_ONLY)
HEADER = _page("header", MAX_FILE_MB * 1_000_000)
FORMATS = _page("formats", SUPPORTED, MAX_FILE_MB)
file_field = partial(_page, "file_field")  # (words, small): the field that takes a photo
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


def footer(info: ModelInfo, several: bool = False) -> Markup:
    """The page's last line.

    Args:
        several: there are several models; each answer names the one that gave it.
    """
    return _page("footer", RESEARCH_USE_ONLY, info, several)


# --- the photo ----------------------------------------------------------------------------------------------------


def preview(pixels: np.ndarray, image: LesionImage, issues: tuple[QualityIssue, ...] = (), label: str = "") -> Markup:
    """The photo as it will be assessed, upright and without metadata, with its quality issues.

    Args:
        pixels: a scaled copy of `image`.
    """
    return _answer("preview", data_url(pixels), image.sha256, image.width, image.height, label, issues)


# --- the result ---------------------------------------------------------------------------------------------------


def result(assessment: Assessment, made_by: str | None = None, writing: bool = False) -> Markup:
    """Warnings, then referral and differential, then the rationale. A model that abstains gives no figures at all.

    Args:
        made_by: the name of the model, where there are several to choose from.
        writing: the rationale is not finished.
    """
    made = made_for(assessment, made_by)
    if assessment.abstained:
        return belonging(assessment, abstention(assessment) + made, phrasing.ABSTAINS)
    parts = {
        "warnings": warnings(assessment),
        "differential": differential(assessment),
        "referral": referral(assessment),
        "rationale": rationale(assessment, writing),
        "made": made,
    }
    return belonging(assessment, _answer("result", parts), "" if writing else _summary(assessment))


def made_for(assessment: Assessment, made_by: str | None = None) -> Markup:
    """The photo and the entries that an answer was made for, in a line."""
    context = describe_context(assessment.context)
    return _answer("made", assessment.photo.sha256, context, made_by, assessment.model.weights_sha256)


def belonging(assessment: Assessment, html: Markup, announce: str = "") -> Markup:
    """Marks HTML with the photo and the answer it belongs to; beside another photo the page hides it.

    Args:
        announce: words for screen readers when it appears.
    """
    return _answer("belonging", assessment.photo.sha256, answer_key(assessment), announce, html)


def _summary(assessment: Assessment) -> str:
    leading = assessment.diagnosis[0]
    return f"Assessment ready. {phrasing.verdict(assessment)}. {leading.name} {percent(leading.probability)}."


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


def referral(assessment: Assessment) -> Markup:
    """The verdict, the figures it rests on, and in the same size what it leaves open."""
    advice = phrasing.advice(assessment)
    look = {phrasing.REFER: "sk-refer", phrasing.BELOW_THRESHOLD: "sk-below"}.get(advice.verdict, "sk-keep")
    return _answer("referral", assessment.malignancy, advice, phrasing.malignant_here(assessment), look)


def differential(assessment: Assessment) -> Markup:
    """The probabilities of all diagnoses as bars, malignant ones marked, and the prediction set in words."""
    rows = [
        {
            "name": d.name,
            "probability": d.probability,
            "malignant": DIAGNOSIS_BY_CODE[d.code].malignant,
            "in_set": d.code in assessment.prediction_set.codes,
        }
        for d in assessment.diagnosis
    ]
    return _answer("differential", rows, prediction_set(assessment))


def prediction_set(assessment: Assessment) -> Markup:
    """The prediction set in words."""
    return templating.strong(phrasing.prediction_set(assessment))


def chip(index: int) -> Markup:
    """The number of finding `index` (from 0) in the colour of its region; choosing it shows the region alone."""
    return _answer("chip", index + 1, hex_colour(index), f"rgb{ink_of(index)}")


def rationale(assessment: Assessment, writing: bool = False) -> Markup:
    """The text and what it depends on, references as chips in the colours of their regions.

    Args:
        writing: the text is not finished; a reference that has only begun is not shown yet.
    """
    if not assessment.rationale and not writing:
        return Markup("")
    text = re.sub(r"\[[^\]]*$", "", assessment.rationale) if writing else assessment.rationale
    depends = phrasing.depends(assessment)
    return _answer("rationale", _with_chips(text, assessment), _with_chips(depends, assessment), writing)


def _with_chips(text: str, assessment: Assessment) -> Markup:
    index = {finding.ref: i for i, finding in enumerate(assessment.findings)}
    parts = re.split(r"\[(r\d+)\]", text)  # text, reference, text, ...
    drawn = [
        (chip(index[part]) if part in index else Markup("[{}]").format(part)) if i % 2 else escape(part)
        for i, part in enumerate(parts)
    ]
    return Markup("").join(drawn)


def figures(assessment: Assessment, regions: np.ndarray, heat: np.ndarray | None, only: str | None = None) -> Markup:
    """Region overlay and Grad-CAM map side by side, the same size."""
    chosen = next((f for f in assessment.findings if f.ref == only), None)
    caption = _regions_caption(assessment, chosen)
    second = None if heat is None else data_url(heat)
    html = _answer("figures", data_url(regions), caption, second, assessment.diagnosis[0].name)
    return belonging(assessment, html)


def _regions_caption(assessment: Assessment, chosen: Finding | None) -> Markup:
    name = "" if chosen is None else phrase(chosen).capitalize()
    score = 0.0 if chosen is None else chosen.score
    values = bool(assessment.lesion.polygons), name, score, assessment.abstained, bool(assessment.findings)
    return _answer("regions_caption", *values)


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
    rows = [
        {
            "name": d.name,
            "before": d.probability,
            "after": after[d.code],
            "amount": _amount(d.probability, after[d.code]),
        }
        for d in assessment.diagnosis
    ]
    m = assessment.malignancy
    address = None if picture is None else data_url(picture)
    verdict = phrasing.verdict_of(malignancy >= m.threshold, set_codes)
    turn = verdict != phrasing.verdict(assessment)
    return _changes("changed", heading, address, rows, m.probability, malignancy, turn, verdict)


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


def downloads(assessment: Assessment, pixels: np.ndarray) -> Markup:
    """Links that save the Assessment, as a PDF to print or file and as JSON, straight from the page.

    Args:
        pixels: uint8 [H, W, 3], the assessed photo or a scaled copy of it.
    """
    files = [
        _file(assessment, "pdf", "application/pdf", assessment_pdf(assessment, pixels)),
        _file(assessment, "json", "application/json", assessment.to_json().encode()),
    ]
    return belonging(assessment, _answer("downloads", files))


def _file(assessment: Assessment, ending: str, kind: str, data: bytes) -> dict[str, str]:
    name = f"skinclip-{assessment.photo.sha256[:8]}.{ending}"
    return {"name": name, "address": templating.data_url(data, kind), "kind": ending.upper()}


def finding_colours() -> str:
    """CSS that gives each choice of the findings its colour (the first choice is "all")."""
    rules = []
    for i in range(MAX_FINDINGS):
        red, green, blue = colour_of(i)
        rules.append(f"#finding label:nth-of-type({i + 2}) {{ --chip: rgb({red}, {green}, {blue}); }}")
    return "\n".join(rules) + "\n"


def data_url(pixels: np.ndarray) -> Markup:
    """The picture itself as an address (JPEG)."""
    return templating.data_url(encode_jpeg(pixels, 92))
