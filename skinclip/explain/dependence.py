"""Does the answer depend on one region more than on any other places of the lesion? Measured by taking them out.

The region with the largest effect is taken out of the photo exactly as "What would change this answer?" does it, and so
are random places of the lesion as large. Its loss counts only where it exceeds what random places take away: the bound
is a prediction limit for one more random region (Student's t), corrected for the choice among all cited regions
(Bonferroni). A loss that a reader would not notice does not count either.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.special import stdtrit

from skinclip.core.assessment import Dependence
from skinclip.explain.cited import cited_regions
from skinclip.explain.counterfactual import region_mask, window_pixels, without_places
from skinclip.explain.faithfulness import random_region
from skinclip.explain.subject import Subject
from skinclip.imaging.photo import from_array

RANDOM_REGIONS = 8
LEVEL = 0.05  # that chance alone would name a region, over all regions of a photo
LEAST_LOSS = 0.05  # of probability: less is no dependence, however surely it was measured


def dependence(subject: Subject, effects: Mapping[str, float]) -> Dependence | None:
    """The dependence of the answer on the region with the largest effect; None where no region has one.

    Args:
        effects: reference of a finding -> effect of its region, as `cited.cited_effects` gives them.
    """
    if not effects or max(effects.values()) <= 0:
        return None
    ref = max(effects, key=effects.__getitem__)
    before = float(subject.output.calibrated.probabilities[0, subject.target])
    after, after_random = _answers(subject, ref)
    losses = before - after_random
    bound = loss_bound(losses, regions=len(effects))
    loss = before - after
    return Dependence(ref, before, after, float(after_random.mean()), bool(loss >= LEAST_LOSS and loss > bound))


def loss_bound(losses: np.ndarray, regions: int) -> float:
    """The loss that one more random region exceeds with a probability of `LEVEL` / `regions`.

    Args:
        losses: [n] those without random regions, n at least 2.
        regions: among how many the region under test was chosen.
    """
    n = len(losses)
    quantile = float(stdtrit(n - 1, 1 - LEVEL / max(1, regions)))
    return float(losses.mean() + quantile * losses.std(ddof=1) * np.sqrt(1 + 1 / n))


def _answers(subject: Subject, ref: str) -> tuple[float, np.ndarray]:
    """Probability of the diagnosis without the region of the finding `ref`, and without random places [n] as large."""
    window, rng = subject.window, subject.rng()
    pixels = window_pixels(subject.image, window)
    finding = next(f for f in subject.findings if f.ref == ref)
    mask = region_mask(finding.region, len(pixels), (window.x, window.y), len(pixels) / window.side)
    area = int(np.count_nonzero(cited_regions(subject)[ref]))
    random = np.stack([random_region(subject.lesion, area, rng) for _ in range(RANDOM_REGIONS)])
    changed = [*without_places(pixels, mask[None]), *without_places(pixels, random)]
    size = min(len(changed), subject.predictor.model.config.batch)
    p = [
        row[subject.target]
        for start in range(0, len(changed), size)
        for row in _probabilities(subject, changed[start : start + size])
    ]
    return float(p[0]), np.array(p[1:])


def _probabilities(subject: Subject, photos: list[np.ndarray]) -> np.ndarray:
    """[n, C] calibrated probabilities of windows, by the whole path that an Assessment takes."""
    images = [from_array(photo) for photo in photos]
    return subject.predictor.forward(images, [subject.context] * len(images)).calibrated.probabilities
