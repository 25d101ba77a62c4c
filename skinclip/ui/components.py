"""Pieces of the result as HTML: what a clinician reads. Pure functions of an Assessment."""

from __future__ import annotations

import base64
import re
from html import escape

import cv2
import numpy as np

from skinclip import RESEARCH_USE_ONLY
from skinclip.assessment import Assessment
from skinclip.clinical import DIAGNOSIS_BY_CODE, STATE_BY_KEY
from skinclip.explain.render import hex_colour

BANNER = f'<div class="sk-banner" role="note">{RESEARCH_USE_ONLY}</div>'
HEADER = (
    '<header class="sk-header"><h1>SkinCLIP-VL</h1>'
    "<p>A differential diagnosis that shows what it rests on. Nothing you upload leaves this computer.</p></header>"
)
EMPTY = (
    '<div class="sk-empty"><p>Add a photo of one lesion and press <b>Assess</b>.</p>'
    "<p>You will get calibrated probabilities for seven diagnoses, the findings behind them with their place in the "
    "photo, and a Grad-CAM map for comparison.</p></div>"
)


def error(message: str) -> str:
    heading = "<b>This photo could not be assessed.</b>"
    return f'<div class="sk-card sk-error" role="alert">{heading}<p>{escape(message)}</p></div>'


def result(assessment: Assessment) -> str:
    """Warnings, referral, differential and rationale, one below the other."""
    return warnings(assessment) + referral(assessment) + differential(assessment) + rationale(assessment)


def warnings(assessment: Assessment) -> str:
    """Quality and out-of-domain warnings in plain words; empty where there are none."""
    quality = assessment.photo.quality
    lines = [escape(issue.message) for issue in quality.issues]
    if not assessment.shift.in_domain:
        lines.append(
            "This photo does not look like the dermoscopy photos the model was trained on "
            f"(more unusual than {assessment.shift.score:.0%} of them). Its figures cannot be relied on."
        )
    if not lines:
        return ""
    heading = "No assessment: the model abstains" if assessment.abstained else "Please note"
    kind = "sk-error" if assessment.abstained else "sk-warning"
    items = "".join(f"<li>{line}</li>" for line in lines)
    return f'<section class="sk-card {kind}" role="alert"><h2>{heading}</h2><ul>{items}</ul></section>'


def referral(assessment: Assessment) -> str:
    m = assessment.malignancy
    if assessment.abstained:
        return ""
    verdict, kind = ("Refer", "sk-refer") if m.refer else ("Below the referral threshold", "sk-no-refer")
    relation = "at or above" if m.refer else "below"
    return (
        f'<section class="sk-card {kind}"><h2>{verdict}</h2>'
        "<p>Probability of malignancy (melanoma, basal cell carcinoma, actinic keratosis or carcinoma in situ): "
        f"<b>{m.probability:.1%}</b>, {relation} the threshold of "
        f"{m.threshold:.1%}, which was set on calibration photos to find 92 % of malignant lesions.</p></section>"
    )


def differential(assessment: Assessment) -> str:
    """All seven probabilities as bars, malignant ones marked."""
    rows = []
    codes = set(assessment.prediction_set.codes)
    for d in assessment.diagnosis:
        malignant = DIAGNOSIS_BY_CODE[d.code].malignant
        mark = '<span class="sk-tag">malignant</span>' if malignant else ""
        kind = "sk-bar sk-malignant" if malignant else "sk-bar"
        weak = "" if d.code in codes else " sk-out"
        rows.append(
            f'<div class="sk-row{weak}"><div class="sk-name">{escape(d.name)} {mark}</div>'
            f'<div class="sk-track" role="img" aria-label="{escape(d.name)} {d.probability:.1%}">'
            f'<div class="{kind}" style="width:{max(0.5, d.probability * 100):.1f}%"></div></div>'
            f'<div class="sk-value">{d.probability:.1%}</div></div>'
        )
    names = [DIAGNOSIS_BY_CODE[c].name for c in assessment.prediction_set.codes]
    coverage = f"{assessment.prediction_set.coverage:.0%}"
    said = f"With {coverage} coverage the diagnosis is one of: <b>{escape(', '.join(names))}</b>."
    dim = " sk-dim" if assessment.abstained else ""
    bars = "".join(rows)
    return f'<section class="sk-card{dim}"><h2>Differential diagnosis</h2>{bars}<p class="sk-note">{said}</p></section>'


def chip(ref: str) -> str:
    colour = hex_colour(int(ref[1:]) - 1)
    return f'<span class="sk-chip" style="--chip:{colour}">{ref[1:]}</span>'


def rationale(assessment: Assessment) -> str:
    """The text with its references as chips in the colour of their regions, and the list of findings."""
    if not assessment.rationale:
        return ""
    text = re.sub(r"\[(r\d)\]", lambda m: chip(m.group(1)), escape(assessment.rationale))
    items = "".join(
        f"<li>{chip(f.ref)} {escape(STATE_BY_KEY[f'{f.criterion}:{f.state}'].phrase)} "
        f'<span class="sk-note">score {f.score:.2f}</span></li>'
        for f in assessment.findings
    )
    findings = f'<ul class="sk-findings">{items}</ul>' if items else ""
    return f'<section class="sk-card"><h2>Rationale</h2><p class="sk-rationale">{text}</p>{findings}</section>'


def figures(regions: np.ndarray, heat: np.ndarray) -> str:
    """Region overlay and Grad-CAM map side by side, inlined so that no file of a photo is ever written or served."""
    return (
        '<div class="sk-figures">'
        f"<figure>{_inline(regions, 'Regions of the findings, numbered as in the rationale')}"
        "<figcaption><b>Regions of the findings.</b> Numbers and colours are those of the rationale; the dashed line "
        "is the lesion. The region is what the finding's score was computed from.</figcaption></figure>"
        f"<figure>{_inline(heat, 'Grad-CAM map of the leading diagnosis')}"
        "<figcaption><b>Grad-CAM.</b> Where the leading diagnosis is most sensitive to the image features; bright "
        "is strong. It does not name what is seen there.</figcaption></figure></div>"
    )


def _inline(pixels: np.ndarray, alt: str) -> str:
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
    if not ok:
        raise RuntimeError("a picture could not be encoded")
    return f'<img alt="{escape(alt)}" src="data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}">'
