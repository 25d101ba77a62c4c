"""Any open_clip model by name as an image-text tower; `derm-clip-mini` is our own configuration.

Convolutional and ViT towers alike, through `forward_intermediates`, always as NCHW maps, so token k is patch k.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from skinclip.core.config import PerceptionConfig
from skinclip.hub import find_clip
from skinclip.model.towers.protocol import AttributionStages, TowerFeatures

open_clip.add_model_config(Path(__file__).parents[1] / "clip_configs")


class OpenClipTower(nn.Module):
    """An open_clip model; fulfils `ImageTextTower`."""

    def __init__(self, config: PerceptionConfig) -> None:
        """Raises RuntimeError: open_clip's own for a model that it does not know, MissingWeights for its weights."""
        super().__init__()
        self.levels = list(config.levels)
        level = logging.root.level
        if config.pretrained is None:  # the checkpoint brings the weights: open_clip's warning would mislead
            logging.root.setLevel(logging.ERROR)
        try:
            self.clip: Any = open_clip.create_model(
                config.model,
                pretrained=find_clip(config),
                load_weights=config.pretrained is not None,
                device=torch.get_default_device(),
            )
        finally:
            logging.root.setLevel(level)
        self.tokenizer = open_clip.get_tokenizer(config.model)

    def features(self, photos: Tensor) -> TowerFeatures:
        out = self.clip.visual.forward_intermediates(photos, indices=self.levels)
        return TowerFeatures(out["image_intermediates"], out["image_features"])

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        device = next(self.clip.parameters()).device
        return self.embed_tokens(self.tokenizer(list(texts)).to(device))

    def embed_tokens(self, tokens: Tensor) -> Tensor:
        """Embeddings [n, E] of texts that are tokens [n, L] already, as a training keeps them."""
        return self.clip.encode_text(tokens)

    def similarity_scale(self) -> Tensor:
        return self.clip.logit_scale.exp()

    def weights(self) -> dict[str, Tensor]:
        return self.clip.state_dict()

    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        self.clip.load_state_dict(state)

    def image_trunk(self) -> nn.Module:
        trunk = getattr(self.clip.visual, "trunk", None)
        if trunk is None:
            raise NotImplementedError("this open_clip model has no timm trunk that could start from ImageNet weights")
        return trunk

    def attribution_stages(self) -> AttributionStages:
        visual = self.clip.visual
        trunk = getattr(visual, "trunk", None)
        if trunk is not None and hasattr(trunk, "blocks") and hasattr(trunk, "conv_stem"):
            return AttributionStages(list(trunk.blocks), tokens=False)
        if hasattr(getattr(visual, "transformer", None), "resblocks"):
            blocks = visual.transformer.resblocks
            return AttributionStages([blocks[i] for i in self.levels], tokens=True)
        raise NotImplementedError("Grad-CAM needs a convolutional image tower, or open_clip's own vision transformer")
