"""A second opinion on regions: Qwen2.5-VL as it was published, asked where a finding is.

The published model answers with boxes as JSON (`bbox_2d`). It is asked with its own vision tower alone, LoRA off, one
finding at a time, in the words of Qwen's cookbook on spatial understanding (github.com/QwenLM/Qwen2.5-VL, cookbooks).
It was never trained to see these findings, and has read neither the evidence maps nor the answer: it can be wrong, but
it cannot repeat the answer from its prompt.

Coordinates are pixels of the photo as the model reads it, not of the file (QwenLM/Qwen3-VL, issue 676), here of the
window at `own_side`. What it writes is text like any other: whatever is not a valid box is dropped and reported.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torchvision.ops import box_iou

from skinclip.calibration.calibrated_model import CalibratedModel
from skinclip.core.assessment import Assessment, Box, Finding
from skinclip.core.vocabulary import EVIDENCE_STATES
from skinclip.imaging.photo import LesionImage
from skinclip.imaging.transform import Window
from skinclip.model.inference import lesion_windows

QUESTION = "Locate {phrase}, output its bbox coordinates using JSON format."
AGREES_FROM = 0.25  # least overlap, beside the centre, of a box that agrees; by convention, not measured
MOST_TOKENS = 160  # that an answer may have: three boxes with their labels
_MOST_CHARACTERS, _MOST_BOXES = 4000, 20
_MARGIN = 28.0  # pixels that a box may reach past the photo, one token of Qwen's tower; it is clipped
_OBJECT = re.compile(r"\{[^{}]*(\}|\Z)")
_CUT_SHORT = re.compile(r"\{\s*[\"']?bbox_2d[\"']?\s*:\s*(\[[^\[\]]*\])")
_CUT = "an object that is cut short"


@dataclass(frozen=True)
class Parsed:
    """Content of an answer: sound boxes, in pixels of the photo asked about, and in words what was dropped."""

    boxes: tuple[Box, ...]
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class SecondOpinion:
    """Opinion of Qwen2.5-VL on where a finding is.

    Attributes:
        reference: of the finding, "r1".
        boxes: in photo pixels; none where it gave no usable box.
        iou: of the box that fits best with the box of the finding's region, None without a box.
        agrees: the centre of that box lies in the region, and the overlap is at least `AGREES_FROM`.
        dropped: what of its answer could not be used.
    """

    reference: str
    boxes: tuple[Box, ...]
    iou: float | None
    agrees: bool | None
    dropped: tuple[str, ...] = ()


def second_opinions(predictor: CalibratedModel, image: LesionImage, assessment: Assessment) -> list[SecondOpinion]:
    """Opinions on the findings that have a region of their own, in the order of the Assessment, which is of `image`.

    Raises NotImplementedError for a preset without Qwen's own vision tower.
    """
    phrases = {state.key: state.descriptions[0] for state in EVIDENCE_STATES}
    reasoner = predictor.model.reasoner
    window = lesion_windows(predictor.model, predictor.transform, [image])[0]
    photo = predictor.transform(image.pixels, window).unsqueeze(0)
    own = reasoner.own_tokens(photo)
    if own is None:
        raise NotImplementedError("a second opinion needs Qwen's own vision tower, which this preset does not have")
    opinions = []
    for finding in assessment.findings:
        phrase = phrases.get(finding.key)
        if phrase is None:  # measured on the mask: its region is the lesion
            continue
        answer = reasoner.ask(own, QUESTION.format(phrase=phrase), MOST_TOKENS)
        opinions.append(compare(finding, parse(answer, photo.shape[-1]), window, photo.shape[-1]))
    return opinions


def compare(finding: Finding, parsed: Parsed, window: Window, side: int) -> SecondOpinion:
    """A finding's region against the boxes of an answer about the window, read `side` pixels wide."""
    boxes = tuple(to_photo(box, window, side) for box in parsed.boxes)
    if not boxes:
        return SecondOpinion(finding.ref, (), None, None, parsed.dropped)
    overlaps = box_iou(torch.tensor(boxes, dtype=torch.float64), torch.tensor([finding.region.box]).double())[:, 0]
    best = int(overlaps.argmax())
    iou = float(overlaps[best])
    x0, y0, x1, y1 = boxes[best]
    centre = ((x0 + x1) / 2, (y0 + y1) / 2)
    inside = any(
        cv2.pointPolygonTest(np.array(polygon, np.float32), centre, False) >= 0 for polygon in finding.region.polygons
    )
    return SecondOpinion(finding.ref, boxes, iou, inside and iou >= AGREES_FROM, parsed.dropped)


