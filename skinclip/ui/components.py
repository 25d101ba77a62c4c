"""Pieces of the page as HTML: what a clinician reads. Pure functions of an Assessment and of arrays.

Pictures and the files to save are written into the page itself (data URLs): no file of a photo is ever served.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from skinclip import RESEARCH_USE_ONLY
from skinclip.core.assessment import Assessment, Finding, ModelInfo, QualityIssue
from skinclip.core.formatting import percent
from skinclip.core.vocabulary import DIAGNOSIS_BY_CODE, DIAGNOSIS_CODES
from skinclip.imaging.overlay import colour_of, hex_colour, ink_of
from skinclip.imaging.photo import MAX_FILE_MB, LesionImage, encode_jpeg
from skinclip.reporting import phrasing
from skinclip.reporting.assessment_pdf import assessment_pdf
from skinclip.reporting.phrasing import phrase
from skinclip.ui.state import answer_key, describe_context

if TYPE_CHECKING:
    from skinclip.explain.grounding import SecondOpinion

BANNER = f'<div class="sk-banner" role="note">{RESEARCH_USE_ONLY}</div>'
HEADER = (
    f'<header class="sk-header" data-max-bytes="{MAX_FILE_MB * 1_000_000}"><h1>SkinCLIP-VL</h1>'
    "<p>A differential diagnosis that shows what it rests on. Photos are not stored.</p></header>"
)
FORMATS = (
    '<p class="sk-note">One lesion, centred and in focus, best through a dermatoscope. You can also drop or paste '
    "(Ctrl+V) a photo anywhere on this page. JPEG, PNG, WebP, BMP, TIFF or HEIC, up to 20 MB.</p>"
)
PATIENT_HEADING = '<h2 class="sk-label">Patient (optional)</h2>'
EXAMPLES_HEADING = (
    '<h2 class="sk-label">Synthetic examples</h2><p class="sk-note">Drawn by a program; they show no patient.</p>'
)
EMPTY = (
    '<div class="sk-empty"><h2>No assessment yet</h2><p>Add a photo of one lesion and press <b>Assess</b>.</p>'
    "<ul><li>calibrated probabilities of seven diagnoses and whether to refer</li>"
    "<li>the findings behind them, each with its place in the photo</li>"
    "<li>a Grad-CAM map of the same photo for comparison</li></ul></div>"
)
READY = (
    '<div class="sk-empty"><h2>Ready</h2><p>Press <b>Assess</b>. Age, sex and body site are optional; a photo takes '
    "a few seconds.</p></div>"
)

STOPPED = '<div class="sk-empty"><h2>Stopped</h2><p>Nothing was assessed. Press <b>Assess</b> to begin again.</p></div>'
FAILED = "Something went wrong in the program; its log says what. Try again, or another photo."


def error(message: str, heading: str = "This photo could not be assessed") -> str:
    return (
        f'<section class="sk-card sk-alert" role="alert"><h2>{escape(heading)}</h2><p>{escape(message)}</p></section>'
    )


def footer(info: ModelInfo, several: bool = False) -> str:
    """
    Args:
        several: there are several models; each answer says which of them gave it.
    """
    model = f"model {escape(info.preset)} {escape(info.version)}"
    model += "" if several else f", weights {escape(info.weights_sha256[:12])}"
    return (
        f'<footer class="sk-footer">{RESEARCH_USE_ONLY} · {model} · probabilities are at the prevalence of HAM10000'
        "</footer>"
    )


# --- the photo ----------------------------------------------------------------------------------------------------


def preview(pixels: np.ndarray, image: LesionImage, issues: tuple[QualityIssue, ...] = (), label: str = "") -> str:
    """The photo as it will be assessed, upright and without metadata, with its quality issues.

    Args:
        pixels: a scaled copy of `image`.
    """
    size = f"{image.width} × {image.height} pixels"
    caption = f"{escape(label)} · {size}" if label else size
    notes = "".join(f'<p class="sk-hint" role="status">{escape(i.message)}</p>' for i in issues)
    picture = _inline(pixels, "The photo to be assessed")
    return (
        f'<figure class="sk-preview" data-photo="{image.sha256}">{picture}<figcaption>{caption}</figcaption></figure>'
        f"{notes}"
    )


# --- the result ---------------------------------------------------------------------------------------------------


def result(
    assessment: Assessment, sensitivity: float | None = None, made_by: str | None = None, writing: bool = False
) -> str:
    """Warnings, then referral and differential, then the rationale. A model that abstains gives no figures at all.

    Args:
        sensitivity: that of the referral threshold on the calibration photos, where it is known.
        made_by: the name of the model, where there are several to choose from.
        writing: the rationale is not finished.
    """
    name = _made_for(assessment) if made_by is None else _made_for(assessment) + _made_by(made_by, assessment.model)
    if assessment.abstained:
        return belonging(assessment, abstention(assessment) + name, phrasing.ABSTAINS)
    top = f'<div class="sk-top">{differential(assessment)}{referral(assessment, sensitivity)}</div>'
    html = warnings(assessment) + top + rationale(assessment, writing) + name
    return belonging(assessment, html, "" if writing else _summary(assessment))


def belonging(assessment: Assessment, html: str, announce: str = "") -> str:
    """Marks HTML with the photo and the answer it belongs to; beside another photo the page hides it.

    Args:
        announce: words for screen readers when it appears.
    """
    return (
        f'<div class="sk-answer" data-photo="{assessment.photo.sha256}" data-answer="{answer_key(assessment)}" '
        f'data-announce="{escape(announce)}">{html}</div>'
    )


def _summary(assessment: Assessment) -> str:
    leading = assessment.diagnosis[0]
    return f"Assessment ready. {phrasing.verdict(assessment)}. {leading.name} {percent(leading.probability)}."


def _made_for(assessment: Assessment) -> str:
    context = describe_context(assessment.context)
    return f'<p class="sk-note">Made for photo {assessment.photo.sha256[:8]}, {escape(context)}.</p>'


def outdated(context: str, model: str = "") -> str:
    """The mark on an answer whose entries have changed since.

    Args:
        context: the entries it was made with, in words.
        model: the name of the model that made it, where another is chosen now.
    """
    by = f" by {escape(model)}" if model else ""
    return (
        '<section class="sk-card sk-caution" role="status"><h2>The entries have changed</h2>'
        f"<p>The answer below was made{by} for: {escape(context)}.</p></section>"
    )


def _made_by(name: str, info: ModelInfo) -> str:
    return f'<p class="sk-note">Answered by {escape(name)}, weights {escape(info.weights_sha256[:12])}.</p>'


def abstention(assessment: Assessment) -> str:
    """Says clearly that there is no answer, why, and what to do instead."""
    return (
        f'<section class="sk-card sk-alert" role="alert"><h2>{phrasing.ABSTAINS}</h2>'
        f"{_reasons(assessment)}<p>{phrasing.INSTEAD_OF_AN_ANSWER} this page.</p></section>"
    )


def warnings(assessment: Assessment) -> str:
    """Quality and out-of-domain warnings in plain words; empty where there are none."""
    reasons = _reasons(assessment)
    if not reasons:
        return ""
    return f'<section class="sk-card sk-caution" role="alert"><h2>Please note</h2>{reasons}</section>'


def _reasons(assessment: Assessment) -> str:
    lines = [escape(line) for line in phrasing.cautions(assessment)]
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>" if lines else ""


def referral(assessment: Assessment, sensitivity: float | None = None) -> str:
    """Refer or not, with the figures that the advice rests on."""
    m = assessment.malignancy
    kind, mark = ("sk-refer", "▲") if m.refer else ("sk-keep", "●")
    found = (
        f" At this threshold {sensitivity:.0%} of the malignant calibration photos are referred." if sensitivity else ""
    )
    return (
        f'<section class="sk-card {kind}"><h2 class="sk-label">Referral, on this photo alone</h2>'
        f'<p class="sk-verdict"><span aria-hidden="true">{mark}</span> {phrasing.verdict(assessment)}</p>'
        f"{_gauge(m.probability, m.threshold)}"
        f"<p>{_bold(phrasing.malignancy(assessment))}</p>"
        f'<p class="sk-note">{phrasing.MALIGNANT_HERE}{found}</p></section>'
    )


def _gauge(probability: float, threshold: float) -> str:
    """Probability (filled) and threshold (a tick) on one line from 0 to 1."""
    here, limit = 100 * probability, 100 * threshold
    return (
        f'<div class="sk-gauge" aria-hidden="true"><div class="sk-gauge-fill" style="width:{here:.1f}%"></div>'
        f'<div class="sk-gauge-limit" style="left:{limit:.1f}%"></div></div>'
    )


def differential(assessment: Assessment) -> str:
    """All seven probabilities as bars, malignant ones marked, and the prediction set in plain words."""
    rows = "".join(
        _row(d.name, d.probability, DIAGNOSIS_BY_CODE[d.code].malignant, d.code in assessment.prediction_set.codes)
        for d in assessment.diagnosis
    )
    return (
        '<section class="sk-card"><h2 class="sk-label">Differential diagnosis</h2>'
        f'<div class="sk-rows" role="list">{rows}</div>'
        f"<p>{prediction_set(assessment)}</p>"
        '<p class="sk-note"><span class="sk-key sk-malignant"></span> <span class="sk-mark">▲</span> malignant '
        '<span class="sk-key"></span> benign · names in bold are in the set</p></section>'
    )


def _row(name: str, probability: float, malignant: bool, in_set: bool) -> str:
    mark = ' <span class="sk-mark" title="malignant" role="img" aria-label="malignant">▲</span>' if malignant else ""
    kinds = ("sk-malignant " if malignant else "") + ("sk-in-set" if in_set else "")
    return (
        f'<div class="sk-row {kinds}" role="listitem"><span class="sk-name">{escape(name)}{mark}</span>'
        f'<span class="sk-track" aria-hidden="true"><span class="sk-bar" style="width:{100 * probability:.1f}%"></span>'
        f'</span><span class="sk-value">{_percent(probability)}</span></div>'
    )


def prediction_set(assessment: Assessment) -> str:
    """What cannot be ruled out, in words."""
    return _bold(phrasing.prediction_set(assessment))


def chip(index: int) -> str:
    """The number of finding `index` (from 0) in the colour of its region; choosing it shows the region alone."""
    ref = f"r{index + 1}"
    return (
        f'<button type="button" class="sk-chip" data-ref="{ref}" style="--chip:{hex_colour(index)};'
        f'--ink:rgb{ink_of(index)}" aria-label="Show finding {index + 1} alone">{index + 1}</button>'
    )


def rationale(assessment: Assessment, writing: bool = False) -> str:
    """The text and what it depends on, references as chips in the colours of their regions.

    Args:
        writing: the text is not finished; a reference that has only begun is not shown yet.
    """
    if not assessment.rationale and not writing:
        return ""
    depends = phrasing.depends(assessment)
    measured = f'<p class="sk-note">{_with_chips(depends, assessment)}</p>' if depends else ""
    text = re.sub(r"\[[^\]]*$", "", assessment.rationale) if writing else assessment.rationale
    state = ' sk-writing" aria-busy="true' if writing else ""
    return (
        f'<section class="sk-card{state}"><h2 class="sk-label">Rationale</h2>'
        f'<p class="sk-rationale">{_with_chips(text, assessment)}</p>{measured}</section>'
    )


def _with_chips(text: str, assessment: Assessment) -> str:
    index = {finding.ref: i for i, finding in enumerate(assessment.findings)}
    return re.sub(r"\[(r\d+)\]", lambda m: chip(index[m.group(1)]) if m.group(1) in index else m.group(0), escape(text))


def figures(assessment: Assessment, regions: np.ndarray, heat: np.ndarray | None, only: str | None = None) -> str:
    """Region overlay and Grad-CAM map side by side, the same size."""
    chosen = next((f for f in assessment.findings if f.ref == only), None)
    left = _figure(regions, "Regions of the findings", _regions_caption(assessment, chosen))
    if heat is None:
        return belonging(assessment, f'<div class="sk-figures sk-single">{left}</div>')
    leading = escape(assessment.diagnosis[0].name)
    right = _figure(
        heat,
        "Grad-CAM map of the leading diagnosis",
        f'<b>Grad-CAM</b> of {leading}: <span class="sk-scale">weak<i></i>strong</span> Where the answer is most '
        "sensitive to the image; it does not say what is seen there.",
    )
    return belonging(assessment, f'<div class="sk-figures">{left}{right}</div>')


def _regions_caption(assessment: Assessment, chosen: Finding | None) -> str:
    if not assessment.lesion.polygons:
        return "<b>No lesion was found</b> in this photo."
    if chosen is not None:
        return f"<b>{escape(phrase(chosen).capitalize())}</b>, score {chosen.score:.2f}. Only its region is shown."
    if assessment.abstained:
        return "<b>The lesion</b> as the model outlines it (dashed)."
    if not assessment.findings:
        return "<b>The lesion</b> as the model outlines it (dashed). No finding reaches its threshold."
    return (
        "<b>Findings</b>, numbered as in the rationale. Dashed: the lesion; numbers on it are about the lesion as a "
        "whole."
    )


def _figure(pixels: np.ndarray, name: str, caption: str) -> str:
    return (
        f'<figure><button type="button" class="sk-zoom" aria-label="Enlarge: {escape(name)}">{_inline(pixels, name)}'
        f"</button><figcaption>{caption}</figcaption></figure>"
    )


CHANGE_NOTE = (
    '<p class="sk-note">Set a criterion to what you see, or take a finding out of the photo: the model answers anew. '
    "The assessment above stays as it is.</p>"
)


def changed(
    assessment: Assessment,
    probabilities: np.ndarray,
    malignancy: float,
    heading: str,
    picture: np.ndarray | None = None,
) -> str:
    """Every probability before and after a change, in the order of the Assessment, and what becomes of the referral.

    Args:
        probabilities: [C] after, in the order of `vocabulary.DIAGNOSIS_CODES`.
        picture: the photo after the change, where it was the photo that changed.
    """
    after = dict(zip(DIAGNOSIS_CODES, probabilities.tolist(), strict=True))
    rows = "".join(_change_row(d.name, d.probability, after[d.code]) for d in assessment.diagnosis)
    m = assessment.malignancy
    refer = malignancy >= m.threshold
    advice = "Refer" if refer else "Do not refer"
    turn = "the advice stays" if refer == m.refer else "<b>the advice changes to</b>"
    shown = "" if picture is None else f'<div class="sk-changed-photo">{_inline(picture, heading)}</div>'
    return (
        f'<section class="sk-card sk-changed"><h2 class="sk-label">{escape(heading)}</h2><div class="sk-changed-body">'
        f'{shown}<table><thead><tr><th scope="col">Diagnosis</th><th scope="col">before</th><th scope="col">after</th>'
        f'<th scope="col">change</th></tr></thead><tbody>{rows}</tbody></table></div>'
        f"<p>Probability of malignancy {_percent(m.probability)} → <b>{_percent(malignancy)}</b>; {turn}: {advice}.</p>"
        "</section>"
    )


def _change_row(name: str, before: float, after: float) -> str:
    points = round(100 * (after - before))
    mark, unit = "▲" if points > 0 else "▼", "point" if abs(points) == 1 else "points"
    amount = f"{mark} {abs(points)} {unit}" if points else "= the same"
    return (
        f'<tr><th scope="row">{escape(name)}</th><td>{_percent(before)}</td><td>{_percent(after)}</td>'
        f"<td>{amount}</td></tr>"
    )


OPINION_NOTE = (
    '<p class="sk-note">The language model as it was published, without what it learnt here, is asked where each '
    "finding is. It has not read the answer above. It was never trained on such findings: where it agrees, two ways "
    "of looking lead to the same place; where it does not, look for yourself.</p>"
)


def second_opinion(assessment: Assessment, opinions: Sequence[SecondOpinion], drawn: np.ndarray | None) -> str:
    """What Qwen2.5-VL says of each finding, and its boxes on the photo where it gave any."""
    if not opinions:
        return '<p class="sk-note">No finding here has a region of its own to ask about.</p>'
    index = {finding.ref: i for i, finding in enumerate(assessment.findings)}
    lines = "".join(
        f"<li>{chip(index[o.reference])} {escape(phrase(assessment.findings[index[o.reference]]))}: "
        f"{escape(phrasing.second_opinion(o))}</li>"
        for o in opinions
    )
    picture = "" if drawn is None else f'<div class="sk-opinion-photo">{_inline(drawn, "Boxes of Qwen2.5-VL")}</div>'
    return f'<section class="sk-card sk-opinion">{picture}<ul>{lines}</ul></section>'


def downloads(assessment: Assessment, pixels: np.ndarray) -> str:
    """Links that save the Assessment, as a PDF to print or file and as JSON, straight from the page.

    Args:
        pixels: uint8 [H, W, 3], the assessed photo or a scaled copy of it.
    """
    links = _download(assessment, "pdf", "application/pdf", assessment_pdf(assessment, pixels))
    links += _download(assessment, "json", "application/json", assessment.to_json().encode())
    return belonging(assessment, f'<div class="sk-downloads">{links}</div>')


def _download(assessment: Assessment, ending: str, kind: str, data: bytes) -> str:
    name = f"skinclip-{assessment.photo.sha256[:8]}.{ending}"
    return (
        f'<a class="sk-download" download="{name}" href="data:{kind};base64,{base64.b64encode(data).decode()}">'
        f"Save this assessment ({ending.upper()})</a>"
    )


def finding_colours() -> str:
    """CSS that gives each choice of the findings its colour (the first choice is "all")."""
    rules = []
    for i in range(10):
        red, green, blue = colour_of(i)
        rules.append(f"#finding label:nth-of-type({i + 2}) {{ --chip: rgb({red}, {green}, {blue}); }}")
    return "\n".join(rules)


def _percent(p: float) -> str:
    return escape(percent(p))


def _bold(text: str) -> str:
    """A sentence as HTML, what stands between `**` in bold."""
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escape(text))


def _inline(pixels: np.ndarray, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="{data_url(pixels)}">'


def data_url(pixels: np.ndarray) -> str:
    """The picture itself as an address (JPEG)."""
    return f"data:image/jpeg;base64,{base64.b64encode(encode_jpeg(pixels, 92)).decode()}"
