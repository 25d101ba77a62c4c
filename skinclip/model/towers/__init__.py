"""Image-text towers: one class a family, all behind `ImageTextTower`; `TOWERS` is the registry.

A new family is one class that fulfils the protocol and one `register_tower`; a config then names it as
`perception.family`. Everything after it (evidence, reasoning, training, attribution, checkpoints) follows.
"""

from __future__ import annotations

from collections.abc import Callable

from skinclip.core.config import PerceptionConfig
from skinclip.model.towers.ensemble import EnsembleTower
from skinclip.model.towers.open_clip import OpenClipTower
from skinclip.model.towers.protocol import AttributionStages, ImageTextTower, TowerFeatures

__all__ = [
    "TOWERS",
    "AttributionStages",
    "EnsembleTower",
    "ImageTextTower",
    "OpenClipTower",
    "TowerFeatures",
    "make_tower",
    "register_tower",
]

TowerFactory = Callable[[PerceptionConfig], ImageTextTower]
TOWERS: dict[str, TowerFactory] = {  # `perception.family` of a config -> its class
    "open_clip": OpenClipTower,
    "ensemble": EnsembleTower,
}


def register_tower(family: str, factory: TowerFactory) -> None:
    """Adds a family of towers. Raises ValueError where the name is taken."""
    if family in TOWERS:
        raise ValueError(f"there is a tower family {family!r} already; choose another name")
    TOWERS[family] = factory


def make_tower(config: PerceptionConfig) -> ImageTextTower:
    """The tower that a config names. Raises ValueError naming the families there are, and what the class raises."""
    if config.family not in TOWERS:
        raise ValueError(f"perception.family: no tower family {config.family!r}; choose one of {', '.join(TOWERS)}")
    return TOWERS[config.family](config)
