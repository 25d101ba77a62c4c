"""Frozen perception: an image-text tower's image part gives patch tokens, its text part embeds descriptions.

First step of the path: photo tensor -> VisualTokens. Notable:
- any tower behind `ImageTextTower` (`skinclip.model.towers`); its levels are NCHW maps, so token k is patch k;
- frozen means parameters and buffers: the tower stays in eval() whatever the rest of the model does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skinclip.core.config import PerceptionConfig
from skinclip.model.towers import ImageTextTower, make_tower
from skinclip.model.towers.ensemble import EnsembleTower, side_by_side

FIRST, LAST = 0, -1  # looks
MIRRORS = ((), (3,), (2,), (2, 3))  # axes of [B, D, h, w] that are turned over: the photo, and its mirror images


@dataclass
class VisualTokens:
    """Features of B photos.

    Attributes:
        tokens: [B, N, D] patch tokens, row by row.
        grid: (h, w), N = h * w.
        embedding: [B, E] photo embedding in the joint space, unit length.
        levels: the tower's maps, fine to coarse, each [B, D_i, h_i, w_i]; the lesion mask reads them.
        own: [B, M, H] what the reasoner's own vision tower makes of the photo, None where the preset has none.
        style: [B, S] channel means of all levels: what a photo is like more than what it shows, for the shift score.
        means: the style where it is not that of the levels here, as of several looks together.
    """

    tokens: Tensor
    grid: tuple[int, int]
    embedding: Tensor
    levels: list[Tensor]
    own: Tensor | None = None
    means: Tensor | None = None

    @property
    def style(self) -> Tensor:
        if self.means is not None:
            return self.means
        return torch.cat([level.mean((2, 3)) for level in self.levels], 1)

    def turned(self, axes: tuple[int, ...]) -> VisualTokens:
        """The same with its maps mirrored along `axes` of [B, D, h, w]."""
        maps = self.tokens.transpose(1, 2).unflatten(2, self.grid).flip(axes)
        tokens = maps.flatten(2).transpose(1, 2)
        return replace(self, tokens=tokens, levels=[level.flip(axes) for level in self.levels])

    def pick(self, index: Tensor) -> VisualTokens:
        """Selects the photos numbered `index`."""
        return VisualTokens(
            self.tokens[index],
            self.grid,
            self.embedding[index],
            [level[index] for level in self.levels],
            None if self.own is None else self.own[index],
            None if self.means is None else self.means[index],
        )

    def repeated(self, n: int) -> VisualTokens:
        """A single photo's features as those of `n` alike."""
        return self.pick(torch.zeros(n, dtype=torch.long))

    def to(self, device: torch.device | str) -> VisualTokens:
        return VisualTokens(
            self.tokens.to(device),
            self.grid,
            self.embedding.to(device),
            [level.to(device) for level in self.levels],
            None if self.own is None else self.own.to(device),
            None if self.means is None else self.means.to(device),
        )


class Perception(nn.Module):
    """An image-text tower, frozen; see `forward`, `embed_texts` and `freeze`."""

    tower: ImageTextTower
    mean: Tensor
    std: Tensor

    def __init__(self, config: PerceptionConfig) -> None:
        """Raises ValueError for an unknown family, and what the family's class raises (`make_tower`)."""
        super().__init__()
        self.config = config
        tower = make_tower(config)
        if not isinstance(tower, nn.Module):
            raise TypeError(f"the tower {config.family!r} must be a torch.nn.Module, so that it is frozen and saved")
        self.tower = tower
        self.register_load_state_dict_pre_hook(_rename_old_keys)
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)
        self.frozen = False
        with torch.no_grad():  # a dry run tells widths and grid, whatever the tower
            was_training = tower.training
            tower.eval()
            dry = self(torch.zeros(1, 3, config.image_size, config.image_size))
            tower.train(was_training)
        parts = config.members if config.member_per_look else 1
        self.width = dry.tokens.shape[-1]  # D
        self.embed_dim = dry.embedding.shape[-1] * parts  # E
        self.grid = dry.grid
        self.level_widths = [level.shape[1] for level in dry.levels]
        self.style_width = dry.style.shape[-1] * parts  # S

    def freeze(self) -> Perception:
        """Freezes parameters and buffers for good and rounds the weights to what a checkpoint stores."""
        self.requires_grad_(False)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.half().float())
        self.frozen = True
        return self.eval()

    def train(self, mode: bool = True) -> Perception:
        return super().train(mode and not self.frozen)

    def forward(self, photos: Tensor, look: int = LAST) -> VisualTokens:
        """
        Args:
            photos: [B, 3, side, side], RGB in 0..1.
            look: which look it is, where each is taken by a member of its own (`together`).
        """
        x = (photos - self.mean) / self.std
        x = x.to(memory_format=torch.channels_last)
        features = self.looking(look).features(x)
        return self._tokens(features.levels, F.normalize(features.embedding, dim=-1))

    def looking(self, look: int = LAST) -> ImageTextTower:
        """The tower that takes a look."""
        if not self.config.member_per_look:
            return self.tower
        assert isinstance(self.tower, EnsembleTower)
        return self.tower.member(look)

    def together(self, looks: Sequence[VisualTokens]) -> VisualTokens:
        """Features of the same photos in all looks: one embedding and one style, the places of the last look.

        Members that take a look each see their part of the joint space; looks of one tower are averaged.
        """
        if len(looks) == 1:
            return looks[0]
        embeddings, styles = [look.embedding for look in looks], [look.style for look in looks]
        if self.config.member_per_look:
            return replace(looks[-1], embedding=side_by_side(embeddings), means=torch.cat(styles, 1))
        mean = F.normalize(torch.stack(embeddings).mean(0), dim=-1)
        return replace(looks[-1], embedding=mean, means=torch.stack(styles).mean(0))

    def _tokens(self, levels: list[Tensor], embedding: Tensor) -> VisualTokens:
        chosen = [levels[self.config.levels.index(i)] for i in self.config.token_levels]
        h, w = chosen[0].shape[-2:]
        maps = [chosen[0], *(F.interpolate(m, (h, w), mode="bilinear", align_corners=False) for m in chosen[1:])]
        tokens = torch.cat(maps, dim=1).flatten(2).transpose(1, 2)  # [B, N, D]
        return VisualTokens(tokens, (h, w), embedding, levels)

    def from_all_sides(self, photos: Tensor, look: int = LAST) -> VisualTokens:
        """Features of photos [B, 3, side, side] and their three mirror images, turned back and averaged.

        A lesion has no up or left: the average is steadier, and a mirrored photo gives mirrored tokens, exactly.
        """
        parts = [self(photos.flip(axes), look).turned(axes) for axes in MIRRORS]
        levels = [torch.stack(same).mean(0) for same in zip(*(part.levels for part in parts), strict=True)]
        return self._tokens(levels, F.normalize(torch.stack([p.embedding for p in parts]).mean(0), dim=-1))

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit-length embeddings [len(texts), E] of descriptions."""
        return F.normalize(self.tower.embed_texts(texts), dim=-1)


def _rename_old_keys(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Lets stage-0 checkpoints resume that were saved when the open_clip model was an attribute of `Perception`."""
    old = f"{prefix}clip."
    for key in [k for k in state if k.startswith(old)]:
        state[f"{prefix}tower.clip.{key.removeprefix(old)}"] = state.pop(key)
