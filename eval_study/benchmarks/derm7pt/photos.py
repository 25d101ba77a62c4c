"""Derm7pt photos as they are and cropped to the lesion, with the predictions on them."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch

from eval_study.benchmarks.common import (
    Bench,
    Measured,
    fingerprint,
    predict,
    save_arrays,
    with_labels,
)
from skinclip.evaluation.run import log_test_use
from skinclip.imaging.photo import LesionImage, from_array, load_photo
from skinclip.pipeline.assessor import Assessor

DATA = "derm7pt"
CROPS = ("uncropped", "cropped")
MARGIN = 0.25  # around the lesion's box on each side, in lengths of its longer side
MIN_LESION = 0.002  # share of the photo under which a mask is no lesion


@torch.inference_mode()
def lesion_box(assessor: Assessor, photo: LesionImage) -> tuple[float, float, float, float] | None:
    """x0, y0, x1, y1 in photo pixels of the largest connected part of the predicted mask; None without a lesion."""
    squashed = assessor.transform.squash(photo.pixels)[None]
    mask = assessor.model.evidence.segment(assessor.model.perceive(squashed).levels)[0].sigmoid().numpy() > 0.5
    if mask.mean() < MIN_LESION:
        return None
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    x, y, w, h, _ = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()]  # row 0 is the background
    across, down = photo.width / mask.shape[1], photo.height / mask.shape[0]
    return x * across, y * down, (x + w) * across, (y + h) * down


def cropped(photo: LesionImage, box: tuple[float, float, float, float] | None) -> LesionImage:
    """The square around `box` with MARGIN on each side, as far as the photo reaches; its centre square without one."""
    height, width = photo.height, photo.width
    x0, y0, x1, y1 = box or (0.0, 0.0, float(width), float(height))
    side = int(np.clip(round(max(x1 - x0, y1 - y0) * (1 + 2 * MARGIN)), 1, min(height, width)))
    x = int(np.clip(round((x0 + x1 - side) / 2), 0, width - side))
    y = int(np.clip(round((y0 + y1 - side) / 2), 0, height - side))
    return from_array(photo.pixels[y : y + side, x : x + side])


def view(bench: Bench, split: str, photo: str, crop: str) -> Measured:
    """Predictions on the dermoscopic or clinical photos of a split; cases without a clinical photo are left out.

    Kept as `Bench.measured` keeps its own, and noted in the ledger alike.
    """
    if photo == "dermoscopy" and crop == "uncropped":
        return bench.measured(DATA, split)
    cases = bench.cases(DATA, split)
    if photo == "clinical":
        cases = [replace(c, image=c.clinical_image, mask=None) for c in cases if c.clinical_image is not None]
    name = f"{DATA}-{split}-{photo}-{crop}-{bench.sha[:12]}-{fingerprint(cases)}.npz"
    path = bench.work / "predictions" / name
    if not path.exists():
        if split == "test":
            log_test_use(bench.ledger, bench.sha, f"{DATA}, {photo}, {crop}", split, len(cases), bench.reason)
        photos = [load_photo(c.image) for c in cases]
        if crop == "cropped":
            photos = [cropped(p, lesion_box(bench.assessor, p)) for p in photos]
        save_arrays(path, predict(bench.assessor, cases, photos))
    return with_labels(cases, dict(np.load(path)))
