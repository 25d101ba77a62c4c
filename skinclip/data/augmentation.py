"""Augmentation as batched tensor operations, so that two CPU cores keep up.

A batch is [B, 4, H, W] in 0..1: RGB and the lesion mask as fourth channel, so that geometry and mixing can never move
one without the other. Rotation, flip, zoom, shift and stretch are one `grid_sample`; colour follows; then a random
loss of resolution, because in HAM10000 the resolution of a photo leaks its class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random changes to n photos, drawn apart from being applied: several processes draw the same ones for a whole
    batch and each applies its share.

    Attributes:
        angle, zoom, stretch, flip: [n].
        shift: [n, 2] in halves of the photo's side.
        brightness, contrast, saturation: [n, 1, 1, 1] factors.
        balance: [n, 3, 1, 1] a factor a channel.
        shrink: [n] by how much a photo is shrunk before it is enlarged again, 0 where it is not.
    """

    angle: Tensor
    zoom: Tensor
    stretch: Tensor
    flip: Tensor
    shift: Tensor
    brightness: Tensor
    balance: Tensor
    contrast: Tensor
    saturation: Tensor
    shrink: Tensor

    @classmethod
    def draw(cls, n: int, generator: torch.Generator, strength: float = 1.0) -> Augmentation:
        """Draws any rotation, flip, zoom (0.7-1.15 of the photo shown), stretch, shift and colour; half of the photos
        lose resolution, by a common factor of up to 2.5.

        Args:
            strength: of zoom, stretch, shift and colour; 0 leaves the photos as they are, unturned too.
        """
        if strength == 0:
            return cls.none(n)

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(n, generator=generator) * (high - low) + low

        def factor(spread: float, channels: int = 1) -> Tensor:
            return ((torch.rand(n, channels, 1, 1, generator=generator) * 2 - 1) * spread * strength).exp()

        angle = uniform(-math.pi, math.pi)
        zoom = 1 + strength * (uniform(0.7, 1.15) - 1)
        stretch = (uniform(-0.25, 0.25) * strength).exp()
        flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
        shift = torch.stack([uniform(-0.08, 0.08) * strength, uniform(-0.08, 0.08) * strength], 1)
        colour = (factor(0.2), factor(0.08, 3), factor(0.2), factor(0.25))
        coarse = torch.rand(n, generator=generator) < 0.5
        shrink = torch.zeros(n, dtype=torch.double)
        if coarse.any():
            shrink[coarse] = 1 + 1.5 * torch.rand(1, generator=generator).item()
        return cls(angle, zoom, stretch, flip, shift, *colour, shrink)

    @classmethod
    def none(cls, n: int) -> Augmentation:
        """No change to any of n photos."""
        zeros, ones, factors = torch.zeros(n), torch.ones(n), torch.ones(n, 1, 1, 1)
        colour = (factors, torch.ones(n, 3, 1, 1), factors, factors)
        return cls(zeros, ones, ones, ones, torch.zeros(n, 2), *colour, zeros.double())

    @classmethod
    def cat(cls, parts: Sequence[Augmentation]) -> Augmentation:
        """The changes of several batches as those of one."""
        return cls(*(torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    def pick(self, index: Tensor) -> Augmentation:
        """The changes to the photos numbered `index`."""
        return Augmentation(*(getattr(self, f.name)[index] for f in fields(self)))

    def to(self, device: torch.device | str) -> Augmentation:
        """The same changes on another device."""
        return Augmentation(*(getattr(self, f.name).to(device) for f in fields(self)))

    def __call__(self, batch: Tensor, side: int) -> Tensor:
        """[n, 4, H, W] in 0..1 -> [n, 4, side, side] in 0..1."""
        return self.coarsened(self.recoloured(self.moved(batch, side)))

    def moved(self, batch: Tensor, side: int) -> Tensor:
        """Rotates, flips, zooms, stretches and shifts: [n, 4, H, W] -> [n, 4, side, side]."""
        cos, sin = self.angle.cos(), self.angle.sin()
        zoom, stretch, flip, shift = self.zoom, self.stretch, self.flip, self.shift
        theta = torch.stack(
            [
                torch.stack([cos * zoom * stretch * flip, -sin * zoom / stretch, shift[:, 0]], 1),
                torch.stack([sin * zoom * stretch * flip, cos * zoom / stretch, shift[:, 1]], 1),
            ],
            1,
        )  # [n, 2, 3]
        grid = F.affine_grid(theta, [*batch.shape[:2], side, side], align_corners=False)
        return F.grid_sample(batch, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    def recoloured(self, batch: Tensor) -> Tensor:
        """Changes brightness, white balance, contrast and saturation of the first three channels."""
        rgb = batch[:, :3] * self.brightness * self.balance
        mean = rgb.mean((1, 2, 3), keepdim=True)
        rgb = (rgb - mean) * self.contrast + mean
        grey = rgb.mean(1, keepdim=True)
        rgb = (rgb - grey) * self.saturation + grey
        return torch.cat([rgb.clamp(0, 1), batch[:, 3:]], 1)

    def coarsened(self, batch: Tensor) -> Tensor:
        """Shrinks some photos and enlarges them again."""
        side, out = batch.shape[-1], batch.clone()
        for factor in sorted(set(self.shrink.tolist()) - {0.0}):
            chosen = self.shrink == factor
            small = round(side / factor)
            shrunk = F.interpolate(
                batch[chosen, :3], (small, small), mode="bilinear", align_corners=False, antialias=True
            )
            out[chosen, :3] = F.interpolate(shrunk, (side, side), mode="bilinear", align_corners=False)
        return out


def augment(batch: Tensor, side: int, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """A batch under an augmentation drawn for it: [B, 4, H, W] in 0..1 -> [B, 4, side, side] in 0..1."""
    return Augmentation.draw(len(batch), generator, strength)(batch, side)


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
