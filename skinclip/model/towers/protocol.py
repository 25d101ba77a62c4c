"""The interface of an image-text tower: the only thing that the rest of the program knows of a CLIP model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@dataclass(frozen=True)
class TowerFeatures:
    """Features of B photos.

    Attributes:
        levels: intermediate maps, fine to coarse, each [B, D_i, h_i, w_i].
        embedding: [B, E] in the joint space of photos and texts, of any length.
    """

    levels: list[Tensor]
    embedding: Tensor


@dataclass(frozen=True)
class AttributionStages:
    """The modules whose outputs class activation maps are made of, fine to coarse.

    Attributes:
        tokens: whether they return tokens [B, T, D], the patches last, rather than maps [B, D, h, w].
        beside: the same stages of the other members of an ensemble, for each of `modules`; empty for a single model.
    """

    modules: Sequence[nn.Module]
    tokens: bool
    beside: Sequence[tuple[nn.Module, ...]] = ()


@runtime_checkable
class ImageTextTower(Protocol):
    """An image tower and a text tower with a joint space. A class that fulfils it is also a `torch.nn.Module`.

    Constructed from a `PerceptionConfig` by `skinclip.model.towers.make_tower`. Normalisation of photos, freezing and
    the choice of token levels are `Perception`'s.
    """

    def features(self, photos: Tensor) -> TowerFeatures:
        """Features of normalised photos [B, 3, side, side], at the levels that the config names."""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings [len(texts), E] of descriptions, of any length."""

    def similarity_scale(self) -> Tensor:
        """The scalar by which cosine similarities are multiplied into logits in contrastive training."""

    def weights(self) -> dict[str, Tensor]:
        """All weights by the names under which `perception.safetensors` keeps them."""

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Takes over weights as `weights` gives them. Raises RuntimeError where names or shapes differ."""

    def image_trunk(self) -> nn.Module:
        """The part of the image tower that pretrained weights of an image classifier fit.

        Raises NotImplementedError for a tower without one.
        """

    def attribution_stages(self) -> AttributionStages:
        """The stages for Grad-CAM and LayerCAM. Raises NotImplementedError for a tower whose maps are not known."""
