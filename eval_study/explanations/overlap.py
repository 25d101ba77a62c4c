"""Maps against drawn regions: pooled average precision, pooled Jaccard, pointing and shares.

Pooled means that the places of all photos count as one set, those of photos without the attribute as well: a map that
is high where nothing was drawn pays for it. Every figure is a `Metric` of photos, so its interval is by photo.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skinclip.evaluation.metrics import Metric

BINS = 3000  # of a map's values, finest at the top: the order of the places decides, and of those the first ones most


def binned(values: Sequence[np.ndarray], drawn: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Counts [n, bins] of drawn places and of others by a map's value, in ascending order of the value.

    Bins are the values themselves where there are few; else they hold ever more places from the highest downwards.

    Args:
        values: n arrays, the map's values of a photo's places; -inf where the map does not reach.
        drawn: n bool arrays.
    """
    pooled = np.sort(np.concatenate(values))[::-1]
    ranks = np.unique(np.geomspace(1, max(1, len(pooled)), BINS).astype(int)) - 1 if len(pooled) > BINS else slice(None)
    edges = np.unique(pooled[ranks])
    bins = len(edges) + 1  # the first holds what lies below all edges
    places = [np.searchsorted(edges, v, side="right") for v in values]
    counted = [[np.bincount(p[which], minlength=bins) for which in (d, ~d)] for p, d in zip(places, drawn, strict=True)]
    counts = np.array(counted, dtype=np.float64).reshape(len(values), 2, bins)
    return counts[:, 0], counts[:, 1]


def average_precision(drawn: np.ndarray, others: np.ndarray) -> Metric:
    """Mean precision over the drawn places, as scikit-learn has it; of `binned` counts [n, bins], ties in one step."""

    def figure(weights: np.ndarray) -> np.ndarray:
        gained = (weights @ drawn)[:, ::-1]
        hits, false = gained.cumsum(1), (weights @ others)[:, ::-1].cumsum(1)
        return ratio((gained * ratio(hits, hits + false, 0.0)).sum(1), hits[:, -1])

    return figure


def pooled_ratio(parts: np.ndarray, wholes: np.ndarray) -> Metric:
    """Sum of `parts` [n] over sum of `wholes` [n]: pooled Jaccard of intersections and unions, or a base rate."""
    parts, wholes = np.asarray(parts, np.float64), np.asarray(wholes, np.float64)
    return lambda weights: ratio(weights @ parts, weights @ wholes)


def overlap(predicted: np.ndarray, drawn: np.ndarray) -> tuple[int, int]:
    """Places of the intersection and of the union of two bool masks."""
    return int(np.count_nonzero(predicted & drawn)), int(np.count_nonzero(predicted | drawn))


def best_threshold(values: np.ndarray, drawn: np.ndarray, missed: int = 0) -> float:
    """The value from which on places are predicted with the highest pooled Jaccard; inf where none was drawn.

    Args:
        values: [N] of all places that may be predicted.
        drawn: [N] bool.
        missed: drawn places that cannot be predicted.
    """
    if not drawn.any():
        return float("inf")
    order = np.argsort(-values, kind="stable")
    ordered, hits = values[order], drawn[order].cumsum()
    jaccard = hits / (np.arange(1, len(hits) + 1) + hits[-1] + missed - hits)
    last = np.append(ordered[1:] != ordered[:-1], True)  # places of one value are predicted together
    return float(ordered[np.where(last & np.isfinite(ordered), jaccard, -1.0).argmax()])


def pointing(heat: np.ndarray, inside: np.ndarray, drawn: np.ndarray) -> float:
    """Chance that a highest place of a map, of those `inside`, was drawn: 0 or 1 but for ties."""
    top = inside & (heat >= heat[inside].max())
    return float(drawn[top].mean())


def share_inside(region: np.ndarray, drawn: np.ndarray) -> float:
    """Share of a region that lies in the drawn one; NaN for an empty region."""
    size = np.count_nonzero(region)
    return np.count_nonzero(region & drawn) / size if size else float("nan")


def ratio(numerator: np.ndarray, denominator: np.ndarray, empty: float = float("nan")) -> np.ndarray:
    """Elementwise ratio, `empty` where there is nothing to divide by."""
    none = denominator == 0
    return np.where(none, empty, numerator / np.where(none, 1.0, denominator))
