"""From an evidence map to outlines on the photo: the region that a cited finding points at, and the lesion.

Maps and masks cover the model's window, a rectangle of the photo given by its `size` and the `offset` of its top left
corner. Coordinates that come out are continuous photo pixels: pixel (0, 0) covers the square from (0, 0) to (1, 1),
so that a box around everything is (0, 0, width, height). All thresholds are shares of the map, the lesion or the
window, never pixels of the photo: the same photo in another size gives the same outlines, scaled.
"""

from __future__ import annotations

import cv2
import numpy as np

from skinclip.core.assessment import Box, Lesion, Polygon, Region

GRID = 160  # least side of the grid on which a region is cut out
START_SHARE = 0.5  # of the map's range inside the lesion: a region holds at least that much evidence
MIN_SPECK = 0.05  # smaller components, as a share of the region, are noise
MIN_LESION_PART = 0.10  # of the lesion's largest component; smaller ones are noise
_FINE_SIDE = 640  # outlines are taken on a mask enlarged up to this side, at most 4 times
_TOLERANCE = 0.005  # of the mask's longer side: how far a simplified outline may stray


def region_from_map(
    evidence: np.ndarray,
    lesion: np.ndarray,
    size: tuple[float, float],
    offset: tuple[float, float] = (0.0, 0.0),
    max_share: float = 0.4,
    photo_size: tuple[int, int] | None = None,
) -> Region | None:
    """The part of the lesion where a map is highest.

    The map is enlarged bilinearly and evaluated inside the lesion only. The region is where it exceeds the middle of
    its range there; if that is more than `max_share` of the lesion, only as many of the highest places as fit. Holes
    are filled (an outline cannot show them) and count; components below `MIN_SPECK` of the region are dropped.

    Args:
        evidence: [h, w], any scale, higher is more.
        lesion: [m, m] bool, or float with the lesion above 0.5; the same window as `evidence`, another grid.
        size, offset: (height, width) of the window and (x, y) of its corner, in photo pixels.
        max_share: of the lesion's area that the region covers at most.
        photo_size: (height, width) of the photo where the window reaches beyond it; outlines are clipped to it.

    Returns:
        None where there is no lesion or the map is flat or not finite inside it: then nothing is pointed at.
    """
    inside = _lesion_grid(lesion)  # [g, g'] bool
    values = cv2.resize(evidence.astype(np.float32), inside.shape[::-1], interpolation=cv2.INTER_LINEAR)
    if not inside.any() or not np.isfinite(values[inside]).all():
        return None
    low, high = float(values[inside].min()), float(values[inside].max())
    if high - low <= 1e-6 * max(abs(low), abs(high), 1e-6):
        return None
    start = inside & (values >= low + START_SHARE * (high - low))
    region = _highest(values, start, inside, int(max_share * np.count_nonzero(inside)))
    outlines = _to_photo(mask_polygons(region), inside.shape, size, offset, photo_size)
    return Region(_box(outlines), outlines) if outlines else None


def lesion_region(
    mask: np.ndarray,
    size: tuple[float, float],
    offset: tuple[float, float] = (0.0, 0.0),
    photo_size: tuple[int, int] | None = None,
) -> Lesion:
    """The lesion's outlines: its largest component and those above `MIN_LESION_PART` of it, holes filled.

    Args:
        mask: [m, m] bool, or float with the lesion above 0.5.
        size, offset: as for `region_from_map`.
        photo_size: (height, width) of the photo; the window is the whole photo where it is not given.
    """
    grid = _lesion_grid(mask)
    outlines = _to_photo(mask_polygons(grid), grid.shape, size, offset, photo_size)
    if not outlines:
        return Lesion(None, (), 0.0)
    height, width = photo_size or size
    covered = np.count_nonzero(grid) / grid.size * size[0] * size[1]
    return Lesion(_box(outlines), outlines, round(min(covered / (height * width), 1.0), 4))


