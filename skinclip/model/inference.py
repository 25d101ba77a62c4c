"""A batch of photos through the model: windows, tokens, evidence and diagnosis logits, before anything is calibrated.

The calibration is fitted on this output and applied to it, so a threshold means on the page what it meant when it was
chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skinclip.core.assessment import Context
from skinclip.imaging.photo import LesionImage
from skinclip.imaging.transform import PhotoTransform, Window
from skinclip.model.decoding import Prefix
from skinclip.model.evidence import Evidence
from skinclip.model.perception import VisualTokens
from skinclip.model.skinclip_vl import SkinClipVL

MIN_LESION = 0.002  # of the photo: a smaller mask is no lesion to centre the window on


@dataclass(frozen=True)
class ForwardOutput:
    """The model's output for a batch of photos; its tensors lie on the CPU.

    Attributes:
        windows: the square of each photo that the model read.
        logits: [B, C] diagnosis logits.
        prefix: the prompt as the language model has read it, of a single photo: its rationale continues from there.
    """

    windows: list[Window]
    tokens: VisualTokens
    evidence: Evidence
    logits: Tensor
    prefix: Prefix | None


@torch.inference_mode()
def lesion_windows(model: SkinClipVL, transform: PhotoTransform, images: Sequence[LesionImage]) -> list[Window]:
    """The square window of each photo that holds its lesion; a square photo is its own window."""
    windows = [transform.centred(image.height, image.width) for image in images]
    oblong = [i for i, image in enumerate(images) if max(image.width, image.height) > 1.05 * windows[i].side]
    if not oblong:
        return windows
    squashed = torch.stack([transform.squash(images[i].pixels) for i in oblong])
    masks = model.evidence.segment(model.perceive(squashed, own_too=False).levels).sigmoid() > 0.5
    for i, mask in zip(oblong, masks.cpu().numpy(), strict=True):
        if mask.mean() < MIN_LESION:
            continue
        rows, columns = np.nonzero(mask)
        x = (columns.mean() + 0.5) / mask.shape[1] * images[i].width
        y = (rows.mean() + 0.5) / mask.shape[0] * images[i].height
        windows[i] = transform.centred(images[i].height, images[i].width, (x, y))
    return windows


@torch.inference_mode()
def forward_batch(
    model: SkinClipVL, transform: PhotoTransform, images: Sequence[LesionImage], contexts: Sequence[Context]
) -> ForwardOutput:
    """Perception, evidence and diagnosis logits of a batch."""
    windows = lesion_windows(model, transform, images)
    photos = torch.stack([transform(i.pixels, w) for i, w in zip(images, windows, strict=True)])
    tokens = model.perceive(photos, model.config.perception.flips)
    evidence = model.find_evidence(tokens)
    prompts = model.reasoner.writer.write(list(contexts))
    reasoning = model.reason(prompts, tokens, evidence, keep=len(images) == 1)
    return ForwardOutput(windows, tokens.to("cpu"), evidence.to("cpu"), reasoning.logits.cpu(), reasoning.prefix)
