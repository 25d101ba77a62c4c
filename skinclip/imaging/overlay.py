"""Pictures of an Assessment: numbered regions over the photo, and a heat map. Pure functions of arrays.

Thickness, dashes and badges follow the size of the picture, so that a 150 px and a 4000 px photo read alike. Every
line is cased in black (a black one in white): it stands out on pale skin and on a dark lesion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from skinclip.core.assessment import Assessment, Box, Finding

# Okabe & Ito (2008) and grey, distinguishable by colour-blind readers, the ones least like skin first. They repeat
# after nine; the numbers beside them never do.
REGION_COLOURS: tuple[tuple[int, int, int], ...] = (
    (86, 180, 233),
    (240, 228, 66),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (0, 114, 178),
    (213, 94, 0),
    (0, 0, 0),
    (153, 153, 153),
)
DRAWN_SIDE = 640  # px, at least: smaller photos are enlarged before lines and numbers are drawn on them
HEAT_COLOURS = "inferno"  # perceptually uniform, readable in grey

_TINT = 0.16  # how much of a region's colour lies on the photo inside it: structures must stay visible
_SHIFT = 4  # OpenCV draws at 1/16 pixel
_NEUTRAL = (255, 255, 255)


def colour_of(index: int) -> tuple[int, int, int]:
    """The RGB colour of finding number `index` (from 0)."""
    return REGION_COLOURS[index % len(REGION_COLOURS)]


def hex_colour(index: int) -> str:
    """The colour of finding number `index` as CSS writes it."""
    return "#{:02x}{:02x}{:02x}".format(*colour_of(index))


def ink_of(index: int) -> tuple[int, int, int]:
    """Black or white, whichever reads better on `colour_of(index)` (the larger contrast ratio of WCAG 2)."""
    linear = [(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for c in np.array(colour_of(index)) / 255]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else (255, 255, 255)


@dataclass(frozen=True)
class _Region:
    """A region to be drawn. The lesion as a whole is not tinted: its own colours are part of what it shows."""

    outlines: list[np.ndarray]  # fixed-point points
    colour: tuple[int, int, int]
    tinted: bool


@dataclass(frozen=True)
class _Badge:
    """A number to be drawn: where its finding would like it, best place first."""

    text: str
    index: int
    places: np.ndarray  # [n, 2] x, y


def region_overlay(pixels: np.ndarray, assessment: Assessment, only: str | None = None) -> np.ndarray:
    """The photo with the lesion's outline (dashed) and each finding's region (tinted, outlined, numbered).

    A finding about the lesion as a whole (shape, border, colour) has the lesion as its region: together with others
    it shows as a number on the lesion's outline, alone as the whole region.

    Args:
        pixels: uint8 [H, W, 3], the assessed photo or a scaled copy of it.
        only: a reference ("r1") to show alone.

    Returns:
        uint8 [H, W, 3].
    """
    out = np.ascontiguousarray(pixels).copy()
    scale = np.array([out.shape[1] / assessment.photo.width, out.shape[0] / assessment.photo.height])
    thick = max(1, round(min(out.shape[:2]) / 240))
    for polygon in assessment.lesion.polygons:
        _dashed(out, np.asarray(polygon, np.float64) * scale, thick)
    regions, badges = [], []
    for i, finding in enumerate(assessment.findings):
        outlines = [np.asarray(p, np.float64) * scale for p in finding.region.polygons if len(p) > 2]
        if not outlines or only not in (None, finding.ref):
            continue
        whole = _is_whole_lesion(finding, assessment)
        if only is not None or not whole:
            regions.append(_Region([_fixed(o) for o in outlines], colour_of(i), tinted=not whole))
        badges.append(_Badge(finding.ref[1:], i, _places(outlines, bottom=whole)))
    _draw_regions(out, regions, thick)
    return _draw_badges(out, badges)


def boxes_overlay(pixels: np.ndarray, assessment: Assessment, boxes: Mapping[str, Sequence[Box]]) -> np.ndarray:
    """`region_overlay` with boxes [x0, y0, x1, y1] in photo pixels, by reference, in the colours of the findings."""
    out = region_overlay(pixels, assessment).copy()
    scale = np.array([out.shape[1] / assessment.photo.width, out.shape[0] / assessment.photo.height] * 2)
    thick = max(2, round(min(out.shape[:2]) / 160))
    for i, finding in enumerate(assessment.findings):
        for box in boxes.get(finding.ref, ()):
            x0, y0, x1, y1 = (round(float(v)) for v in np.asarray(box) * scale)
            for colour, width in ((_casing(colour_of(i)), thick + 2), (colour_of(i), thick)):
                cv2.rectangle(out, (x0, y0), (x1, y1), colour, width)
    return out


def heatmap_overlay(pixels: np.ndarray, heat: np.ndarray, alpha: float = 0.6) -> np.ndarray:
    """The photo under a heat map; where the map is cold the photo stays as it is.

    Args:
        pixels: uint8 [H, W, 3].
        heat: [h, w] in 0..1, resized to the photo.
        alpha: how much of the map shows where it is strongest.

    Returns:
        uint8 [H, W, 3].
    """
    size = (pixels.shape[1], pixels.shape[0])
    colours = heat_rgba(cv2.resize(heat.astype(np.float32), size, interpolation=cv2.INTER_LINEAR))
    weight = alpha * colours[..., 3:]
    return (pixels * (1 - weight) + 255 * colours[..., :3] * weight).round().astype(np.uint8)


def heat_rgba(heat: np.ndarray) -> np.ndarray:
    """A map [h, w] in 0..1 -> float32 [h, w, 4] in 0..1: its colours, clear where it is cold."""
    heat = heat.astype(np.float32).clip(0, 1)
    colours = matplotlib.colormaps[HEAT_COLOURS](heat).astype(np.float32)
    colours[..., 3] = heat**0.7  # below 1: middling heat must not vanish
    return colours


def _is_whole_lesion(finding: Finding, assessment: Assessment) -> bool:
    return bool(assessment.lesion.polygons) and finding.region.polygons == assessment.lesion.polygons


def _fixed(outline: np.ndarray) -> np.ndarray:
    """Float outline [n, 2] -> OpenCV's fixed-point points."""
    return np.round(outline * (1 << _SHIFT)).astype(np.int32).reshape(-1, 1, 2)


