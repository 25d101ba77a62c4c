"""The findings of a photo: criteria that pass their threshold, then what is measured on the lesion's outline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from torch import Tensor

from skinclip.calibration.calibrated_model import CalibratedOutput
from skinclip.core.assessment import Finding, Lesion, Region
from skinclip.core.vocabulary import CRITERIA, EVIDENCE_STATES, MAX_FINDINGS, STATE_BY_KEY
from skinclip.explain.regions import lesion_region, region_from_map
from skinclip.imaging.abcd_features import measure_lesion, measured_findings
from skinclip.imaging.photo import LesionImage
from skinclip.imaging.transform import Window
from skinclip.model.criteria import cited_state, criterion_log_probs
from skinclip.model.inference import ForwardOutput

DERMOSCOPY = "dermoscopy"  # the kind of photo that the criteria are of
OUTLINE_SIDE = 160  # grid on which it is decided whether the outline meets the photo's border
MEASURE_SIDE = 224  # pixels at which shape, border and colour are measured
Located = tuple[str, float, Region]  # a state's key, its score and where it is


def lesion_of(image: LesionImage, output: ForwardOutput) -> Lesion:
    """The outlines of the lesion in `image`, the first photo of `output`."""
    window, mask = output.windows[0], output.evidence.mask[0].numpy()
    return lesion_region(mask, (window.side, window.side), (window.x, window.y), (image.height, image.width))


def outlined_places(lesion: Lesion, image: LesionImage) -> np.ndarray:
    """bool [h, w] of the whole photo, its longer side `OUTLINE_SIDE`: what the lesion's outlines enclose."""
    scale = OUTLINE_SIDE / max(image.height, image.width)
    shape = (max(1, round(image.height * scale)), max(1, round(image.width * scale)))
    places = np.zeros(shape, np.uint8)
    outlines = [np.floor(np.array(p) * scale).astype(np.int32) for p in lesion.polygons]
    limits = np.array(shape[::-1]) - 1
    cv2.fillPoly(places, [np.clip(outline, 0, limits) for outline in outlines], 1)
    return places > 0


def asserted(criteria: Sequence[str], kind: str | None) -> tuple[str, ...]:
    """The `criteria` that may be asserted on a photo of that kind: they are of dermoscopy, none of any other photo.

    Args:
        kind: as in `PhotoInfo`; None where it is not known, which is taken for dermoscopy.
    """
    return tuple(criteria) if kind in (None, DERMOSCOPY) else ()


def findings_of(
    image: LesionImage,
    output: CalibratedOutput,
    lesion: Lesion,
    thresholds: Mapping[str, float],
    kind: str | None = None,
) -> list[Finding]:
    """The findings in `image`, the first photo of `output`; none where no lesion was found.

    On a photo of another kind than dermoscopy they are those measured on the lesion's outline alone.

    Args:
        lesion: as `lesion_of` gives it.
        thresholds: criterion -> probability of its presence from which it is cited; others are not known.
    """
    if lesion.box is None:
        return []
    located = _criteria(output, {code: thresholds[code] for code in asserted(list(thresholds), kind)})
    located += _measured(image, output, Region(lesion.box, lesion.polygons))
    return [
        Finding(f"r{i + 1}", STATE_BY_KEY[key].criterion, STATE_BY_KEY[key].code, float(score), region)
        for i, (key, score, region) in enumerate(located[:MAX_FINDINGS])
    ]


def _criteria(output: CalibratedOutput, thresholds: Mapping[str, float]) -> list[Located]:
    """Criteria that pass their threshold, in their most probable state, the most certain first."""
    window, evidence, mask = output.windows[0], output.evidence, output.evidence.mask[0].numpy()
    size, offset = (window.side, window.side), (window.x, window.y)
    located: list[Located] = []
    for criterion, row in zip(CRITERIA, criterion_log_probs(output.criterion_scores[:1]), strict=True):
        p = row[0].exp().numpy()
        number = int(cited_state(p, thresholds[criterion.code])) if criterion.code in thresholds else 0
        if number:
            state = criterion.states[number - 1]
            region = region_from_map(evidence.maps[0, EVIDENCE_STATES.index(state)].numpy(), mask, size, offset)
            if region is not None:
                located.append((state.key, float(p[number]), region))
    return sorted(located, key=lambda one: -one[1])


def _measured(image: LesionImage, output: ForwardOutput, region: Region) -> list[Located]:
    """Shape, border and colour, measured on the mask; their region is the lesion itself."""
    window, mask = output.windows[0], output.evidence.mask[0].numpy()
    side = (MEASURE_SIDE, MEASURE_SIDE)
    small = cv2.resize(window.crop(image.pixels), side, interpolation=cv2.INTER_AREA)
    binary = cv2.resize(mask.astype(np.float32), side) > 0.5
    return [(key, score, region) for key, score in measured_findings(measure_lesion(small, binary))]


def photo_mask(mask_logits: Tensor, window: Window, height: int, width: int) -> np.ndarray:
    """The lesion mask [m, m] of a window as bool [height, width] of the whole photo."""
    soft = cv2.resize(mask_logits.sigmoid().numpy(), (window.side, window.side), interpolation=cv2.INTER_LINEAR)
    return window.place(soft > 0.5, height, width)
