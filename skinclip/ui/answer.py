"""The answer to a photo as the page displays it: the assessment, its pictures, and the model's name."""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np

from skinclip.core.assessment import Context
from skinclip.imaging.bounded import load_photo_bounded
from skinclip.imaging.overlay import DRAWN_SIDE, heat_rgba
from skinclip.imaging.photo import LesionImage, encode_jpeg, fit
from skinclip.model.adapters.card import card_name
from skinclip.pipeline.assessor import Assessor
from skinclip.service.metrics import METRICS
from skinclip.ui import components, viewer_html
from skinclip.ui.state import AssessedPhoto
from skinclip.ui.tabs.photo_field import example_files

DISPLAY_SIDE = 1600  # px, longer side of the picture on the page at most: enough to look closely
LAYER_SIDE = 480  # px, longer side of a heat map's layer; it is smooth, the browser enlarges it


def assess_photo(
    assessor: Assessor,
    photo: bytes,
    context: Context,
    progress: Callable[[float, str], None],
    on_partial: Callable[[AssessedPhoto], None] | None = None,
) -> AssessedPhoto:
    """Assesses a photo file for display, and counts it in the metrics. Raises PhotoError.

    Args:
        on_partial: called with the answer as far as it is known; see `Assessor.assess`.
    """
    start = time.monotonic()
    answer = _assessed(assessor, photo, context, progress, on_partial)
    METRICS.observe_assessment(answer.assessment, time.monotonic() - start)
    return answer


def _assessed(
    assessor: Assessor,
    photo: bytes,
    context: Context,
    progress: Callable[[float, str], None],
    on_partial: Callable[[AssessedPhoto], None] | None = None,
) -> AssessedPhoto:
    image: LesionImage = load_photo_bounded(photo)
    picture = encode_jpeg(fit(image.pixels, DISPLAY_SIDE, DRAWN_SIDE), 90)
    show = None if on_partial is None else lambda partial: on_partial(AssessedPhoto(photo, partial, picture, None))
    assessment = assessor.assess(image, context, lambda share, what: progress(0.8 * share, what), show)
    heat = None
    if not assessment.abstained:  # after an abstention there is no diagnosis that a map could explain
        progress(0.85, "Drawing the Grad-CAM map")
        heat = heat_layer(assessor.heat_on_photo(image, context, assessment.diagnosis[0].code))
    return AssessedPhoto(photo, assessment, picture, heat)


def heat_layer(heat: np.ndarray) -> bytes:
    """A heat map [H, W] in 0..1 as a PNG that is clear where the map is cold; the browser enlarges it."""
    scale = min(1.0, LAYER_SIDE / max(heat.shape))
    small = cv2.resize(heat.astype(np.float32), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    bgra = cv2.cvtColor((heat_rgba(small) * 255).round().astype(np.uint8), cv2.COLOR_RGBA2BGRA)
    ok, data = cv2.imencode(".png", bgra)
    if not ok:
        raise RuntimeError("a map could not be encoded")
    return data.tobytes()


def warm_up(assessor: Assessor) -> None:
    """Assesses a synthetic photo, so that everything set up at first use is ready for the first visitor."""
    answer = _assessed(assessor, example_files()[0].read_bytes(), Context(), lambda share, what: None)
    components.result(answer.shown)
    viewer_html.viewer(answer)


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
