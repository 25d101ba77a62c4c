"""`skinclip assess PHOTO`: one photo to an Assessment, as text, JSON, pictures or a page to print."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from skinclip import RESEARCH_USE_ONLY
from skinclip.cli.common import (
    UsageError,
    add_model_arguments,
    add_prevalence_argument,
    at_prevalence,
    load_assessor,
    make_writable_folder,
    prevalence,
    stdout_to_stderr,
)
from skinclip.core.formatting import per_cent
from skinclip.core.patient_context import patient_context
from skinclip.core.vocabulary import SEXES, SITES, STATE_BY_KEY
from skinclip.reporting import phrasing

if TYPE_CHECKING:
    from skinclip.core.assessment import Assessment, Context
    from skinclip.imaging.photo import LesionImage
    from skinclip.pipeline.assessor import Assessor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `assess`."""
    parser.add_argument("photo", type=Path, help="JPEG, PNG, WebP, BMP, TIFF or HEIC file")
    parser.add_argument(
        "--clinical", type=Path, metavar="PHOTO", help="a clinical close-up of the same lesion, to be seen beside it"
    )
    add_model_arguments(parser)
    add_prevalence_argument(parser)
    parser.add_argument("--age", type=_age, help="years, 0 to 120")
    parser.add_argument("--sex", type=_sex, help=" or ".join(SEXES))
    parser.add_argument("--site", type=_site, help=f"body site: {', '.join(SITES)}")
    parser.add_argument("--json", action="store_true", help="print the Assessment as one JSON object and nothing else")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write assessment.json, regions.png and gradcam.png there"
    )
    parser.add_argument("--pdf", type=Path, metavar="FILE", help="write the Assessment as a page to print or file")
    parser.add_argument(
        "--second-opinion",
        action="store_true",
        help="ask Qwen2.5-VL itself where each finding is; for presets with its vision tower",
    )
    parser.set_defaults(run=_assess)


def _age(text: str) -> float | None:
    return _entry("age", text).age


def _sex(text: str) -> str | None:
    return _entry("sex", text).sex


def _site(text: str) -> str | None:
    return _entry("site", text).site


def _entry(name: str, text: str) -> Context:
    try:
        return patient_context(**{name: text})
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _assess(args: argparse.Namespace) -> int:
    with stdout_to_stderr():
        from skinclip.core.assessment import Context
        from skinclip.imaging.photo import load_photo

        image, chosen = load_photo(args.photo), prevalence(args)  # before the model: bad input answers at once
        clinical = dataclasses.replace(load_photo(args.clinical), kind="clinical") if args.clinical else None
        for folder in (args.out, args.pdf and args.pdf.parent):
            if folder:
                make_writable_folder(folder)
        assessor = load_assessor(args)
        context = Context(age=args.age, sex=args.sex, site=args.site)
        with at_prevalence(assessor, chosen):
            assessment = assessor.assess(image, context, clinical=clinical)
            notices = _notices(assessment)
            if args.out:
                notices += _write_assessment(args.out, assessor, image, clinical, assessment)
        if args.pdf:
            from skinclip.reporting.assessment_pdf import assessment_pdf

            args.pdf.write_bytes(assessment_pdf(assessment, image.pixels, clinical.pixels if clinical else None))
        opinions = _second_opinion(args, assessor, image, assessment) if args.second_opinion else []
    if args.json:
        print(assessment.to_json())
        for notice in [*opinions, *notices]:
            print(f"skinclip: {notice}", file=sys.stderr)
    else:
        print("\n".join([_readable(assessment, notices), *opinions]))
    return 0


def _second_opinion(
    args: argparse.Namespace, assessor: Assessor, image: LesionImage, assessment: Assessment
) -> list[str]:
    """A line for each finding that was asked about; boxes and all in second_opinion.json with --out."""
    from skinclip.explain.grounding import second_opinions

    try:
        opinions = second_opinions(assessor.predictor, image, assessment)
    except NotImplementedError as error:
        raise UsageError(f"{error}; leave out --second-opinion, or choose another --preset") from error
    if args.out:
        text = json.dumps([dataclasses.asdict(opinion) for opinion in opinions], indent=2)
        (args.out / "second_opinion.json").write_text(text + "\n", encoding="utf-8")
    return [f"Qwen2.5-VL on [{o.reference}]: {phrasing.second_opinion(o)}" for o in opinions]


def _write_assessment(
    folder: Path, assessor: Assessor, image: LesionImage, clinical: LesionImage | None, assessment: Assessment
) -> list[str]:
    """Writes the three files and returns what could not be drawn."""
    from skinclip.imaging.overlay import heatmap_overlay, region_overlay
    from skinclip.imaging.photo import encode_png

    (folder / "assessment.json").write_text(assessment.to_json() + "\n", encoding="utf-8")
    (folder / "regions.png").write_bytes(encode_png(region_overlay(image.pixels, assessment)))
    try:
        code = assessment.diagnosis[0].code
        heat = assessor.heat_on_photo(image, assessment.context, code, clinical=clinical)
    except NotImplementedError as error:
        return [f"gradcam.png was not written: {error}"]
    (folder / "gradcam.png").write_bytes(encode_png(heatmap_overlay(image.pixels, heat)))
    return []


def _notices(assessment: Assessment) -> list[str]:
    """Quality and domain warnings in plain words."""
    notices = [issue.message for issue in assessment.photo.quality.issues]
    if not assessment.shift.in_domain:
        notices.append("this photo does not look like those the model was trained on; do not rely on the result")
    notices += phrasing.skin_tone(assessment)
    if assessment.abstained:
        notices.append("the model abstains: it gives no rationale for this photo")
    return notices


def _advice(assessment: Assessment) -> list[str]:
    """The prediction set and the referral advice, in the words of the page; none of a model that abstained."""
    if assessment.abstained:
        return [phrasing.ABSTAINS]
    a = phrasing.advice(assessment)
    sentences = (a.prediction_set, f"{a.verdict}. {a.basis}", a.reconciliation, *a.leaves_open)
    return [sentence.replace("**", "") for sentence in sentences if sentence]


def _readable(assessment: Assessment, notices: Sequence[str]) -> str:
    lines = [RESEARCH_USE_ONLY, ""]
    for item in assessment.diagnosis:
        lines.append(f"{item.name:<22}{per_cent(item.probability, 1):>8}  {'#' * round(30 * item.probability)}")
    lines += ["", *_advice(assessment)]
    if assessment.rationale:
        lines += ["", assessment.rationale, *([depends] if (depends := phrasing.depends(assessment)) else [])]
    for finding in assessment.findings:
        state = STATE_BY_KEY.get(finding.key)
        phrase = state.phrase if state else f"{finding.criterion} {finding.state}"
        box = ", ".join(f"{v:.0f}" for v in finding.region.box)
        lines.append(f"  [{finding.ref}] {phrase} (score {finding.score:.2f}, pixels {box})")
    lines += [f"Warning: {notice}" for notice in notices]
    return "\n".join(lines)
