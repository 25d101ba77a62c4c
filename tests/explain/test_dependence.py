"""An answer depends on a region only where taking it out does more than taking out random places as large."""

from __future__ import annotations

import numpy as np
import pytest

from skinclip.core.assessment import Context
from skinclip.explain import dependence as module
from skinclip.explain.cited import cited_effects
from skinclip.explain.counterfactual import without_region
from skinclip.explain.dependence import LEAST_LOSS, dependence, loss_bound
from skinclip.explain.subject import Subject
from skinclip.imaging.examples import draw
from skinclip.imaging.photo import from_array
from skinclip.pipeline.assessor import Assessor


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Assessor.load("mini").subject(from_array(draw("nevus", 4, (300, 300))), Context())


def test_the_loss_is_that_of_what_would_change_this_answer(subject: Subject) -> None:
    effects = cited_effects(subject)
    measured = dependence(subject, effects)
    assert measured is not None
    after = {}
    for finding in (f for f in subject.findings if f.ref in effects):
        changed = without_region(subject.predictor, subject.image, subject.context, subject.output, finding.region)
        after[finding.ref] = float(changed.calibrated.probabilities[0, subject.target])
    assert measured.after == pytest.approx(after[measured.ref], abs=1e-6)
    assert measured.after == pytest.approx(min(after.values()), abs=1e-6)  # no other region shown matters more
    assert measured.before == subject.output.calibrated.probabilities[0, subject.target]


@pytest.mark.parametrize(
    ("after", "random", "beyond"),
    [
        (0.85, np.full(8, 0.86), False),  # the fault that was reported: 86 to 85 %
        (0.60, np.linspace(0.55, 0.75, 8), False),  # random places do as much
        (0.60, np.linspace(0.82, 0.88, 8), True),
    ],
)
def test_only_a_loss_beyond_that_of_random_places_counts(subject: Subject, monkeypatch, after, random, beyond) -> None:
    before = float(subject.output.calibrated.probabilities[0, subject.target])
    monkeypatch.setattr(module, "_strongest", lambda *_: ("r1", before - 0.86 + after))
    monkeypatch.setattr(module, "_without_random", lambda *_: before - 0.86 + random)
    measured = dependence(subject, {"r1": 1.0, "r2": 0.5})
    assert measured is not None and measured.beyond_chance is beyond


def test_without_an_effect_there_is_nothing_to_test(subject: Subject) -> None:
    assert dependence(subject, {}) is None and dependence(subject, {"r1": -0.2}) is None


def test_the_best_of_several_random_regions_seldom_passes_for_a_finding() -> None:
    """The selection is paid for: with seven regions as good as random, one is named in at most about 5 % of photos."""
    rng, named = np.random.default_rng(0), 0
    for _ in range(2000):
        losses = rng.normal(0.2, 0.08, module.RANDOM_REGIONS)
        named += rng.normal(0.2, 0.08, 7).max() > loss_bound(losses, 7)
    assert named / 2000 < 0.06 and LEAST_LOSS > 0
