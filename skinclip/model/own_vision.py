"""Qwen2.5-VL's own vision tower, kept frozen beside CLIP in the big presets.

Its merged tokens already live in the language model's width, so they need no projector: they take the places of the
first photo in the prompt. Token k covers row k // (side / 28), column k % (side / 28), 28 pixels of the photo each way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

PATCH, MERGE, FRAMES = 14, 2, 2  # pixels a patch, patches a token each way, frames a patch (a photo is shown twice)
TOKEN_PIXELS = PATCH * MERGE


def own_grid(side: int) -> int:
    """Tokens each way for a photo of `side` pixels. Raises ValueError unless it is a multiple of 28."""
    if side % TOKEN_PIXELS:
        raise ValueError(f"own_side must be a multiple of {TOKEN_PIXELS} pixels, got {side}")
    return side // TOKEN_PIXELS


def patches(photos: Tensor) -> Tensor:
    """Photos [B, 3, side, side] in 0..1 as the tower reads them: [B * (side / 14)^2, 3 * 2 * 14 * 14].

    The four patches of a token follow one another. Equal to the model's own image processor on photos of this size,
    yet made on whatever device the photos are on, without a detour over 8-bit pictures.
    """
    mean, std = (photos.new_tensor(v).view(1, 3, 1, 1) for v in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    b, channels, side, _ = photos.shape
    n = own_grid(side)
    cells = ((photos - mean) / std).view(b, channels, n, MERGE, PATCH, n, MERGE, PATCH)
    cells = cells.permute(0, 2, 5, 3, 6, 1, 4, 7)  # [B, n, n, merge, merge, 3, patch, patch]
    frames = cells.unsqueeze(6).expand(*cells.shape[:6], FRAMES, PATCH, PATCH)
    return frames.reshape(b * n * n * MERGE**2, channels * FRAMES * PATCH**2)


@torch.no_grad()
def own_tokens(model: Any, photos: Tensor) -> Tensor:
    """Tokens that the vision tower of a Qwen2_5_VLForConditionalGeneration makes of photos [B, 3, side, side] in 0..1.

    Returns:
        [B, (side / 28)^2, H], row by row.
    """
    side = photos.shape[-1]
    grid = torch.tensor([[1, side // PATCH, side // PATCH]] * len(photos), device=photos.device)
    features = model.get_image_features(patches(photos), grid, return_dict=True).pooler_output
    return torch.stack(list(features))
