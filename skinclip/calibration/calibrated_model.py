"""A model with its calibration: photos in, calibrated output out. Pipeline, explanations and benchmarks ask this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from skinclip.calibration.calibrator import CalibratedPrediction, Calibrator
from skinclip.core.assessment import Context
from skinclip.imaging.photo import LesionImage
from skinclip.imaging.transform import PhotoTransform
from skinclip.model.inference import ForwardOutput, forward_batch
from skinclip.model.skinclip_vl import SkinClipVL


@dataclass(frozen=True)
class CalibratedOutput(ForwardOutput):
    """The model's output for a batch of photos, with the calibrated prediction for each."""

    calibrated: CalibratedPrediction


@dataclass(frozen=True)
class CalibratedModel:
    """A model, the transform that belongs to it and the calibrator fitted on top of it."""

    model: SkinClipVL
    transform: PhotoTransform
    calibrator: Calibrator

    @torch.inference_mode()
    def forward(self, images: Sequence[LesionImage], contexts: Sequence[Context]) -> CalibratedOutput:
        """Perception, evidence, diagnosis and calibration of a batch."""
        output = forward_batch(self.model, self.transform, images, contexts)
        calibrated = self.calibrator.apply(output.logits.double().numpy(), output.tokens.style.double().numpy())
        return CalibratedOutput(**{f.name: getattr(output, f.name) for f in fields(output)}, calibrated=calibrated)
