"""Evidence that can be checked: a lesion mask, and one map for every criterion state that can be present.

Second step of the path: VisualTokens -> Evidence. Notable:
- a map is the similarity of each patch with what sets the description of its state apart from those of the others
  (CLIP's own space; `symmetric_orthogonalize`);
- a state's score is pooled from that same map inside the lesion by log-mean-exp, so the region shown *is* what the
  score was computed from, and a large lesion does not score higher than a small one;
- an evidence token carries to the reasoner what is seen where the map is strong, and nothing from elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skinclip.core.config import EvidenceConfig, PerceptionConfig
from skinclip.model.perception import LAST, Perception, VisualTokens

CLEAR = 3.0  # the score of a state that is surely there; its negative, of one that is surely not


@dataclass
class Evidence:
    """The support for a diagnosis, and its place in the photo.

    Attributes:
        mask_logits: [B, m, m] lesion mask; sigmoid > 0.5 is lesion.
        lesion: [B, h, w] share of each patch that is lesion, 0..1.
        maps: [B, K, h, w] logits: how much each patch looks like the state's description.
        scores: [B, K] log-mean-exp of the map inside the lesion.
        features: [B, K, A] what the adapter sees where the map is strong (A: `adapter_width`).
        pooled: [B, E] lesion-pooled patch embedding, unit length.
        mean: [B, A] mean feature of the lesion, which `pooled` is a projection of; None where it is not kept apart.
        found: [B, K] the scores that were found, where `scores` are others by an edit or by labels; else None.
        read: [B, K] scores that a linear readout makes of these and of all that the tower saw; None without one.
    """

    mask_logits: Tensor
    lesion: Tensor
    maps: Tensor
    scores: Tensor
    features: Tensor
    pooled: Tensor
    mean: Tensor | None = None
    found: Tensor | None = None
    read: Tensor | None = None

    @property
    def criterion_scores(self) -> Tensor:
        """[B, K] what says whether a criterion is there, before any calibration."""
        return self.scores if self.read is None else self.read

    def with_scores(self, scores: Tensor) -> Evidence:
        """The same evidence with other scores [B, K] in the place of those that were found."""
        return replace(self, scores=scores, found=self.scores if self.found is None else self.found)

    @property
    def mask(self) -> Tensor:
        """[B, m, m] probability of each place to be lesion; above 0.5 is lesion."""
        return self.mask_logits.sigmoid()

    def pick(self, index: Tensor) -> Evidence:
        """The evidence of the photos numbered `index`."""
        return self._each(lambda part: part[index])

    def to(self, device: torch.device | str) -> Evidence:
        return self._each(lambda part: part.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Evidence:
        there = {f.name: part for f in fields(self) if (part := getattr(self, f.name)) is not None}
        return replace(self, **{name: change(part) for name, part in there.items()})


class LesionMaskHead(nn.Module):
    """Feature pyramid over the tower's maps: all projected to one width, summed at the finest, refined, one logit."""

    def __init__(self, level_widths: Sequence[int], width: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.lateral = nn.ModuleList(nn.Conv2d(d, width, 1) for d in level_widths)
        self.refine = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.GELU(),
            nn.Conv2d(width, 1, 3, padding=1),
        )

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """[B, D_i, h_i, w_i] each -> mask logits [B, m, m], m >= 56 (`size`, or the finest map at training sizes)."""
        finest = levels[0].shape[-2:]
        total = sum(
            F.interpolate(conv(level), finest, mode="bilinear", align_corners=False)
            for conv, level in zip(self.lateral, levels, strict=True)
        )
        logits = self.refine(total)
        if logits.shape[-1] < self.size:
            logits = F.interpolate(logits, (self.size, self.size), mode="bilinear", align_corners=False)
        return logits[:, 0]


def log_mean_exp(maps: Tensor, weights: Tensor, sharpness: float) -> Tensor:
    """Smooth maximum of each map inside the lesion: log(sum_p w_p exp(s * m_p) / sum_p w_p) / s.

    Args:
        maps: [B, K, h, w].
        weights: [B, h, w], at least one positive per photo.
        sharpness: s; towards 0 the mean, towards infinity the maximum.

    Returns:
        [B, K].
    """
    log_weights = weights.clamp_min(1e-6).log().unsqueeze(1)  # [B, 1, h, w]
    total = (maps * sharpness + log_weights).flatten(2).logsumexp(-1)
    return (total - log_weights.flatten(2).logsumexp(-1)) / sharpness