def _draw_regions(out: np.ndarray, regions: list[_Region], thick: int) -> None:
    """All tints, then all lines: no region may hide the line of another."""
    for region in regions:
        if region.tinted:
            tint = out.copy()
            cv2.fillPoly(tint, region.outlines, region.colour, cv2.LINE_AA, _SHIFT)
            cv2.addWeighted(tint, _TINT, out, 1 - _TINT, 0, dst=out)
    for region in regions:
        cv2.polylines(out, region.outlines, True, _casing(region.colour), 2 * thick + 2, cv2.LINE_AA, _SHIFT)
        cv2.polylines(out, region.outlines, True, region.colour, 2 * thick, cv2.LINE_AA, _SHIFT)


def _casing(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    return (0, 0, 0) if any(colour) else (255, 255, 255)


def _dashed(out: np.ndarray, outline: np.ndarray, thick: int) -> None:
    """A thin dashed line: the lesion's border is context, the findings are what counts."""
    if len(outline) < 3:
        return
    ring = np.vstack([outline, outline[:1]])
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(ring, axis=0).T))])
    if along[-1] == 0:
        return
    count = max(4, round(along[-1] / (max(4, min(out.shape[:2]) / 40) * 2)))
    step = along[-1] / count  # a dash and its gap
    dashes = []
    for start in np.arange(count) * step:
        at = np.linspace(start, start + 0.55 * step, 6)
        dashes.append(_fixed(np.stack([np.interp(at, along, ring[:, k]) for k in (0, 1)], 1)))
    cv2.polylines(out, dashes, False, (0, 0, 0), thick + 2, cv2.LINE_AA, _SHIFT)
    cv2.polylines(out, dashes, False, _NEUTRAL, thick, cv2.LINE_AA, _SHIFT)


def _places(outlines: list[np.ndarray], bottom: bool) -> np.ndarray:
    """Places for a badge, [n, 2]: along the largest outline, from its top (or bottom) onwards."""
    largest = max(outlines, key=lambda o: cv2.contourArea(o.astype(np.float32)))
    ring = np.vstack([largest, largest[:1]])
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(ring, axis=0).T))])
    at = np.linspace(0, along[-1], 72, endpoint=False)
    points = np.stack([np.interp(at, along, ring[:, k]) for k in (0, 1)], 1)
    height = points[:, 1] if not bottom else -points[:, 1]
    return points[np.argsort(height, kind="stable")]


def _draw_badges(out: np.ndarray, badges: list[_Badge]) -> np.ndarray:
    """Numbered discs, inside the picture and clear of one another."""
    radius = max(8, round(min(out.shape[:2]) / 28))
    picture = Image.fromarray(out)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(round(radius * 1.35))
    disc = _disc(radius)
    taken: list[np.ndarray] = []
    for badge in badges:
        x, y = _free_place(badge.places, taken, radius, out.shape[1], out.shape[0])
        taken.append(np.array([x, y]))
        corner = (round(x) - disc.width // 2, round(y) - disc.height // 2)
        picture.paste(Image.new("RGB", disc.size, _casing(colour_of(badge.index))), corner, disc)
        inner = disc.resize((disc.width - 2, disc.height - 2))
        picture.paste(Image.new("RGB", inner.size, colour_of(badge.index)), (corner[0] + 1, corner[1] + 1), inner)
        draw.text((round(x), round(y)), badge.text, fill=ink_of(badge.index), font=font, anchor="mm")
    return np.asarray(picture)


def number_places(assessment: Assessment, radius: float) -> dict[str, tuple[float, float]]:
    """Reference -> centre of its number, in photo pixels: on the outline of its region, clear of one another."""
    taken: list[np.ndarray] = []
    centres = {}
    for finding in assessment.findings:
        outlines = [np.asarray(p, np.float64) for p in finding.region.polygons if len(p) > 2]
        if outlines:
            places = _places(outlines, bottom=_is_whole_lesion(finding, assessment))
            place = _free_place(places, taken, radius, assessment.photo.width, assessment.photo.height)
            taken.append(place)
            centres[finding.ref] = (float(place[0]), float(place[1]))
    return centres


def _disc(radius: int) -> Image.Image:
    """A smooth-edged disc as a mask; Pillow's own ellipse has jagged edges."""
    side = 2 * radius + 3
    big = Image.new("L", (4 * side, 4 * side), 0)
    ImageDraw.Draw(big).ellipse((2, 2, 4 * side - 3, 4 * side - 3), fill=255)
    return big.resize((side, side), Image.Resampling.LANCZOS)


def _free_place(places: np.ndarray, taken: list[np.ndarray], radius: float, width: int, height: int) -> np.ndarray:
    """The first place whose disc meets no other, else the one farthest from the others."""
    margin = radius + 2
    upper = [max(margin, width - margin), max(margin, height - margin)]
    inside = np.clip(places, [margin, margin], upper)
    if not taken:
        return inside[0]
    gaps = np.hypot(*(inside[:, None] - np.array(taken)[None]).transpose(2, 0, 1)).min(1)  # [n] to the nearest badge
    free = np.flatnonzero(gaps >= 2 * radius + 4)
    return inside[free[0]] if len(free) else inside[int(gaps.argmax())]
