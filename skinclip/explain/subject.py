"""The subject of an explanation: one photo, the model's output for it, and the diagnosis to be explained.

A photo goes through the model once and is explained by many methods. Maps lie on the model's window, whatever their
grid; `on_photo` puts one on the photo's own pixels.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from torch import Tensor

from skinclip.calibration.calibrated_model import CalibratedModel, CalibratedOutput
from skinclip.core.assessment import Context, Finding
from skinclip.core.vocabulary import DIAGNOSES
from skinclip.explain import saliency
from skinclip.explain.faithfulness import Answer
from skinclip.explain.saliency import DiagnosisPath, ModelPath, Network
from skinclip.imaging.photo import LesionImage
from skinclip.imaging.transform import Window

GRID = 80  # side to which maps of different methods are brought before they are compared
FADE = 0.06  # of the window, the breadth of a map's rim where it ends inside the photo


@dataclass(frozen=True)
class LabelledMap:
    """`heat` [h, w] on the model's window, any scale, higher is more; `label` names what it shows."""

    label: str
    heat: np.ndarray


@dataclass(frozen=True)
class Subject:
    """A photo, the model's output for it and the diagnosis to be explained; `Assessor.subject` makes one.

    Attributes:
        predictor: the model that gave `output`.
        findings: those that an Assessment of the photo cites.
        target: number of the diagnosis to be explained.
    """

    predictor: CalibratedModel
    image: LesionImage
    context: Context
    output: CalibratedOutput
    findings: Sequence[Finding]
    target: int

    @property
    def diagnosis(self) -> str:
        """The name of the diagnosis to be explained."""
        return DIAGNOSES[self.target].name

    @property
    def window(self) -> Window:
        """The square of the photo that the model read."""
        return self.output.windows[0]

    @cached_property
    def photo(self) -> Tensor:
        """[1, 3, side, side] in 0..1, as the tower reads it."""
        return self.predictor.transform(self.image.pixels, self.window).unsqueeze(0)

    @cached_property
    def mask(self) -> np.ndarray:
        """[m, m] in 0..1, the predicted lesion."""
        return self.output.evidence.mask[0].numpy()

    @cached_property
    def lesion(self) -> np.ndarray:
        """bool [GRID, GRID], the predicted lesion; the whole window where none was found."""
        lesion = cv2.resize(self.mask, (GRID, GRID), interpolation=cv2.INTER_AREA) > 0.5
        return lesion if lesion.any() else np.ones_like(lesion)

    @cached_property
    def path(self) -> ModelPath:
        """Photos -> the model's own diagnosis logits, one view of each."""
        model = self.predictor.model
        return DiagnosisPath(model, model.reasoner.writer.write([self.context]), self.output.behind)

    @cached_property
    def network(self) -> Network:
        """The model's own diagnosis, for saliency; see `saliency.own_network`."""
        return saliency.own_network(self.path)

    @cached_property
    def answer(self) -> Answer:
        """Photos [B, 3, side, side] -> the calibrated probability of the diagnosis that is explained, [B]."""
        path = self.path
        calibration = self.predictor.calibrator.of(self.output.calibrated.kinds[0]).calibration

        def probability(photos: Tensor) -> np.ndarray:
            with torch.inference_mode():
                logits = torch.cat([path(part) for part in photos.split(min(16, path.model.config.batch))])
            return calibration.apply(logits.double().numpy())[:, self.target]

        return probability

    def rng(self) -> np.random.Generator:
        """A generator that gives the same draws for the same photo."""
        return np.random.default_rng(zlib.crc32(self.image.sha256.encode()))

    def labelled(self, heat: np.ndarray) -> list[LabelledMap]:
        """One map, labelled with the diagnosis."""
        return [LabelledMap(self.diagnosis, heat)]


def enlarged(heat: np.ndarray) -> np.ndarray:
    """float32 [GRID, GRID], the values as they are."""
    return cv2.resize(heat.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_LINEAR)


def on_grid(heat: np.ndarray, side: int = GRID) -> np.ndarray:
    """float32 [side, side] in 0..1, whatever its scale was; a flat map gives zeros."""
    fine = cv2.resize(heat.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    low, high = float(fine.min()), float(fine.max())
    return (fine - low) / (high - low) if high > low else np.zeros_like(fine)


def on_photo(heat: np.ndarray, subject: Subject) -> np.ndarray:
    """float32 [H, W] in 0..1 on the photo's pixels: negative places are 0, the highest is 1, past the window 0.

    It fades towards an edge of the window that is not one of the photo: nothing is known beyond, and a map that ended
    there in a line would look as if the line were a finding.
    """
    window, image = subject.window, subject.image
    top = float(heat.max())
    scaled = (heat / top if top > 0 else np.zeros_like(heat)).astype(np.float32)
    fine = cv2.resize(scaled, (window.side, window.side), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    rows, columns = _fade(window.y, window.side, image.height), _fade(window.x, window.side, image.width)
    return window.place((fine * rows[:, None] * columns).astype(np.float32), image.height, image.width)


def _fade(start: int, side: int, length: int) -> np.ndarray:
    """float32 [side] in 0..1: 1, but for a ramp to each end of the window that lies inside the photo's `length`."""
    place = (np.arange(side, dtype=np.float32) + 0.5) / (FADE * side)
    before = place if start > 0 else np.ones_like(place)
    after = place[::-1] if start + side < length else np.ones_like(place)
    return np.minimum(before, after).clip(0, 1)
