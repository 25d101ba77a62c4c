"""Counterfactuals: the answer with a region taken out of the photo, or with the checklist edited by hand.

Both ask the model itself. Nothing here knows what a finding ought to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from skinclip.calibration.calibrated_model import CalibratedModel, CalibratedOutput
from skinclip.calibration.calibrator import CalibratedPrediction
from skinclip.core.assessment import Context, Polygon, Region
from skinclip.core.vocabulary import CRITERIA, EVIDENCE_STATES
from skinclip.explain import faithfulness
from skinclip.imaging.photo import LesionImage
from skinclip.imaging.transform import Window
from skinclip.model.evidence import CLEAR

LEAST_OUTLINED = 9  # places of the mask's grid
SIDE = 320  # pixels of the window at most at which a region is taken out and the photo shown


@dataclass(frozen=True)
class Without:
    """The photo without a region.

    Attributes:
        pixels: uint8 [side, side, 3], the model's window with the region's structures blurred away.
        calibrated: the answer to what is left.
    """

    pixels: np.ndarray
    calibrated: CalibratedPrediction


def without_region(
    predictor: CalibratedModel, image: LesionImage, context: Context, output: CalibratedOutput, region: Region
) -> Without:
    """The model's answer to the photo with the structures of `region` blurred away.

    The one way in which places are taken out of a photo: `dependence`, `effects` and the benchmarks blur as well.

    Args:
        output: the model's, for the photo as it is; the window stays the same.
    """
    window = output.windows[0]
    pixels = window_pixels(image, window)
    mask = region_mask(region, len(pixels), (window.x, window.y), len(pixels) / window.side)
    (blurred,) = without_places(pixels, mask[None])
    return Without(blurred, predictor.forward_changed([blurred], context, output).calibrated)


def window_pixels(image: LesionImage, window: Window) -> np.ndarray:
    """uint8 [side, side, 3]: the model's window of a photo, at most `SIDE` pixels wide."""
    side = min(SIDE, window.side)
    cut = window.crop(image.pixels)
    return cv2.resize(cut, (side, side), interpolation=cv2.INTER_AREA) if side < window.side else cut.copy()


def without_places(pixels: np.ndarray, places: np.ndarray) -> list[np.ndarray]:
    """Copies of a window uint8 [side, side, 3], each with one mask of `places` bool [M, g, g] blurred."""
    photo = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    blurred = (faithfulness.without(photo, places) * 255).round().clamp(0, 255).byte()  # [M, 3, side, side]
    return [np.ascontiguousarray(one.permute(1, 2, 0).numpy()) for one in blurred]


def region_mask(region: Region, side: int, offset: tuple[float, float], scale: float) -> np.ndarray:
    """bool [side, side]: what a region covers of a window at `offset` in the photo, `scale` pixels for one of it."""
    mask = np.zeros((side, side), np.uint8)
    outlines = [np.round((np.array(p) - offset) * scale - 0.5).astype(np.int32) for p in region.polygons]
    cv2.fillPoly(mask, outlines, 1)
    return mask > 0


def what_if(
    predictor: CalibratedModel, output: CalibratedOutput, context: Context, edits: Mapping[str, str]
) -> CalibratedPrediction:
    """The model's answer if the criteria in `edits` were in the states given, all else as it was seen.

    Args:
        edits: criterion -> one of its labels, "absent" included.

    Raises ValueError for a criterion or state that there is not, or that the model does not know.
    """
    unknown = sorted(set(edits) - set(predictor.model.config.criteria))
    if unknown:
        raise ValueError(
            f"the model has no criterion {unknown[0]!r}; it has {', '.join(predictor.model.config.criteria)}"
        )
    scores = edited_scores(output.evidence.scores, edits)
    with torch.inference_mode():
        prompts = predictor.model.reasoner.writer.write([context])
        logits = predictor.model.reason(prompts, output.tokens, output.evidence.with_scores(scores)).logits
    style = output.style.double().numpy()
    return predictor.calibrator.apply(logits.cpu().double().numpy(), style, output.calibrated.kinds)


OUTLINED = 8.0  # the mask's logit inside an outline drawn by hand; its negative outside


def within_outline(predictor: CalibratedModel, output: CalibratedOutput, outline: Polygon) -> CalibratedOutput:
    """The output with the lesion as a clinician outlined it: evidence and answer anew, what the tower sees the same.

    Args:
        output: the model's, for a single photo.
        outline: in pixels of the photo.

    Raises ValueError where the outline encloses next to nothing of what the model reads.
    """
    window, side, model = output.windows[0], output.evidence.mask_logits.shape[-1], predictor.model
    xs, ys = zip(*outline, strict=True)
    region = Region((min(xs), min(ys), max(xs), max(ys)), (outline,))
    mask = region_mask(region, side, (window.x, window.y), side / window.side)
    if mask.sum() < LEAST_OUTLINED:
        raise ValueError("The outline encloses too little of the photo. Draw it around the lesion.")
    logits = torch.from_numpy(np.where(mask, OUTLINED, -OUTLINED).astype(np.float32))[None].to(model.device)
    with torch.inference_mode():
        evidence = model.evidence.find(output.tokens.to(model.device), model.state_embeddings, logits).to("cpu")
    return replace(output, evidence=evidence)


def edited_scores(scores: torch.Tensor, edits: Mapping[str, str]) -> torch.Tensor:
    """Evidence scores [B, K] in which edited criteria are as clear as can be."""
    labels = {criterion.code: criterion.labels for criterion in CRITERIA}
    for code, label in edits.items():
        if code not in labels:
            raise ValueError(f"there is no criterion {code!r}; there are {', '.join(labels)}")
        if label not in labels[code]:
            raise ValueError(f"{code} has no state {label!r}; it has {', '.join(labels[code])}")
    edited = scores.clone()
    for k, state in enumerate(EVIDENCE_STATES):
        if state.criterion in edits:
            edited[:, k] = CLEAR if edits[state.criterion] == state.code else -CLEAR
    return edited
