"""The answer to a photo as the page displays it: the assessment, its pictures, and the model's name."""

from __future__ import annotations

from collections.abc import Callable

import cv2

from skinclip.core.assessment import Assessment, Context
from skinclip.imaging.bounded import load_photo_bounded
from skinclip.imaging.overlay import DRAWN_SIDE, heatmap_overlay, region_overlay
from skinclip.imaging.photo import LesionImage, fit
from skinclip.model.adapters.card import card_name
from skinclip.pipeline.assessor import Assessor
from skinclip.ui import components
from skinclip.ui.state import AssessedPhoto
from skinclip.ui.tabs.photo_field import example_files

ALL = "all"
DISPLAY_SIDE = 1100  # px, longer side of the pictures on the page at most


def assess_photo(
    assessor: Assessor,
    photo: bytes,
    context: Context,
    progress: Callable[[float, str], None],
    on_partial: Callable[[Assessment], None] | None = None,
) -> AssessedPhoto:
    """Assesses a photo file for display; `on_partial` as in `Assessor.assess`. Raises PhotoError."""
    image: LesionImage = load_photo_bounded(photo)
    assessment = assessor.assess(image, context, lambda share, what: progress(0.8 * share, what), on_partial)
    pixels, heat = fit(image.pixels, DISPLAY_SIDE, DRAWN_SIDE), None
    if not assessment.abstained:  # after an abstention there is no diagnosis that a map could explain
        progress(0.85, "Drawing the Grad-CAM map")
        whole = assessor.heat_on_photo(image, context, assessment.diagnosis[0].code)
        heat = cv2.resize(whole, (pixels.shape[1], pixels.shape[0]), interpolation=cv2.INTER_LINEAR)
    return AssessedPhoto(photo, assessment, pixels, heat)


def warm_up(assessor: Assessor) -> None:
    """Assesses a synthetic photo, so that everything set up at first use is ready for the first visitor."""
    answer = assess_photo(assessor, example_files()[0].read_bytes(), Context(), lambda share, what: None)
    pictures(answer)
    components.downloads(answer.assessment, answer.pixels)


def pictures(answer: AssessedPhoto, choice: str = ALL) -> str:
    """The two pictures as HTML; `choice` is a reference ("r1") or ALL."""
    assessment, pixels = answer.assessment, answer.pixels
    if assessment.abstained:
        return components.figures(assessment, region_overlay(pixels, assessment, "none"), None)
    only = None if choice == ALL else choice
    regions = region_overlay(pixels, assessment, only)
    heat = None if answer.heat is None else heatmap_overlay(pixels, answer.heat)
    return components.figures(assessment, regions, heat, only)


def choices(assessment: Assessment) -> list[tuple[str, str]]:
    """(label, reference) of each finding, ALL first; only ALL where the model abstained."""
    findings = () if assessment.abstained else assessment.findings
    return [("All findings", ALL), *((f"{f.ref[1:]} {components.phrase(f)}", f.ref) for f in findings)]


def adapters(assessor: Assessor) -> list[tuple[str, str]]:
    """(name, weights_sha256) of each checkpoint on offer; a name that several share gets its folder's beside it."""
    names = {weights: card_name(folder) for weights, folder in assessor.checkpoints.items()}
    shared = {name for name in names.values() if list(names.values()).count(name) > 1}
    return [
        (f"{name} ({assessor.checkpoints[weights].name})" if name in shared else name, weights)
        for weights, name in names.items()
    ]


def made_by(assessor: Assessor) -> str | None:
    """The name of the checkpoint in use, where there are several."""
    names = {weights: name for name, weights in adapters(assessor)}
    return names.get(assessor.model_info.weights_sha256) if len(names) > 1 else None
