"""A batch of photos through the model: windows, tokens, evidence and diagnosis logits, before anything is calibrated.

The calibration is fitted on this output and applied to it, so a threshold means on the page what it meant when it was
chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from skinclip.core.assessment import Context
from skinclip.imaging.photo import LesionImage, from_array
from skinclip.imaging.transform import PhotoTransform, Window
from skinclip.model.decoding import Prefix
from skinclip.model.evidence import Evidence
from skinclip.model.looks import LookBehind, RelativeWindows, lesion_windows_of, seen_beside
from skinclip.model.perception import FIRST, VisualTokens
from skinclip.model.skinclip_vl import SkinClipVL

MIN_LESION = 0.002  # of the photo: a smaller mask is no lesion to centre the window on


@dataclass(frozen=True)
class ForwardOutput:
    """The model's output for a batch of photos; its tensors lie on the CPU.

    Attributes:
        windows: the square of each photo that the model read last, in which its regions lie.
        logits: [B, C] diagnosis logits.
        prefix: the prompt as the language model has read it, of a single photo: its rationale continues from there.
        style: [B, S] of the photos themselves; that of `tokens` is of all photos of a lesion together.
        behind: the first look at a single photo and what another photo of the lesion shows; None where there is
            neither.
    """

    windows: list[Window]
    tokens: VisualTokens
    evidence: Evidence
    logits: Tensor
    prefix: Prefix | None
    style: Tensor
    behind: LookBehind | None


@dataclass(frozen=True)
class Looks:
    """Features of B photos, in all looks that the model takes.

    Attributes:
        windows: the squares of the last look.
        tokens: of all looks together.
        behind: the first look at each photo; empty where the model looks once.
    """

    windows: list[Window]
    tokens: VisualTokens
    behind: list[LookBehind]


@torch.inference_mode()
def lesion_windows(model: SkinClipVL, transform: PhotoTransform, images: Sequence[LesionImage]) -> list[Window]:
    """The square window of each photo that the model reads last."""
    return (
        look(model, transform, images).windows
        if model.config.perception.looks > 1
        else first_windows(model, transform, images)
    )


@torch.inference_mode()
def first_windows(model: SkinClipVL, transform: PhotoTransform, images: Sequence[LesionImage]) -> list[Window]:
    """The largest square of each photo that holds its lesion; a square photo is its own window."""
    windows = [transform.centred(image.height, image.width) for image in images]
    oblong = [i for i, image in enumerate(images) if max(image.width, image.height) > 1.05 * windows[i].side]
    if not oblong:
        return windows
    squashed = torch.stack([transform.squash(images[i].pixels) for i in oblong])
    masks = model.evidence.segment(model.perceive(squashed, own_too=False, look=FIRST).levels, FIRST).sigmoid() > 0.5
    for i, mask in zip(oblong, masks.cpu().numpy(), strict=True):
        if mask.mean() < MIN_LESION:
            continue
        rows, columns = np.nonzero(mask)
        x = (columns.mean() + 0.5) / mask.shape[1] * images[i].width
        y = (rows.mean() + 0.5) / mask.shape[0] * images[i].height
        windows[i] = transform.centred(images[i].height, images[i].width, (x, y))
    return windows


@torch.inference_mode()
def look(model: SkinClipVL, transform: PhotoTransform, images: Sequence[LesionImage], own_too: bool = True) -> Looks:
    """Looks at a batch of photos as often as the model does."""
    config = model.config.perception
    windows = first_windows(model, transform, images)
    photos = _cut(transform, images, windows)
    first = model.perceive(photos, config.flips, own_too and config.looks == 1, FIRST)
    if config.looks == 1:
        return Looks(windows, first, [])
    places = lesion_windows_of(model.evidence.segment(first.levels, FIRST).cpu())
    closer = [_inside(window, places, i) for i, window in enumerate(windows)]
    near = _cut(transform, images, closer)
    second = model.perceive(near, config.flips, own_too)
    placed = [_relative(inner, outer) for inner, outer in zip(closer, windows, strict=True)]
    behind = [LookBehind(photos[i : i + 1], near[i : i + 1], place) for i, place in enumerate(placed)]
    return Looks(closer, model.perception.together([first, second]), behind)


def _cut(transform: PhotoTransform, images: Sequence[LesionImage], windows: Sequence[Window]) -> Tensor:
    return torch.stack([transform(i.pixels, w) for i, w in zip(images, windows, strict=True)])


def _inside(window: Window, places: RelativeWindows, i: int) -> Window:
    """The i-th of `places` as a square of whole pixels inside the first look's window."""
    side = max(1, min(window.side, round(float(places.side[i]) * window.side)))
    x, y = (round((float(c) * window.side) - side / 2) for c in places.centre[i])
    x, y = (int(np.clip(v, 0, window.side - side)) for v in (x, y))
    return Window(window.x + x, window.y + y, side)


