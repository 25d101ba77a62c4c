"""The answer to the photos of a lesion as the page displays it: the assessment, its pictures, and the model's name."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from skinclip.core.assessment import Assessment, Context
from skinclip.imaging.bounded import load_photo_bounded
from skinclip.imaging.overlay import DRAWN_SIDE, heat_rgba
from skinclip.imaging.photo import encode_jpeg, fit
from skinclip.model.adapters.card import card_name
from skinclip.pipeline.assessor import Assessor
from skinclip.pipeline.photos import dermoscopy_first
from skinclip.service.metrics import METRICS
from skinclip.ui import components, viewer_html
from skinclip.ui.state import AssessedPhoto, Kinds
from skinclip.ui.tabs.photo_field import example_files

DISPLAY_SIDE = 1600  # px, longer side of the picture on the page at most: enough to look closely
BESIDE_SIDE = 640  # px, that of the photo beside it, in which nothing is drawn
LAYER_SIDE = 480  # px, longer side of a heat map's layer; it is smooth, the browser enlarges it


def assess_photos(
    assessor: Assessor,
    photos: tuple[bytes, bytes | None],
    kinds: Kinds,
    context: Context,
    progress: Callable[[float, str], None],
    on_partial: Callable[[AssessedPhoto], None] | None = None,
) -> AssessedPhoto:
    """Assesses the photo files of one lesion for display, and counts it in the metrics. Raises PhotoError.

    Args:
        photos: one, or two in any order.
        kinds: what the visitor says that they are.
        on_partial: called with the answer as far as it is known; see `Assessor.assess`.
    """
    start = time.monotonic()
    answer = _assessed(assessor, photos, kinds, context, progress, on_partial)
    METRICS.observe_assessment(answer.assessment, time.monotonic() - start)
    return answer


def _assessed(
    assessor: Assessor,
    photos: tuple[bytes, bytes | None],
    kinds: Kinds,
    context: Context,
    progress: Callable[[float, str], None],
    on_partial: Callable[[AssessedPhoto], None] | None = None,
) -> AssessedPhoto:
    loaded = [None if p is None else replace(load_photo_bounded(p), kind=k) for p, k in zip(photos, kinds, strict=True)]
    assert loaded[0] is not None
    image, beside = dermoscopy_first(assessor, loaded[0], loaded[1])
    photo, other = photos if image is loaded[0] else photos[::-1]
    assert photo is not None
    picture = encode_jpeg(fit(image.pixels, DISPLAY_SIDE, DRAWN_SIDE), 90)
    small = None if beside is None else encode_jpeg(fit(beside.pixels, BESIDE_SIDE), 90)

    def answer(assessment: Assessment, heat: bytes | None = None) -> AssessedPhoto:
        made = AssessedPhoto(photo, assessment, picture, heat)
        return replace(made, other=other, other_picture=small, kinds=kinds)

    show = None if on_partial is None else lambda partial: on_partial(answer(partial))
    assessment = assessor.assess(image, context, lambda share, what: progress(0.8 * share, what), show, beside)
    if assessment.abstained:  # there is no diagnosis that a map could explain
        return answer(assessment)
    progress(0.85, "Drawing the Grad-CAM map")
    heat = assessor.heat_on_photo(image, context, assessment.diagnosis[0].code, clinical=beside)
    return answer(assessment, heat_layer(heat))


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
    example = (example_files()[0].read_bytes(), None)
    answer = _assessed(assessor, example, (None, None), Context(), lambda share, what: None)
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
