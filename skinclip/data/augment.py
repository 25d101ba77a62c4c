"""Augmentation as batched tensor operations, so that two CPU cores keep up.

A batch is [B, 4, H, W] in 0..1: RGB and the lesion mask as fourth channel, so that geometry and mixing can never move
one without the other. Rotation, flip, zoom, shift and stretch are one `grid_sample`; colour follows; then a random
loss of resolution, because in HAM10000 the resolution of a photo leaks its class.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def geometry(batch: Tensor, side: int, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Random rotation, flip, zoom (0.7-1.15 of the photo shown), stretch, shift: [B, 4, H, W] -> [B, 4, side, side]."""
    b = batch.shape[0]

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(b, generator=generator) * (high - low) + low

    angle = uniform(-math.pi, math.pi)
    zoom = 1 + strength * (uniform(0.7, 1.15) - 1)
    stretch = (uniform(-0.25, 0.25) * strength).exp()
    flip = torch.where(torch.rand(b, generator=generator) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack([cos * zoom * stretch * flip, -sin * zoom / stretch, uniform(-0.08, 0.08) * strength], 1),
            torch.stack([sin * zoom * stretch * flip, cos * zoom / stretch, uniform(-0.08, 0.08) * strength], 1),
        ],
        1,
    )  # [B, 2, 3]
    grid = F.affine_grid(theta, [b, batch.shape[1], side, side], align_corners=False)
    return F.grid_sample(batch, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def colour(batch: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Random brightness, contrast, saturation and white balance of the first three channels."""
    b = batch.shape[0]

    def factor(spread: float, channels: int = 1) -> Tensor:
        return ((torch.rand(b, channels, 1, 1, generator=generator) * 2 - 1) * spread * strength).exp()

    rgb = batch[:, :3]
    rgb = rgb * factor(0.2) * factor(0.08, 3)
    mean = rgb.mean((1, 2, 3), keepdim=True)
    rgb = (rgb - mean) * factor(0.2) + mean
    grey = rgb.mean(1, keepdim=True)
    rgb = (rgb - grey) * factor(0.25) + grey
    return torch.cat([rgb.clamp(0, 1), batch[:, 3:]], 1)


def lose_resolution(batch: Tensor, generator: torch.Generator, share: float = 0.5) -> Tensor:
    """Shrinks a random part of the batch by a common random factor of up to 2.5 and enlarges it again."""
    chosen = torch.rand(batch.shape[0], generator=generator) < share
    if not chosen.any():
        return batch
    side = batch.shape[-1]
    small = round(side / (1 + 1.5 * torch.rand(1, generator=generator).item()))
    rgb = batch[chosen, :3]
    blurred = F.interpolate(
        F.interpolate(rgb, (small, small), mode="bilinear", align_corners=False, antialias=True),
        (side, side),
        mode="bilinear",
        align_corners=False,
    )
    out = batch.clone()
    out[chosen, :3] = blurred
    return out


def augment(batch: Tensor, side: int, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """All of the above: [B, 4, H, W] in 0..1 -> [B, 4, side, side] in 0..1."""
    batch = geometry(batch, side, generator, strength)
    return lose_resolution(colour(batch, generator, strength), generator)


def mix(
    batch: Tensor, targets: Tensor, valid_mask: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Mixup (Zhang 2018) or CutMix (Yun 2019), by the toss of a coin, of photos, masks and soft targets.

    Args:
        batch: [B, 4, H, W].
        targets: [B, C] soft targets.
        valid_mask: [B] bool, whether the fourth channel is a real mask.

    Returns:
        The three again; a mixed mask is valid where both its parts were.
    """
    b, _, height, width = batch.shape
    order = torch.randperm(b, generator=generator)
    if torch.rand(1, generator=generator).item() < 0.5:
        share = torch.distributions.Beta(0.4, 0.4).sample().item()
        mixed = batch * share + batch[order] * (1 - share)
    else:
        area = torch.rand(1, generator=generator).item() * 0.5
        dy, dx = int(height * math.sqrt(area)), int(width * math.sqrt(area))
        y = int(torch.randint(0, height - dy + 1, (1,), generator=generator))
        x = int(torch.randint(0, width - dx + 1, (1,), generator=generator))
        mixed = batch.clone()
        mixed[:, :, y : y + dy, x : x + dx] = batch[order][:, :, y : y + dy, x : x + dx]
        share = 1 - dy * dx / (height * width)
    return mixed, targets * share + targets[order] * (1 - share), valid_mask & valid_mask[order]
