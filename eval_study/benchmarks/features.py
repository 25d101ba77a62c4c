"""Frozen features of photos, kept on disk, so that an ablation costs seconds and not hours.

The towers are frozen, so their outputs are all that a head can learn from. Training photos are kept as stage 2 keeps
them, in the same files where the folder is the same; photos to measure on as an Assessment looks at them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from skinclip.core.config import TrainConfig
from skinclip.data.cases import DataError
from skinclip.imaging.photo import PhotoError, load_photo
from skinclip.imaging.transform import PhotoTransform
from skinclip.model.inference import look
from skinclip.model.skinclip_vl import SkinClipVL
from skinclip.training.distributed import DistributedContext
from skinclip.training.joint import CACHE_BATCH
from skinclip.training.photo_sets import PhotoSet
from skinclip.training.views import (
    KeptViews,
    ViewFeatures,
    ViewStore,
    as_kept,
    keep_views,
    kept_grid,
    learnt_before,
    view_side,
)

VIEWS = 2  # augmented views kept of each photo where the recipe keeps none


class AssessedPhotos(KeptViews):
    """Photos as an Assessment looks at them, read from their files; one view each."""

    def __init__(self, photos: PhotoSet) -> None:
        super().__init__(photos, side=0, strength=0.0, count=1, seed=0)

    @torch.inference_mode()
    def seen(self, model: SkinClipVL, rows: Tensor, encode_in: str) -> ViewFeatures:
        """See `KeptViews.seen`; whatever `encode_in` says, in the precision of an Assessment.

        Raises DataError naming a photo that cannot be read.
        """
        cases = [self.photos.cases[i] for i in rows.tolist()]
        try:
            images = [load_photo(case.image) for case in cases]
        except PhotoError as error:
            raise DataError(f"a photo to measure on cannot be read: {error}") from error
        tokens = look(model, PhotoTransform(model.config.photo_side), images).tokens
        mask_logits = model.evidence.segment(tokens.levels)
        nothing = mask_logits.new_zeros(len(rows), 1, 8, 8)  # no reference mask: nothing is learnt from these
        return as_kept(model, tokens, mask_logits, nothing)

    @property
    def settings(self) -> list[object]:
        return ["as assessed"]


@dataclass(frozen=True)
class Features:
    """Frozen features of n photos under V views each.

    Attributes:
        photos: labels and cases; pixels are not needed any more.
        views: which pixels were seen.
        store: what the frozen parts made of them, mapped from disk.
        grid: of the patch tokens.
    """

    photos: PhotoSet
    views: KeptViews
    store: ViewStore
    grid: tuple[int, int]

    def __len__(self) -> int:
        return len(self.photos)

    def read(self, photo: Tensor, view: int) -> ViewFeatures:
        """The features of the photos [k] under one of their views."""
        drawn = self.views.numbered(photo, torch.full_like(photo, view))
        return self.store.read(drawn, torch.arange(len(photo)), self.grid, "cpu")

    def part(self, name: str) -> Tensor:
        """[n, V, ...] a small part of all photos at once: "embedding" or "style"."""
        return self.store.parts[name].unflatten(0, (len(self), self.views.count))


def features_of(model: SkinClipVL, views: KeptViews, folder: Path, encode_in: str = "float32") -> Features:
    """The features of `views`, from `folder` as far as they were kept there for the same towers and photos."""
    store = keep_views(model, views, "", folder, CACHE_BATCH, DistributedContext(model.device.type), encode_in)
    return Features(views.photos, views, store, kept_grid(model))


def augmented(model: SkinClipVL, photos: PhotoSet, recipe: TrainConfig, folder: Path) -> Features:
    """The features of `photos` under a few fixed augmentations each: those of stage 2."""
    cfg = recipe.stage2
    side, count = view_side(model.config, recipe), cfg.cached_views or VIEWS
    views = KeptViews(photos, side, cfg.augmentation, count, recipe.seed)
    return features_of(model, views, folder, cfg.encode_in)


def frozen_sha(model: SkinClipVL) -> str:
    """Hash of what a head starts from and reads, tower, frozen evidence and readout: they outlive a new training of the
    rest."""
    readout = model.reasoner.readout
    digest = hashlib.sha256()
    for state in (model.perception.tower.weights(), learnt_before(model), readout.state_dict() if readout else {}):
        for name, value in state.items():
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
