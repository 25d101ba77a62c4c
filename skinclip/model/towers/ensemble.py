"""Several open_clip models of one architecture, trained alike from different seeds, as one image-text tower.

The joint space is the direct sum of the members' spaces: embeddings are concatenated, so the similarity of a photo and
a text is the mean of the members' similarities, and maps are concatenated channel by channel. A soup of weights would
cost less, but members trained for hundreds of thousands of views do not lie in one basin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skinclip.core.config import PerceptionConfig
from skinclip.model.towers.open_clip import OpenClipTower
from skinclip.model.towers.protocol import AttributionStages, TowerFeatures


class EnsembleTower(nn.Module):
    """`config.members` open_clip models of the same name; fulfils `ImageTextTower`."""

    def __init__(self, config: PerceptionConfig) -> None:
        """Raises ValueError for fewer than two members, and what `OpenClipTower` raises."""
        super().__init__()
        if config.members < 2:
            raise ValueError(f"perception.members: an ensemble has 2 members or more, got {config.members}")
        self.members = nn.ModuleList(OpenClipTower(replace(config, members=1)) for _ in range(config.members))

    def member(self, number: int) -> OpenClipTower:
        """One of the members by itself; its embedding is its own part of the joint space."""
        return self._towers()[number]

    def features(self, photos: Tensor) -> TowerFeatures:
        features = [member.features(photos) for member in self._towers()]
        levels = [torch.cat(same, 1) for same in zip(*(f.levels for f in features), strict=True)]
        return TowerFeatures(levels, side_by_side([f.embedding for f in features]))

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return side_by_side([member.embed_texts(texts) for member in self._towers()])

    def similarity_scale(self) -> Tensor:
        return torch.stack([member.similarity_scale() for member in self._towers()]).mean()

    def weights(self) -> dict[str, Tensor]:
        return {f"{i}.{k}": v for i, member in enumerate(self._towers()) for k, v in member.weights().items()}

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Raises RuntimeError where names or shapes differ, those of a missing or additional member too."""
        strange = [k for k in state if k.split(".")[0] not in {str(i) for i in range(len(self.members))}]
        if strange:
            raise RuntimeError(f"the ensemble has {len(self.members)} members; {strange[0]} belongs to none of them")
        for i, member in enumerate(self._towers()):
            member.load_weights({k.split(".", 1)[1]: v for k, v in state.items() if k.startswith(f"{i}.")})

    def image_trunk(self) -> nn.Module:
        raise NotImplementedError("the members of an ensemble are trained one by one; start each from its own weights")

    def attribution_stages(self) -> AttributionStages:
        """The stages of the first member and, beside each, those of the others."""
        stages = [member.attribution_stages() for member in self._towers()]
        beside = [tuple(same[1:]) for same in zip(*(s.modules for s in stages), strict=True)]
        return AttributionStages(stages[0].modules, stages[0].tokens, beside)

    def _towers(self) -> Sequence[OpenClipTower]:
        return list(self.members)  # type: ignore[arg-type]


def side_by_side(embeddings: Sequence[Tensor]) -> Tensor:
    """[B, E] each -> [B, M * E], scaled so that unit-length parts make a unit-length whole."""
    return torch.cat([F.normalize(e, dim=-1) for e in embeddings], -1) / len(embeddings) ** 0.5
