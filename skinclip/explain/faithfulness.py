"""Is an explanation true? Measures of a map against the lesion, and of what the answer does when the map is followed.

All maps are on one grid ([g, g], see `methods.on_grid`), so that no method wins by its resolution. What the answer does
is measured inside the lesion only: outside of it any map that has found the lesion at all would win.

    energy, pointing, best_iou    where the map lies (Wang et al. 2020; Zhang et al. 2018)
    deletion, insertion           the answer's probability as places go or come in the map's order (Petsiuk et al. 2018)
    removal                       the drop when a region is taken out, against random regions of the same area
    rank_correlation, ssim        how alike two maps are (sanity check of Adebayo et al. 2018)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from skinclip.explain.saliency import blurred

STEPS = 8  # how many times places go or come; the area under the curve hardly changes with more
Answer = Callable[[Tensor], np.ndarray]  # photos [B, 3, side, side] -> probability of the diagnosis explained, [B]


@dataclass(frozen=True)
class PerturbationCurves:
    """The answer as a map is followed, from nothing of the lesion to all of it, [STEPS + 1] each.

    Attributes:
        deleting: places taken out, highest first; the sooner the answer falls, the better.
        inserting: places put back, highest first.
    """

    deleting: np.ndarray
    inserting: np.ndarray

    @property
    def deletion(self) -> float:
        """Area under the curve, 0-1; less is better."""
        return _area(self.deleting)

    @property
    def insertion(self) -> float:
        """Area under the curve, 0-1; more is better."""
        return _area(self.inserting)


@dataclass(frozen=True)
class RemovalEffect:
    """Drops of the probability without a region, and without random ones of the same area."""

    drop: float
    random: float

    @property
    def more_than_random(self) -> bool:
        return self.drop > self.random


def energy(heat: np.ndarray, lesion: np.ndarray) -> float:
    """Share of a map's mass [g, g], not negative, that lies in the lesion [g, g] bool; NaN for an empty map."""
    total = float(heat.sum())
    return float(heat[lesion].sum()) / total if total > 0 else float("nan")


def pointing(heat: np.ndarray, lesion: np.ndarray) -> bool:
    """True where the map's highest place lies in the lesion; of several equal ones, where most do."""
    top = heat >= heat.max()
    return bool(lesion[top].mean() > 0.5)


def best_iou(heat: np.ndarray, lesion: np.ndarray, thresholds: int = 40) -> float:
    """IoU of the lesion and the map above its best threshold."""
    best = 0.0
    for threshold in np.linspace(heat.min(), heat.max(), thresholds, endpoint=False):
        above = heat > threshold
        union = np.count_nonzero(above | lesion)
        best = max(best, np.count_nonzero(above & lesion) / union if union else 0.0)
    return best


def perturbation_curves(answer: Answer, photo: Tensor, heat: np.ndarray, lesion: np.ndarray) -> PerturbationCurves:
    """Takes the lesion's places out of a photo, and puts them back, from the map's highest to its lowest.

    What is out is blurred: its colour stays, its structures go.

    Args:
        photo: [1, 3, side, side].
        heat: [g, g]; only its order inside the lesion counts.
        lesion: [g, g] bool, not empty.
    """
    order = np.argsort(-heat[lesion], kind="stable")
    rank = np.empty(len(order))
    rank[order] = np.arange(len(order))
    ranks = np.full(lesion.shape, np.inf)
    ranks[lesion] = rank
    taken = [ranks < len(order) * (k / STEPS) for k in range(STEPS + 1)]  # none to all of the lesion
    out = np.stack([*taken, *(lesion & ~t for t in taken)])
    p = answer(without(photo, out))
    return PerturbationCurves(p[: STEPS + 1], p[STEPS + 1 :])


def removal_effect(
    answer: Answer, photo: Tensor, region: np.ndarray, lesion: np.ndarray, rng: np.random.Generator, others: int = 5
) -> RemovalEffect:
    """The drop of the answer when `region` [g, g] bool is blurred, and the mean drop for `others` random regions."""
    random = [random_region(lesion, int(region.sum()), rng) for _ in range(others)]
    p = answer(without(photo, np.stack([np.zeros_like(region), region, *random])))
    return RemovalEffect(float(p[0] - p[1]), float(p[0] - p[2:].mean()))


def top_region(heat: np.ndarray, lesion: np.ndarray, share: float) -> np.ndarray:
    """bool [g, g]: the highest places of a map inside the lesion, `share` of its area, at least one."""
    order = np.argsort(-np.where(lesion, heat, -np.inf), axis=None, kind="stable")
    region = np.zeros(lesion.size, bool)
    region[order[: max(1, round(share * np.count_nonzero(lesion)))]] = True
    return region.reshape(lesion.shape)


def random_region(lesion: np.ndarray, area: int, rng: np.random.Generator) -> np.ndarray:
    """bool [g, g]: `area` places of the lesion in a few blobs, as the regions of findings are."""
    noise = cv2.resize(rng.random((6, 6)).astype(np.float32), lesion.shape[::-1], interpolation=cv2.INTER_CUBIC)
    inside = np.flatnonzero(lesion)
    chosen = inside[np.argsort(-noise.flat[inside], kind="stable")[:area]]
    region = np.zeros(lesion.size, bool)
    region[chosen] = True
    return region.reshape(lesion.shape)


def without(photo: Tensor, out: np.ndarray) -> Tensor:
    """[M, 3, side, side]: the photo [1, 3, side, side] with each mask of `out` [M, g, g] blurred, softly at its rim."""
    side = photo.shape[-1]
    masks = torch.from_numpy(out.astype(np.float32)).unsqueeze(1)
    masks = torch.nn.functional.interpolate(masks, (side, side), mode="bilinear", align_corners=False)
    return photo * (1 - masks) + blurred(photo) * masks


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's of two maps [g, g]; NaN where one is flat."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    from scipy.stats import spearmanr  # the page never needs it

    return float(spearmanr(a.ravel(), b.ravel()).statistic)


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity of two maps [g, g] in 0..1."""
    x, y = (torch.from_numpy(m.astype(np.float64))[None, None] for m in (a, b))
    from torchmetrics.functional.image import structural_similarity_index_measure  # nor this

    similarity = structural_similarity_index_measure(x, y, data_range=1.0)
    assert isinstance(similarity, torch.Tensor)
    return float(similarity)


def _area(p: np.ndarray) -> float:
    return float(np.trapezoid(p, dx=1 / (len(p) - 1)))
