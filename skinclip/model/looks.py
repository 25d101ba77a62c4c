"""Two looks: at the whole photo, then at the lesion that was found there, with a margin.

A lesion that fills a tenth of the photo so gets the full grid of the tower. What both looks see is put together by
`Perception.together`; tokens, mask and maps are those of the second, so a region is drawn at its resolution. Two photos
of one lesion are averaged, and shown by the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from skinclip.model.perception import VisualTokens

MARGIN = 1.35  # side of the second look's window, in lengths of the lesion's longer side
LEAST_SIDE = 0.25  # of the first look: a smaller window would show pixels, not structures
LEAST_LESION, MOST_LESION = 0.005, 0.9  # share of the first look; beyond them the second look is the first again


@dataclass(frozen=True)
class RelativeWindows:
    """Square windows of B first looks, all in shares of the first look's side.

    Attributes:
        centre: [B, 2] x and y, 0..1.
        side: [B], 1 is the whole first look.
    """

    centre: Tensor
    side: Tensor

    def cut(self, photos: Tensor, side: int) -> Tensor:
        """Photos [B, C, S, S] -> the windows [B, C, side, side]; past the photo's edge its mirror image."""
        return F.grid_sample(photos, self.grid(side), mode="bilinear", padding_mode="reflection", align_corners=False)

    def grid(self, side: int) -> Tensor:
        """[B, side, side, 2] as `grid_sample` reads a first look to give the windows."""
        theta = torch.zeros(len(self.side), 2, 3, dtype=self.side.dtype, device=self.side.device)
        theta[:, 0, 0] = theta[:, 1, 1] = self.side
        theta[:, :, 2] = self.centre * 2 - 1
        return F.affine_grid(theta, [len(theta), 1, side, side], align_corners=False)

    def back(self, side: int) -> Tensor:
        """[B, side, side, 2] as `grid_sample` reads windows to put them where they lie in the first look."""
        theta = torch.zeros(len(self.side), 2, 3, dtype=self.side.dtype, device=self.side.device)
        theta[:, 0, 0] = theta[:, 1, 1] = 1 / self.side
        theta[:, :, 2] = -(self.centre * 2 - 1) / self.side.unsqueeze(1)
        return F.affine_grid(theta, [len(theta), 1, side, side], align_corners=False)


def lesion_windows_of(mask_logits: Tensor) -> RelativeWindows:
    """The windows of the second look, by the lesions [B, m, m] that the first one found."""
    on = mask_logits > 0
    (left, right), (top, bottom) = _extent(on.any(1)), _extent(on.any(2))
    share = on.float().mean((1, 2))
    found = (share > LEAST_LESION) & (share < MOST_LESION)
    longer = torch.maximum(right - left, bottom - top)
    side = torch.where(found, (longer * MARGIN).clamp(LEAST_SIDE, 1.0), torch.ones_like(longer))
    centre = torch.stack([(left + right) / 2, (top + bottom) / 2], 1)
    half = side.unsqueeze(1) / 2  # the window stays inside the first look
    return RelativeWindows(torch.where(found.unsqueeze(1), centre, 0.5).clamp(half, 1 - half), side)


def _extent(line: Tensor) -> tuple[Tensor, Tensor]:
    """First and last edge of what is on in bool [B, m], 0..1."""
    m = line.shape[1]
    cell = torch.arange(m, device=line.device)
    first, last = torch.where(line, cell, m).amin(1), torch.where(line, cell + 1, 0).amax(1)
    return first / m, last / m


def seen_beside(tokens: VisualTokens, others: VisualTokens, rows: Sequence[int]) -> VisualTokens:
    """Features of photos, some of them together with those of another photo of the same lesion.

    Args:
        others: of the other photos.
        rows: number of the photo that each of them goes with.
    """
    embedding, means, at = tokens.embedding.clone(), tokens.style.clone(), list(rows)
    embedding[at] = F.normalize(embedding[at] + others.embedding, dim=-1)
    means[at] = (means[at] + others.style) / 2
    return replace(tokens, embedding=embedding, means=means)


@dataclass(frozen=True)
class LookBehind:
    """The first look of a photo, to show what a change inside the second look's window does to both.

    Of a model that looks once there is no first look: only `beside` is behind the photo.

    Attributes:
        photo: [1, 3, side, side], the first look.
        window: [1, 3, side, side], the second look, unchanged.
        place: where the window lies.
        beside: what another photo of the lesion shows, unchanged by whatever happens to this one.
    """

    photo: Tensor | None = None
    window: Tensor | None = None
    place: RelativeWindows | None = None
    beside: VisualTokens | None = None

    def with_windows(self, windows: Tensor) -> Tensor:
        """Windows [B, 3, side, side], changed in places -> first looks [B, 3, side, side] changed in the same."""
        if self.photo is None or self.window is None or self.place is None:
            raise ValueError("a model that looks once has no first look to change")
        change = windows - self.window
        grid = self.place.back(self.photo.shape[-1]).expand(len(windows), -1, -1, -1)
        return self.photo + F.grid_sample(change, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
