"""Grad-CAM (Selvaraju et al. 2017) of the model's own diagnosis logit, by captum: the baseline beside the evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from skinclip.assessment import Context
from skinclip.clinical import DIAGNOSIS_CODES
from skinclip.images import LesionImage
from skinclip.model.prompt import Prompts
from skinclip.model.skinclip_vl import SkinClipVL

if TYPE_CHECKING:
    from skinclip.assess import Assessor


class DiagnosisPath(nn.Module):
    """Photo -> diagnosis logits with gradients, for attribution only; the model's own weights, none added."""

    def __init__(self, model: SkinClipVL, prompts: Prompts) -> None:
        super().__init__()
        self.model = model
        self.prompts = prompts

    def forward(self, photos: Tensor) -> Tensor:
        """[1, 3, side, side] -> [1, C]."""
        seen = self.model.perception(photos)
        return self.model.reason(self.prompts, seen, self.model.find_evidence(seen)).logits


def target_layer(model: SkinClipVL) -> nn.Module:
    """The convolutional tower's last stage of blocks, whose output is NCHW.

    Raises NotImplementedError for a tower whose blocks give tokens: Grad-CAM on them would sum over tokens.
    """
    trunk = getattr(model.perception.clip.visual, "trunk", None)
    if trunk is None or not hasattr(trunk, "blocks") or not hasattr(trunk, "conv_stem"):
        raise NotImplementedError("Grad-CAM needs a convolutional image tower")
    return trunk.blocks[-1]


def grad_cam(
    assessor: Assessor, image: LesionImage, context: Context | None = None, code: str | None = None
) -> np.ndarray:
    """Where the diagnosis `code` (by default the leading one) comes from, float32 [H, W] in 0..1 on the photo's pixels.

    Zero outside the model's window and where nothing speaks for the diagnosis.
    """
    model = assessor.model
    window = assessor.locate([image])[0]
    photo = assessor.transform(image.pixels, window).unsqueeze(0)
    prompts = model.reasoner.writer.write([context or Context()])
    path = DiagnosisPath(model, prompts)
    with torch.enable_grad():
        photo = photo.clone().requires_grad_(True)
        if code is None:
            target = int(assessor.see([image], [context or Context()]).trust.probabilities[0].argmax())
        else:
            target = DIAGNOSIS_CODES.index(code)
        heat = LayerGradCam(path, target_layer(model)).attribute(photo, target=target, relu_attributions=True)
    return _on_photo(heat[0, 0].detach().numpy(), window.x, window.y, window.side, image.height, image.width)


def _on_photo(heat: np.ndarray, x: int, y: int, side: int, height: int, width: int) -> np.ndarray:
    top = float(heat.max())
    scaled = heat / top if top > 0 else heat
    whole = np.zeros((height, width), np.float32)
    whole[y : y + side, x : x + side] = cv2.resize(
        scaled.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC
    ).clip(0, 1)
    return whole