def mask_polygons(mask: np.ndarray) -> tuple[Polygon, ...]:
    """Simplified outlines of a mask [h, w], largest first, in the mask's own continuous coordinates; holes are lost."""
    longest = max(mask.shape)
    factor = int(np.clip(_FINE_SIDE // longest, 1, 4))
    fine: np.ndarray = mask.astype(np.float32)
    if factor > 1:  # pixel centres become pixel squares, and steps on diagonals are smoothed
        fine = cv2.resize(fine, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    outlines, _ = cv2.findContours((fine > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    polygons = []
    for outline in sorted(outlines, key=cv2.contourArea, reverse=True):
        simple = cv2.approxPolyDP(outline, _TOLERANCE * longest * factor, closed=True)
        points = (simple if len(simple) > 2 else outline)[:, 0]  # [n, 2] centres of fine pixels
        if len(points) > 2:
            polygons.append(tuple((float(x), float(y)) for x, y in (points + 0.5) / factor))
    return tuple(polygons)


def _lesion_grid(lesion: np.ndarray) -> np.ndarray:
    """The lesion, bool, on a grid with a longer side of at least `GRID`, without specks and holes."""
    scale = max(1.0, GRID / max(lesion.shape))
    soft: np.ndarray = lesion.astype(np.float32)
    if scale > 1:
        shape = (round(lesion.shape[1] * scale), round(lesion.shape[0] * scale))
        soft = cv2.resize(soft, shape, interpolation=cv2.INTER_LINEAR)
    grid = soft > 0.5
    sizes = _component_sizes(grid)
    return _filled(_without_small(grid, MIN_LESION_PART * max(sizes, default=0)))


def _highest(values: np.ndarray, start: np.ndarray, inside: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` pixels of `start`, those with the highest values, cleaned; bool as `start`.

    Equal values (a saturated map) are taken from the middle of `start` outwards. Filling holes can exceed the limit;
    then fewer are taken.
    """
    rows, cols = np.nonzero(start)
    depth = cv2.distanceTransform(start.astype(np.uint8), cv2.DIST_L2, 3)
    order = np.lexsort((-depth[rows, cols], -values[rows, cols]))
    take = max(1, min(limit, len(order)))
    while True:
        region = np.zeros_like(start)
        region[rows[order[:take]], cols[order[:take]]] = True
        region = _filled(_without_small(region, MIN_SPECK * take)) & inside
        if take == 1 or np.count_nonzero(region) <= limit:
            return region
        take = max(1, int(take * 0.9))


def _component_sizes(mask: np.ndarray) -> list[int]:
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return [int(row[cv2.CC_STAT_AREA]) for row in stats[1:]]


def _without_small(mask: np.ndarray, least: float) -> np.ndarray:
    """The mask without components below `least` pixels; the largest always stays."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA].astype(float)
    areas[0] = 0  # the background
    keep = areas >= min(least, areas.max())
    keep[0] = False
    return keep[labels]


def _filled(mask: np.ndarray) -> np.ndarray:
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(filled, outlines, -1, 1, cv2.FILLED)
    return filled > 0


def _to_photo(
    polygons: tuple[Polygon, ...],
    grid: tuple[int, ...],
    size: tuple[float, float],
    offset: tuple[float, float],
    photo_size: tuple[int, int] | None,
) -> tuple[Polygon, ...]:
    """Outlines of the window's grid in photo pixels, to a tenth of a pixel."""
    scale = np.array([size[1] / grid[1], size[0] / grid[0]])
    moved = []
    for polygon in polygons:
        points = np.array(polygon) * scale + np.array(offset)
        if photo_size is not None:
            points = np.clip(points, 0, np.array(photo_size[::-1], float))
        points = np.round(points, 1)
        if np.ptp(points, axis=0).all():  # one that lies wholly beyond the photo has collapsed
            moved.append(tuple((float(x), float(y)) for x, y in points))
    return tuple(moved)


def _box(polygons: tuple[Polygon, ...]) -> Box:
    points = np.concatenate([np.array(p) for p in polygons])
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)
