"""Evidence read from a feature pyramid: one fine map for the lesion mask and all criterion maps.

The tower's levels are summed at stride 8, refined and joined with the finest level at stride 4. What experts draw is
small (globules, streaks): a patch of the last stage, 32 pixels wide, cannot hold it. Learnt in stage 0 together with
the tower, from regions that experts drew where they exist and from a photo's labels elsewhere; frozen with the tower.
An ensemble of towers has one pyramid a member (grouped convolutions); the logits of its maps are the members' mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skinclip.core.config import EvidenceConfig, PerceptionConfig
from skinclip.model.evidence import Evidence, lesion_weights, log_mean_exp, symmetric_orthogonalize
from skinclip.model.perception import FIRST, LAST, Perception, VisualTokens


class PyramidDecoder(nn.Module):
    """Levels [B, G * D_i, h_i, w_i], fine to coarse, of G members side by side -> [B, G * F, h_0, w_0].

    Args:
        level_widths: of all members together.
        coarse, fine: channels of one member at the second finest and at the finest level.
        groups: G.
    """

    def __init__(self, level_widths: Sequence[int], coarse: int, fine: int, groups: int = 1) -> None:
        super().__init__()
        c, f = coarse * groups, fine * groups
        self.lateral = nn.ModuleList(nn.Conv2d(w, c, 1, bias=False, groups=groups) for w in level_widths[1:])
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for _ in level_widths[1:])
        self.refine = nn.Sequential(
            nn.GELU(),
            nn.Conv2d(c, c, 3, padding=1, bias=False, groups=groups),
            nn.BatchNorm2d(c),
            nn.GELU(),
            nn.Conv2d(c, c, 3, padding=1, bias=False, groups=groups),
            nn.BatchNorm2d(c),
        )
        self.down = nn.Conv2d(c, f, 1, bias=False, groups=groups)
        self.finest = nn.Sequential(nn.Conv2d(level_widths[0], f, 1, bias=False, groups=groups), nn.BatchNorm2d(f))
        self.last = nn.Sequential(
            nn.GELU(), nn.Conv2d(f, f, 3, padding=1, bias=False, groups=groups), nn.BatchNorm2d(f), nn.GELU()
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        at = levels[1].shape[-2:]
        total = sum(
            F.interpolate(norm(conv(x)), at, mode="bilinear", align_corners=False)
            for conv, norm, x in zip(self.lateral, self.norms, levels[1:], strict=True)
        )
        total = total + self.refine(total)
        up = F.interpolate(self.down(total), levels[0].shape[-2:], mode="bilinear", align_corners=False)
        return self.last(up + self.finest(levels[0]))


class PyramidHead(nn.Module):
    """The decoder and the lesion mask that is read from it."""

    def __init__(self, level_widths: Sequence[int], config: EvidenceConfig, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.decoder = PyramidDecoder(level_widths, config.coarse_width, config.fine_width, groups)
        self.to_mask = nn.Conv2d(config.fine_width * groups, groups, 1, groups=groups)

    def features(self, levels: Sequence[Tensor]) -> Tensor:
        """[B, G * F, h, w]."""
        return self.decoder(levels)

    def mask(self, features: Tensor) -> Tensor:
        """[B, G * F, h, w] -> mask logits [B, h, w], the members' mean."""
        return self.to_mask(features).mean(1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Levels -> mask logits [B, h, w]."""
        return self.mask(self.features(levels))


class PyramidEvidenceFinder(nn.Module):
    """Lesion mask and criterion maps from the pyramid; the interface of `EvidenceFinder`."""

    frozen = True  # learnt with the tower in stage 0; only `to_pooled` learns in stage 2

    def __init__(
        self,
        config: EvidenceConfig,
        embed_dim: int,
        level_widths: Sequence[int],
        n_states: int,
        groups: int = 1,
        looks: int = 1,
    ) -> None:
        """
        Args:
            embed_dim: E of the joint space, of all members together.
            groups: members G of the tower that see the same.
            looks: members that take a look each. Maps are read in the last alone; the lesion is found in the first.
        """
        super().__init__()
        self.config, self.groups, self.looks = config, groups, looks
        width = config.fine_width * groups
        self.mask_head = PyramidHead(level_widths, config, groups)
        self.first_mask_head = PyramidHead(level_widths, config, groups) if looks > 1 else None
        self.to_text = nn.Conv2d(width, embed_dim // looks, 1, groups=groups)
        self.to_pooled = nn.Linear(width, embed_dim)
        self.scale = nn.Parameter(torch.full((groups,), 2.5))
        self.bias = nn.Parameter(torch.full((groups, n_states), -2.5))

    @classmethod
    def over(cls, config: EvidenceConfig, perception: Perception, n_states: int) -> PyramidEvidenceFinder:
        """A fresh one with the widths and the members of `perception`."""
        members = perception.config.members
        groups, looks = (1, members) if perception.config.member_per_look else (members, 1)
        return cls(config, perception.embed_dim, perception.level_widths, n_states, groups, looks)

    @classmethod
    def feature_width(cls, config: EvidenceConfig, perception: PerceptionConfig) -> int:
        """The width A of `Evidence.features`: the finest maps of all members that see the same, side by side."""
        return config.fine_width * (1 if perception.member_per_look else perception.members)

    def directions(self, state_embeddings: Tensor) -> Tensor:
        """Embeddings [K, E] of the states -> directions of what sets each apart, member by member.

        Of members that take a look each, the last one's alone: [K, E / looks].
        """
        parts = state_embeddings.chunk(self.looks, -1)[-1].chunk(self.groups, -1)
        return torch.cat([symmetric_orthogonalize(part) for part in parts], -1)

    def segment(self, levels: Sequence[Tensor], look: int = LAST) -> Tensor:
        """Levels of a look -> mask logits [B, h, w]."""
        first = look == FIRST and self.first_mask_head is not None
        return self.first_mask_head(levels) if first and self.first_mask_head else self.mask_head(levels)

    def find(self, visual: VisualTokens, directions: Tensor, mask_logits: Tensor | None = None) -> Evidence:
        """The whole step from what the tower sees; `mask_logits` [B, m, m] take the place of the finder's own."""
        features = self.mask_head.features(visual.levels)  # [B, G * F, h, w]
        mask_logits = self.mask_head.mask(features) if mask_logits is None else mask_logits
        lesion = lesion_weights(mask_logits, (features.shape[-2], features.shape[-1]))
        maps = self.maps(features, directions)
        scores = log_mean_exp(maps, lesion, self.config.sharpness)
        flat = features.flatten(2).transpose(1, 2)  # [B, h * w, G * F]
        weights = (lesion / lesion.sum((1, 2), keepdim=True)).flatten(1)
        mean = torch.einsum("bn,bnf->bf", weights, flat)
        found = self.attention(maps, lesion) @ flat
        return Evidence(mask_logits, lesion, maps, scores, found, self.in_text_space(mean), mean)

    def in_text_space(self, mean: Tensor) -> Tensor:
        """The lesion's mean feature [B, G * F] in the joint space, [B, E], unit length."""
        return F.normalize(self.to_pooled(mean), dim=-1)

    @torch.no_grad()
    def reset_pooled(self) -> None:
        """Sets the projection of the lesion's mean feature to that of single places, as which it starts in stage 2."""
        weight = torch.block_diag(*self.to_text.weight.flatten(1).chunk(self.groups))  # [E / looks, G * F]
        bias = self.to_text.bias
        assert bias is not None
        missing = len(self.to_pooled.weight) - len(weight)  # the part of the joint space of the first look
        self.to_pooled.weight.copy_(F.pad(weight, (0, 0, missing, 0)))
        self.to_pooled.bias.copy_(F.pad(bias, (missing, 0)))

    def freeze(self) -> None:
        """Freezes all but the projection of the lesion's mean feature, running statistics included."""
        self.requires_grad_(False)
        self.to_pooled.requires_grad_(True)
        self.eval()

    def maps(self, features: Tensor, directions: Tensor) -> Tensor:
        """[B, G * F, h, w] and directions [K, E] -> logits [B, K, h, w], the members' mean."""
        b, _, h, w = features.shape
        patches = F.normalize(self.to_text(features).view(b, self.groups, -1, h, w), dim=2)
        own = torch.stack(directions.chunk(self.groups, -1))  # [G, K, E / G]
        similarity = torch.einsum("bgehw,gke->bgkhw", patches, own)
        logits = similarity * self.scale.exp().view(1, -1, 1, 1, 1) + self.bias.view(1, self.groups, -1, 1, 1)
        return logits.mean(1)

    def attention(self, maps: Tensor, lesion: Tensor) -> Tensor:
        """[B, K, h * w] how much each place counts in a state's score: the gradient of the log-mean-exp."""
        inside = lesion.clamp_min(1e-6).log().flatten(1).unsqueeze(1)
        return (maps.flatten(2) * self.config.sharpness + inside).softmax(-1)
