"""A new calibration for a checkpoint that is trained: its weights stay, what is read from them is fitted anew."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from skinclip.core.config import TrainConfig, load_yaml
from skinclip.core.vocabulary import CRITERIA
from skinclip.data.cases import Case, DataError
from skinclip.model import integrity
from skinclip.pipeline.assessor import Assessor
from skinclip.training.calibrate import fit
from skinclip.training.photo_sets import (
    PhotoSet,
    criterion_labels,
    diagnosis_labels,
    gather,
    photo_key,
    scarce,
    unseen_keys,
    with_clinical,
)

log = logging.getLogger(__name__)


def recalibrate(folder: Path, assessor: Assessor, root: Path, strict: bool = False) -> Assessor:
    """Fits the calibration and the finding thresholds of the checkpoint in `folder` on the photos below `root`.

    Writes trust.safetensors and findings.json there and returns the model with them. Takes about as long as a few
    thousand photos through the model. Raises DataError where no photo can be calibrated on.
    """
    cases = gather(root, strict)
    if not cases.get("calib"):
        raise DataError('no photo to calibrate on: no data set here has rows whose split is "calib"')
    recipe = recipe_beside(folder)
    learnt = with_clinical(scarce(cases["train"], recipe.share, recipe.seed))
    photos = _labels_alone(learnt, unseen_keys(learnt, recipe))
    fitted = fit(assessor.model, photos, cases["calib"], cases.get("valid", []), trained_prior(assessor))
    fitted.save_calibration(folder)
    integrity.record(folder)
    return fitted


def trained_prior(assessor: Assessor) -> torch.Tensor:
    """[C] the prior that the diagnosis head was trained at, as its calibration tells: natural prior less bias, in logs.

    Of a diagnosis that the model does not know it is infinite, and never read.
    """
    calibrator = assessor.calibrator
    bias = np.asarray(calibrator.calibration.bias)
    return torch.from_numpy(np.exp(np.log(np.asarray(calibrator.natural_prior)) - bias))


def recipe_beside(folder: Path) -> TrainConfig:
    """The recipe that the checkpoint in `folder` was trained by, the usual one where it keeps none."""
    path = folder / "recipe.yaml"
    if not path.exists():
        log.warning("%s has no recipe.yaml: the usual share of lesions is taken as held out of stage 0", folder)
        return TrainConfig()
    recipe: TrainConfig = load_yaml(TrainConfig, path)
    return recipe


def _labels_alone(cases: list[Case], unseen: set[str]) -> PhotoSet:
    """The training photos by name and label, without their pixels, which a calibration reads from their files."""
    nothing = torch.zeros(len(cases), 0, dtype=torch.uint8)
    return PhotoSet(
        cases,
        nothing,
        nothing,
        diagnosis_labels(cases),
        torch.tensor([criterion_labels(c) for c in cases]).reshape(len(cases), len(CRITERIA)),
        torch.tensor([photo_key(c) in unseen for c in cases], dtype=torch.bool),
    )
