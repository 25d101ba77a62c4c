"""Does the answer depend on one region more than on any other places of the lesion? Measured by taking them out.

Each cited region is taken out of the photo exactly as "What would change this answer?" does it. The one with the
largest loss is compared with random places of the lesion as large, taken out alike. Its loss counts only where it
exceeds what random places take away: the bound is a prediction limit for one more random region (Student's t),
corrected for the choice among all cited regions (Bonferroni). A loss that a reader would not notice does not count
either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtrit

from skinclip.core.assessment import Dependence
from skinclip.explain.cited import cited_regions
from skinclip.explain.counterfactual import region_mask, window_pixels, without_places
from skinclip.explain.faithfulness import random_region
from skinclip.explain.subject import Subject

RANDOM_REGIONS = 8
LEVEL = 0.05  # that chance alone would name a region, over all regions of a photo
LEAST_LOSS = 0.05  # of probability: less is no dependence, however surely it was measured


def dependence(subject: Subject, effects: Mapping[str, float]) -> Dependence | None:
    """The dependence of the answer on the region with the largest loss; None where no region has an effect.

    Args:
        effects: reference of a finding -> effect of its region, as `cited.cited_effects` gives them.
    """
    if not effects or max(effects.values()) <= 0:
        return None
    before = float(subject.output.calibrated.probabilities[0, subject.target])
    ref, after = _strongest(subject, list(effects))
    after_random = _without_random(subject, ref)
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


def _strongest(subject: Subject, refs: Sequence[str]) -> tuple[str, float]:
    """The finding of `refs` without whose region the diagnosis is least probable, and that probability."""
    window = subject.window
    pixels = window_pixels(subject.image, window)
    regions = {f.ref: f.region for f in subject.findings}
    corner, scale = (window.x, window.y), len(pixels) / window.side
    masks = np.stack([region_mask(regions[ref], len(pixels), corner, scale) for ref in refs])
    after = _probabilities(subject, without_places(pixels, masks))
    strongest = int(after.argmin())
    return refs[strongest], float(after[strongest])


def _without_random(subject: Subject, ref: str) -> np.ndarray:
    """[n] probability of the diagnosis without random places as large as the region of the finding `ref`."""
    rng, area = subject.rng(), int(np.count_nonzero(cited_regions(subject)[ref]))
    places = np.stack([random_region(subject.lesion, area, rng) for _ in range(RANDOM_REGIONS)])
    return _probabilities(subject, without_places(window_pixels(subject.image, subject.window), places))


def _probabilities(subject: Subject, photos: Sequence[np.ndarray]) -> np.ndarray:
    """[n] calibrated probability of the diagnosis for windows, by the whole path that an Assessment takes."""
    size = min(len(photos), subject.predictor.model.config.batch)
    parts = []
    for start in range(0, len(photos), size):
        some = photos[start : start + size]
        answers = subject.predictor.forward_changed(some, subject.context, subject.output).calibrated
        parts.append(answers.probabilities[:, subject.target])
    return np.concatenate(parts)