class EvidenceFinder(nn.Module):
    """A thin adapter from patch tokens to the text space, and the maps that follow from it."""

    frozen = False  # learnt in stage 2

    def __init__(
        self, config: EvidenceConfig, token_width: int, embed_dim: int, level_widths: Sequence[int], n_states: int
    ) -> None:
        super().__init__()
        self.config = config
        self.mask_head = LesionMaskHead(level_widths, config.mask_width, config.mask_size)
        self.adapter = nn.Sequential(
            nn.LayerNorm(token_width),
            nn.Linear(token_width, config.adapter_width),
            nn.GELU(),
            nn.Dropout(config.adapter_dropout),
        )
        self.to_text = nn.Linear(config.adapter_width, embed_dim)
        self.to_pooled = nn.Linear(config.adapter_width, embed_dim)
        self.scale = nn.Parameter(torch.tensor(math.log(config.scale)))
        self.bias = nn.Parameter(torch.full((n_states,), -2.0))

    @classmethod
    def over(cls, config: EvidenceConfig, perception: Perception, n_states: int) -> EvidenceFinder:
        """A fresh one with the widths of `perception`."""
        return cls(config, perception.width, perception.embed_dim, perception.level_widths, n_states)

    @classmethod
    def feature_width(cls, config: EvidenceConfig, perception: PerceptionConfig) -> int:
        """The width A of `Evidence.features`; the adapter is one, however many members the tower has."""
        return config.adapter_width

    def directions(self, state_embeddings: Tensor) -> Tensor:
        """Embeddings [K, E] of the states -> directions [K, E] of what sets each apart."""
        return symmetric_orthogonalize(state_embeddings)

    def segment(self, levels: Sequence[Tensor], look: int = LAST) -> Tensor:
        """Levels of the tower -> mask logits [B, m, m], by the same head in every look."""
        return self.mask_head(levels)

    def forward(self, tokens: Tensor, grid: tuple[int, int], mask_logits: Tensor, state_embeddings: Tensor) -> Evidence:
        """
        Args:
            tokens: [B, N, D].
            mask_logits: [B, m, m].
            state_embeddings: [K, E], unit length: `directions` of what the frozen text tower gives.
        """
        h, w = grid
        lesion = lesion_weights(mask_logits, grid)  # [B, h, w]
        adapted = self.adapter(tokens)  # [B, N, A]
        patches = F.normalize(self.to_text(adapted), dim=-1)  # [B, N, E]
        similarity = patches @ state_embeddings.T  # [B, N, K]
        maps = (similarity * self.scale.exp() + self.bias).transpose(1, 2).unflatten(2, (h, w))
        scores = log_mean_exp(maps, lesion, self.config.sharpness)
        features = self.attention(maps, lesion) @ adapted  # [B, K, A]
        weights = (lesion / lesion.sum((1, 2), keepdim=True)).flatten(1)  # [B, N]
        pooled = F.normalize(self.to_pooled(torch.einsum("bn,bna->ba", weights, adapted)), dim=-1)
        return Evidence(mask_logits, lesion, maps, scores, features, pooled)

    def attention(self, maps: Tensor, lesion: Tensor) -> Tensor:
        """[B, K, N] how much each patch counts in a state's score: the gradient of the log-mean-exp.

        Args:
            maps: [B, K, h, w].
            lesion: [B, h, w].
        """
        inside = lesion.clamp_min(1e-6).log().flatten(1).unsqueeze(1)  # [B, 1, N]
        return (maps.flatten(2) * self.config.sharpness + inside).softmax(-1)

    def find(self, visual: VisualTokens, state_embeddings: Tensor, mask_logits: Tensor | None = None) -> Evidence:
        """The whole step from what the tower sees; `mask_logits` [B, m, m] take the place of the finder's own."""
        mask = self.segment(visual.levels) if mask_logits is None else mask_logits
        return self(visual.tokens, visual.grid, mask, state_embeddings)


def symmetric_orthogonalize(embeddings: Tensor) -> Tensor:
    """[K, E] embeddings -> unit-length directions [K, E] of what sets each apart, equally far from one another.

    Descriptions of dermoscopic criteria lie close together (cosines up to 0.99 in the compact derm-CLIP), and maps
    of similarity with them would all be the same map. The nearest orthonormal directions (Löwdin 1950) keep as much of
    each description as can be; less their mean they are the corners of a simplex. Needs K <= E to be exact.
    """
    left, _, right = torch.linalg.svd(embeddings, full_matrices=False)
    orthonormal = left @ right
    return F.normalize(orthonormal - orthonormal.mean(0), dim=-1)


def lesion_weights(mask_logits: Tensor, grid: tuple[int, int]) -> Tensor:
    """Share of each patch that is lesion, [B, h, w] in 0..1; the whole photo where hardly any lesion is found."""
    soft = F.adaptive_avg_pool2d(mask_logits.sigmoid().unsqueeze(1), grid)[:, 0]
    has_lesion = (soft.flatten(1).sum(1) >= 1.0).view(-1, 1, 1)  # at least one patch's worth
    return torch.where(has_lesion, soft, torch.ones_like(soft))