def to_photo(box: Box, window: Window, side: int) -> Box:
    """A box in pixels of the window, read `side` pixels wide, in those of the photo."""
    scale = window.side / side
    x0, y0, x1, y1 = box
    return (window.x + x0 * scale, window.y + y0 * scale, window.x + x1 * scale, window.y + y1 * scale)


# --- reading the answer -------------------------------------------------------------------------------------------


def parse(answer: str, side: int) -> Parsed:
    """The valid boxes of an answer about a photo of `side` x `side` pixels; never raises.

    Each `{...}` is read by itself, so that one that is broken or cut short takes no other with it. Corners may be
    swapped; a box that reaches a little past the photo is clipped. Dropped are points, boxes that are not four finite
    numbers, that lie elsewhere or are smaller than a pixel, and what is not JSON.
    """
    dropped = []
    if len(answer) > _MOST_CHARACTERS:
        dropped.append(f"what follows the first {_MOST_CHARACTERS} characters")
    boxes: list[Box] = []
    for entry in _objects(answer[:_MOST_CHARACTERS]):
        if isinstance(entry, str):
            dropped.append(entry)
            continue
        for given in _boxes_of(entry["bbox_2d"]):
            box = _sound(given, side)
            if isinstance(box, str):
                dropped.append(box)
            elif len(boxes) == _MOST_BOXES:
                dropped.append(f"boxes after the first {_MOST_BOXES}")
            elif box not in boxes:
                boxes.append(box)
    if not boxes and not dropped:
        dropped.append("an answer without a box")
    return Parsed(tuple(boxes), tuple(dict.fromkeys(dropped)))


def _objects(text: str) -> Iterator[dict[str, Any] | str]:
    """The innermost objects with a `bbox_2d`, and in words what of the others was meant to be one."""
    for match in _OBJECT.finditer(text):
        whole = match.group()
        value = _value(whole) if match.group(1) else None
        if isinstance(value, dict) and "bbox_2d" in value:
            yield value
        elif isinstance(value, dict):
            yield "a point" if "point_2d" in value else "an object without bbox_2d"
        elif not match.group(1) and (salvaged := _CUT_SHORT.match(whole)):
            yield {"bbox_2d": _value(salvaged.group(1))}
        else:
            yield "an object that is not JSON" if match.group(1) else _CUT


def _value(text: str) -> Any:
    """Of JSON, or of the same in single quotes; None where it is neither."""
    for form in (text, text.replace("'", '"')):
        try:
            return json.loads(form)
        except (ValueError, RecursionError):
            continue
    return None


def _boxes_of(given: Any) -> Sequence[Any]:
    """A single box, or a list of them."""
    nested = isinstance(given, (list, tuple)) and bool(given) and all(isinstance(g, (list, tuple)) for g in given)
    return given if nested else [given]


def _sound(given: Any, side: int) -> Box | str:
    """The box, its corners in order and within the photo; else what is wrong with it."""
    if not isinstance(given, (list, tuple)) or len(given) != 4:
        return "a box that is not four numbers"
    try:
        numbers = [float(v) for v in given if not isinstance(v, bool) and len(str(v)) < 40]
    except (TypeError, ValueError, OverflowError):
        return "a box that is not four numbers"
    if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
        return "a box that is not four finite numbers"
    (x0, x1), (y0, y1) = sorted(numbers[::2]), sorted(numbers[1::2])
    if min(x0, y0) < -_MARGIN or max(x1, y1) > side + _MARGIN:
        return "a box that reaches beyond the photo"
    x0, y0, x1, y1 = (min(max(v, 0.0), float(side)) for v in (x0, y0, x1, y1))
    if x1 - x0 < 1 or y1 - y0 < 1:
        return "a box smaller than a pixel"
    return (x0, y0, x1, y1)
