"""Pictures of an Assessment: numbered regions over the photo, and a heat map. Pure functions, numpy and OpenCV."""

from __future__ import annotations

import cv2
import matplotlib
import numpy as np

from skinclip.assessment import Assessment, Polygon

# Okabe & Ito (2008): told apart by colour-blind readers; numbers stand beside the colours all the same.
REGION_COLOURS: tuple[tuple[int, int, int], ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (255, 255, 255),
    (120, 120, 120),
)
_OUTLINE = (255, 255, 255)


def colour_of(index: int) -> tuple[int, int, int]:
    """The RGB colour of finding number `index` (from 0)."""
    return REGION_COLOURS[index % len(REGION_COLOURS)]


def hex_colour(index: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour_of(index))


def region_overlay(pixels: np.ndarray, assessment: Assessment, only: str | None = None) -> np.ndarray:
    """The photo with the lesion's outline and each finding's region, numbered.

    Args:
        pixels: uint8 [H, W, 3], the assessed photo or a scaled copy of it.
        only: a reference ("r1") to show alone.

    Returns:
        uint8 [H, W, 3].
    """
    scale = pixels.shape[1] / assessment.photo.width
    out = np.ascontiguousarray(pixels.copy())
    thick = max(2, round(min(out.shape[:2]) / 220))
    _dashed(out, assessment.lesion.polygons, scale, max(1, thick - 1))
    lesion = assessment.lesion.polygons
    taken: list[tuple[int, int]] = []
    for i, finding in enumerate(assessment.findings):
        if only is not None and finding.ref != only:
            continue
        outlines = [_points(p, scale) for p in finding.region.polygons]
        # a finding about the whole lesion (shape, border, colour) is outlined only when asked for
        if finding.region.polygons == lesion and only is None:
            continue
        if finding.region.polygons != lesion:
            tint = out.copy()
            cv2.fillPoly(tint, outlines, colour_of(i))
            out = cv2.addWeighted(tint, 0.22, out, 0.78, 0)
        cv2.polylines(out, outlines, True, (0, 0, 0), thick + 2, cv2.LINE_AA)
        cv2.polylines(out, outlines, True, colour_of(i), thick, cv2.LINE_AA)
        if outlines:
            _badge(out, finding.ref[1:], outlines[0], colour_of(i), taken)
    return out


def heatmap_overlay(pixels: np.ndarray, heat: np.ndarray, alpha: float = 0.55) -> np.ndarray:
    """The photo under a heat map.

    Args:
        pixels: uint8 [H, W, 3].
        heat: [h, w] in 0..1, resized to the photo.
        alpha: how much of the map shows where it is strongest.
    """
    heat = cv2.resize(heat.astype(np.float32), (pixels.shape[1], pixels.shape[0]), interpolation=cv2.INTER_LINEAR)
    colours = (matplotlib.colormaps["inferno"](heat)[..., :3] * 255).astype(np.float32)
    weight = (alpha * heat.clip(0, 1) ** 0.7)[..., None]
    return (pixels * (1 - weight) + colours * weight).round().astype(np.uint8)


def _points(polygon: Polygon, scale: float) -> np.ndarray:
    return np.round(np.asarray(polygon, np.float64) * scale).astype(np.int32).reshape(-1, 1, 2)


def _dashed(out: np.ndarray, polygons: tuple[Polygon, ...], scale: float, thick: int) -> None:
    """A dashed line: the lesion's border is context, the findings are what counts."""
    step = max(6, out.shape[1] // 60)
    for polygon in polygons:
        ring = np.vstack([np.asarray(polygon, np.float64), np.asarray(polygon[:1], np.float64)]) * scale
        lengths = np.hypot(*np.diff(ring, axis=0).T)
        along = np.concatenate([[0], np.cumsum(lengths)])
        for start in np.arange(0, along[-1], 2 * step):
            at = np.linspace(start, min(start + step, along[-1]), 6)
            dash = np.stack([np.interp(at, along, ring[:, k]) for k in (0, 1)], 1).round().astype(np.int32)
            cv2.polylines(out, [dash.reshape(-1, 1, 2)], False, (0, 0, 0), thick + 1, cv2.LINE_AA)
            cv2.polylines(out, [dash.reshape(-1, 1, 2)], False, _OUTLINE, thick, cv2.LINE_AA)


def _badge(
    out: np.ndarray, text: str, outline: np.ndarray, colour: tuple[int, int, int], taken: list[tuple[int, int]]
) -> None:
    """A numbered disc at the outline's top, moved along it until it is clear of other badges and inside the photo."""
    radius = max(9, min(out.shape[:2]) // 30)
    ring = outline[:, 0]
    candidates = ring[np.argsort(ring[:, 1])]
    inside = candidates.clip([radius + 1, radius + 1], [out.shape[1] - radius - 2, out.shape[0] - radius - 2])
    place = next(
        (p for p in inside if all(np.hypot(*(p - t)) > 2.2 * radius for t in np.array(taken).reshape(-1, 2))), inside[0]
    )
    x, y = int(place[0]), int(place[1])
    taken.append((x, y))
    cv2.circle(out, (x, y), radius + 1, (0, 0, 0), -1, cv2.LINE_AA)
    cv2.circle(out, (x, y), radius, colour, -1, cv2.LINE_AA)
    size = radius / 16
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 2)
    ink = (0, 0, 0) if sum(colour) > 330 else (255, 255, 255)
    cv2.putText(out, text, (x - width // 2, y + height // 2), cv2.FONT_HERSHEY_SIMPLEX, size, ink, 2, cv2.LINE_AA)
