"""Our measures of place beside Quantus's (Hedström et al. 2023), both against cases whose answer is known by hand.

Quantus has no measures of the answer inside a lesion, and none of its measures takes bootstrap weights, so the
benchmarks use ours; where both have one they must agree.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from skinclip.explain import faithfulness

quantus = pytest.importorskip("quantus")

LESION = np.zeros((16, 16), bool)
LESION[4:12, 4:12] = True
PHOTO = np.random.default_rng(0).random((1, 3, 16, 16), dtype=np.float32)


class Any(nn.Module):
    """Measures of place ask for a model and do not use it."""

    def forward(self, photos: Tensor) -> Tensor:
        return photos.mean((2, 3))


def by_quantus(metric: str, heat: np.ndarray) -> float:
    measure = getattr(quantus, metric)(disable_warnings=True, normalise=False, abs=False)
    heats, lesions = heat[None, None].astype(np.float32), LESION[None, None]
    with torch.no_grad():
        return float(
            measure(model=Any(), x_batch=PHOTO, y_batch=np.array([0]), a_batch=heats, s_batch=lesions, device="cpu")[0]
        )


def spot(row: int, column: int, value: float = 1.0) -> np.ndarray:
    heat = np.zeros((16, 16))
    heat[row : row + 4, column : column + 4] = value
    return heat


@pytest.mark.parametrize(
    ("heat", "by_hand"),
    [(spot(4, 4), 1.0), (spot(0, 0), 0.0), (spot(4, 4) + spot(0, 0, 3.0), 0.25), (spot(2, 4), 0.5)],
)
def test_energy_is_relevance_mass_accuracy(heat: np.ndarray, by_hand: float) -> None:
    assert faithfulness.energy(heat, LESION) == pytest.approx(by_hand)
    assert by_quantus("RelevanceMassAccuracy", heat) == pytest.approx(by_hand)


@pytest.mark.parametrize(("heat", "by_hand"), [(spot(4, 4) + spot(12, 12, 0.5), True), (spot(12, 12), False)])
def test_pointing_game(heat: np.ndarray, by_hand: bool) -> None:
    heat[5, 5] *= 1.5  # one highest place: of several equal ones Quantus takes any
    assert faithfulness.pointing(heat, LESION) is by_hand
    assert bool(by_quantus("PointingGame", heat)) is by_hand


def test_the_share_of_the_lesion_among_the_highest_places() -> None:
    """Quantus's rank accuracy is the overlap of our top region, as large as the lesion, with the lesion."""
    heat = np.random.default_rng(1).random((16, 16))
    top = faithfulness.top_region(heat, np.ones_like(LESION), LESION.mean())
    assert by_quantus("RelevanceRankAccuracy", heat) == pytest.approx(LESION[top].mean())
