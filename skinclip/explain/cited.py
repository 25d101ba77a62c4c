"""The regions of the cited findings, and what each does to the answer."""

from __future__ import annotations

import numpy as np

from skinclip.core.vocabulary import EVIDENCE_STATES
from skinclip.explain.counterfactual import region_mask
from skinclip.explain.effects import effects
from skinclip.explain.subject import GRID, Subject

CITED_SHARE = 0.4  # of the lesion, the most that cited regions are joined to


def cited_regions(subject: Subject) -> dict[str, np.ndarray]:
    """Reference -> bool [GRID, GRID]: where the cited criteria were seen, as a reader sees it, the most certain first.

    Findings that were measured on the mask have the lesion itself as their region and are left out.
    """
    window, located = subject.window, {state.key for state in EVIDENCE_STATES}
    regions = {
        f.ref: region_mask(f.region, GRID, (window.x, window.y), GRID / window.side) & subject.lesion
        for f in subject.findings
        if f.key in located
    }
    return {ref: region for ref, region in regions.items() if region.any()}


def cited_effects(subject: Subject) -> dict[str, float]:
    """Reference -> `effects` of each of the `cited_regions`, by the same measure on every photo."""
    regions = cited_regions(subject)
    if not regions:
        return {}
    drops = effects(subject.answer, subject.photo, np.stack(list(regions.values())), subject.lesion)
    return dict(zip(regions, drops.tolist(), strict=True))


def joined(regions: list[np.ndarray], lesion: np.ndarray) -> np.ndarray:
    """bool [g, g]: at least one region, and of those after the first what fits into `CITED_SHARE` of the lesion."""
    room = CITED_SHARE * np.count_nonzero(lesion)
    whole = regions[0].copy()
    for region in regions[1:]:
        if np.count_nonzero(whole | region) <= room:
            whole |= region
    return whole