def _relative(inner: Window, outer: Window) -> RelativeWindows:
    """`inner` in shares of `outer`."""
    centre = [[(inner.x + inner.side / 2 - outer.x) / outer.side, (inner.y + inner.side / 2 - outer.y) / outer.side]]
    return RelativeWindows(torch.tensor(centre), torch.tensor([inner.side / outer.side]))


@torch.inference_mode()
def forward_batch(
    model: SkinClipVL,
    transform: PhotoTransform,
    images: Sequence[LesionImage],
    contexts: Sequence[Context],
    others: Sequence[LesionImage | None] | None = None,
) -> ForwardOutput:
    """Perception, evidence and diagnosis logits of a batch.

    Args:
        others: another photo of each lesion, as a clinical close-up of one seen by dermoscopy; None where there is
            none. It is seen with the first one; windows and evidence are those of the first.
    """
    there = [i for i, other in enumerate(others or ()) if other is not None]
    beside = look(model, transform, [o for o in others or () if o is not None]).tokens if there else None
    return _forward(model, look(model, transform, images), contexts, beside, there)


def _forward(
    model: SkinClipVL, seen: Looks, contexts: Sequence[Context], beside: VisualTokens | None, there: Sequence[int]
) -> ForwardOutput:
    """The output for photos that were looked at; those numbered in `there` with what is `beside` them."""
    tokens = seen.tokens if beside is None else seen_beside(seen.tokens, beside, there)
    evidence = model.find_evidence(tokens, seen.tokens.style)
    prompts = model.reasoner.writer.write(list(contexts))
    single = len(contexts) == 1
    reasoning = model.reason(prompts, tokens, evidence, keep=single)
    behind = None
    if single and (seen.behind or beside is not None):
        behind = replace(seen.behind[0] if seen.behind else LookBehind(), beside=beside)
    return ForwardOutput(
        seen.windows,
        tokens.to("cpu"),
        evidence.to("cpu"),
        reasoning.logits.cpu(),
        reasoning.prefix,
        seen.tokens.style.cpu(),
        behind,
    )


def seen_behind(model: SkinClipVL, near: Tensor, behind: LookBehind) -> VisualTokens:
    """Features of changed versions [B, 3, side, side] of one photo's window, in all looks that the model takes."""
    tokens, n = model.perceive_with_gradients(near), len(near)
    if behind.photo is not None:
        first = model.perceive_with_gradients(behind.with_windows(near), own_too=False, look=FIRST)
        tokens = model.perception.together([first, tokens])
    return tokens if behind.beside is None else seen_beside(tokens, behind.beside.repeated(n), range(n))


@torch.inference_mode()
def forward_changed(
    model: SkinClipVL,
    transform: PhotoTransform,
    windows: Sequence[np.ndarray],
    context: Context,
    behind: LookBehind | None,
) -> ForwardOutput:
    """The output for changed versions of one photo's window, uint8 [side, side, 3] each.

    Args:
        behind: the first look of the photo as it is, into which each change is carried over, and what another photo
            of the lesion shows. Without a first look the windows are photos like any other.
    """
    images = [from_array(window) for window in windows]
    contexts = [context] * len(images)
    if behind is None or behind.photo is None:
        n, beside = len(images), None if behind is None else behind.beside
        others = None if beside is None else beside.repeated(n)
        return _forward(model, look(model, transform, images), contexts, others, range(n))
    near = torch.stack([transform.squash(window) for window in windows])
    tokens = seen_behind(model, near, behind)
    evidence = model.find_evidence(tokens)
    logits = model.reason(model.reasoner.writer.write(contexts), tokens, evidence).logits
    whole = [Window(0, 0, len(window)) for window in windows]
    return ForwardOutput(whole, tokens.to("cpu"), evidence.to("cpu"), logits.cpu(), None, tokens.style.cpu(), None)
