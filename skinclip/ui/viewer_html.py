"""The photo viewer as HTML: the photo, each finding's region as a drawing over it, and the Grad-CAM map.

The browser chooses what is drawn (`assets/viewer.js`); nothing is asked of the server while a clinician looks around.
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from skinclip.core.assessment import Assessment, Finding, Polygon
from skinclip.core.formatting import count
from skinclip.imaging.overlay import number_places
from skinclip.reporting import phrasing
from skinclip.ui import components
from skinclip.ui.state import AssessedPhoto
from skinclip.ui.templating import data_url, macro


def viewer(answer: AssessedPhoto) -> Markup:
    """The viewer with the photo and the regions of an answer; `heat` follows by itself."""
    assessment = answer.assessment
    findings = () if assessment.abstained else assessment.findings
    values: dict[str, Any] = {
        "width": assessment.photo.width,
        "height": assessment.photo.height,
        "photo": data_url(answer.picture),
        "regions": bool(assessment.lesion.polygons),
        "explained": not assessment.abstained,
        "lesion": points(assessment.lesion.polygons),
        "findings": drawn_findings(assessment, findings),
        "strongest": strongest(assessment) or "",
        "caption": _caption(assessment, findings),
        "leading": "" if assessment.abstained else assessment.diagnosis[0].name,
        "beside": None if answer.other_picture is None else data_url(answer.other_picture),
        "beside_words": phrasing.beside(assessment),
    }
    return components.belonging(assessment, macro("viewer.html", "viewer", values))


def heat(answer: AssessedPhoto) -> Markup:
    """The Grad-CAM layer for the viewer; empty where there is none."""
    if answer.heat is None:
        return Markup("")
    drawn = macro("viewer.html", "heat", data_url(answer.heat, "image/png"), strongest(answer.assessment) or "")
    return components.belonging(answer.assessment, drawn)


def strongest(assessment: Assessment) -> str | None:
    """Reference of the finding that is drawn first.

    The one that the answer depends on; else the one with the largest effect, then the most certain, among those that
    have a region of their own.
    """
    if assessment.abstained or not assessment.findings:
        return None
    if assessment.pivotal is not None:
        return assessment.pivotal.ref
    own = [f for f in assessment.findings if not _whole(f, assessment)] or list(assessment.findings)
    return max(own, key=lambda f: (f.effect or 0.0, f.score)).ref


def drawn_findings(assessment: Assessment, findings: tuple[Finding, ...]) -> list[dict[str, Any]]:
    """Each finding as the template draws it: its outlines, and the place of its number, in photo pixels."""
    places = number_places(assessment, max(assessment.photo.width, assessment.photo.height) / 46)
    return [
        {
            "ref": f.ref,
            "number": i + 1,
            "phrase": phrasing.phrase(f),
            "polygons": points(f.region.polygons),
            "whole": _whole(f, assessment),
            "place": places.get(f.ref),
        }
        for i, f in enumerate(findings)
    ]


def points(polygons: tuple[Polygon, ...]) -> list[str]:
    """Polygons as SVG writes them."""
    return [" ".join(f"{x:.1f},{y:.1f}" for x, y in polygon) for polygon in polygons]


def _whole(finding: Finding, assessment: Assessment) -> bool:
    return finding.region.polygons == assessment.lesion.polygons


def _caption(assessment: Assessment, findings: tuple[Finding, ...]) -> str:
    if not assessment.lesion.polygons:
        return "No lesion was found in this photo."
    if assessment.abstained:
        return "Dashed: the lesion as the model outlines it."
    if not findings:
        return "Dashed: the lesion as the model outlines it. No finding reaches its threshold."
    if len(findings) == 1:
        return "Dashed: the lesion. Drawn: the finding."
    return (
        f"Dashed: the lesion. Drawn first: the finding that weighs most, of {count(len(findings))}. Point at a finding "
        "in the list, or move to it with Tab, to see it alone."
    )
