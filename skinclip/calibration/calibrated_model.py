"""A model with its calibration: photos in, calibrated output out. Pipeline, explanations and benchmarks ask this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from skinclip.calibration.calibrator import CalibratedPrediction, Calibrator
from skinclip.calibration.outputs import PAIR
from skinclip.calibration.prevalence import Prevalence
from skinclip.core.assessment import Context
from skinclip.imaging.photo import LesionImage
from skinclip.imaging.transform import PhotoTransform
from skinclip.model.inference import ForwardOutput, forward_batch, forward_changed
from skinclip.model.skinclip_vl import SkinClipVL


@dataclass(frozen=True)
class CalibratedOutput(ForwardOutput):
    """The model's output for a batch of photos, with the calibrated prediction for each.

    `criterion_scores` [B, K] are the calibrated evidence scores: probabilities of criteria, thresholds and findings are
    read from them, while the reasoner itself reads `evidence.scores`.
    """

    calibrated: CalibratedPrediction
    criterion_scores: Tensor


@dataclass(frozen=True)
class CalibratedModel:
    """A model, the transform that belongs to it and the calibrator fitted on top of it."""

    model: SkinClipVL
    transform: PhotoTransform
    calibrator: Calibrator

    def at(self, prevalence: Prevalence) -> CalibratedModel:
        """The same at another prevalence; see `Calibrator.at`."""
        return replace(self, calibrator=self.calibrator.at(prevalence.vector(), prevalence.name))

    @torch.inference_mode()
    def forward(
        self,
        images: Sequence[LesionImage],
        contexts: Sequence[Context],
        kinds: Sequence[str | None] | None = None,
        others: Sequence[LesionImage | None] | None = None,
    ) -> CalibratedOutput:
        """Perception, evidence, diagnosis and calibration of a batch.

        Args:
            kinds: kind of each photo where it is known, such as that of the photo that these are altered copies of;
                None is what a person said of each. Any other is recognised, and two photos are a `PAIR` where the
                calibration knows of pairs.
            others: a second photo of each lesion, None where there is none.
        """
        named: list[str | None] = [*(kinds or [image.kind for image in images])]
        for i, other in enumerate(others or ()):
            named[i] = PAIR if other is not None and PAIR in self.calibrator.by_kind else named[i]
        return self._calibrated(forward_batch(self.model, self.transform, images, contexts, others), named)

    @torch.inference_mode()
    def forward_changed(
        self, windows: Sequence[np.ndarray], context: Context, of: CalibratedOutput
    ) -> CalibratedOutput:
        """The output for changed windows, uint8 [side, side, 3] each, of the single photo whose output is `of`."""
        output = forward_changed(self.model, self.transform, windows, context, of.behind)
        return self._calibrated(output, [of.calibrated.kinds[0]] * len(windows))

    def _calibrated(self, output: ForwardOutput, kinds: Sequence[str | None] | None) -> CalibratedOutput:
        calibrated = self.calibrator.apply(output.logits.double().numpy(), output.style.double().numpy(), kinds)
        return CalibratedOutput(
            **{f.name: getattr(output, f.name) for f in fields(output)},
            calibrated=calibrated,
            criterion_scores=self.criterion_scores(output.evidence.criterion_scores),
        )

    def criterion_scores(self, scores: Tensor) -> Tensor:
        """Calibrated scores [B, K] of evidence `scores` [B, K]."""
        return torch.from_numpy(self.calibrator.criteria.apply(scores.double().numpy()))
