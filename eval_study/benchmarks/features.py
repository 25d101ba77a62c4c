"""Frozen features of the training photos, kept on disk, so that an ablation costs seconds and not hours.

The tower is frozen, so its features are all that a head can learn from. Training photos are kept under a few fixed
augmentations, other photos as they are; the 20 x 20 patch tokens are pooled to 10 x 10 to bring them into memory.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from skinclip.core.assessment import Context
from skinclip.core.config import TrainConfig
from skinclip.core.vocabulary import SEXES, SITES
from skinclip.data.augmentation import augment
from skinclip.model.skinclip_vl import SkinClipVL
from skinclip.training.photo_sets import PhotoSet, photo_key

GRID = 10
VIEWS = 2  # augmented views kept of each training photo
CONTEXT_WIDTH = 2 + len(SEXES) + len(SITES)


@dataclass
class Features:
    """Frozen features of n photos under V views.

    Attributes:
        tokens: float16 [V, n, GRID * GRID, D] pooled patch tokens.
        embeddings: [V, n, E] unit length.
        style: [V, n, S].
        lesion: [V, n, GRID, GRID] share of each patch that is lesion, by the model's own mask.
        labelled_lesion: [V, n, GRID, GRID] the same by the reference mask, NaN where there is none.
        context: [n, CONTEXT_WIDTH].
        photos: labels and cases; its photo tensors are not needed any more.
    """

    tokens: np.ndarray
    embeddings: Tensor
    style: Tensor
    lesion: Tensor
    labelled_lesion: Tensor
    context: Tensor
    photos: PhotoSet

    def __len__(self) -> int:
        return self.embeddings.shape[1]


def context_vector(context: Context) -> list[float]:
    """Age in units of 50 years and whether it is given, then one-hot sex and body site; zeros where not given."""
    age = [0.0, 0.0] if context.age is None else [context.age / 50 - 1, 1.0]
    return [*age, *(float(context.sex == s) for s in SEXES), *(float(context.site == s) for s in SITES)]


def tower_sha(model: SkinClipVL) -> str:
    """Hash of what the features depend on, frozen tower and lesion mask: they outlive a new training of the rest."""
    digest = hashlib.sha256()
    for state in (model.perception.tower.weights(), model.evidence.mask_head.state_dict()):
        for name, value in state.items():
            digest.update(name.encode())
            digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def features_of(
    model: SkinClipVL, photos: PhotoSet, recipe: TrainConfig, folder: Path, views: int = 0, seed: int = 0
) -> Features:
    """The features of `photos`, from `folder` where they were kept for the same tower, photos and views.

    Args:
        views: augmented views per photo, drawn as stage 2 draws them; 0 is one view of the photo as it is.
    """
    names = "\n".join(photo_key(c) for c in photos.cases)
    settings = f"{tower_sha(model)}|{names}|{photos.photos.shape}|{views}|{seed}|{recipe.stage2.augmentation}"
    digest = hashlib.sha256(settings.encode()).hexdigest()[:16]
    path = folder / f"features-{digest}"
    if not (path / "done").exists():
        _measure(model, photos, recipe, path, views, seed)
    small = {k: torch.from_numpy(v).float() for k, v in np.load(path / "small.npz").items()}
    context = torch.tensor([context_vector(c.context) for c in photos.cases]).reshape(len(photos), CONTEXT_WIDTH)
    return Features(tokens=np.load(path / "tokens.npy", mmap_mode="r"), context=context, photos=photos, **small)


@torch.inference_mode()
def _measure(model: SkinClipVL, photos: PhotoSet, recipe: TrainConfig, path: Path, views: int, seed: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    side, n = model.config.perception.image_size, len(photos)
    shape = (max(1, views), n, GRID * GRID, model.perception.width)
    tokens = np.lib.format.open_memmap(path / "tokens.npy", mode="w+", dtype=np.float16, shape=shape)
    rows: dict[str, list[list[Tensor]]] = {k: [] for k in ("embeddings", "style", "lesion", "labelled_lesion")}
    for v in range(shape[0]):
        for part in rows.values():
            part.append([])
        for index in tqdm(torch.arange(n).split(32), desc=f"features, view {v + 1}/{shape[0]}", mininterval=10):
            batch = photos.batch(index)
            if views:
                batch = augment(batch, side, generator, recipe.stage2.augmentation)
            else:
                batch = F.interpolate(batch, (side, side), mode="bilinear", antialias=True)
            perceived = model.perceive(batch[:, :3], flips=not views and model.config.perception.flips)
            evidence = model.find_evidence(perceived)
            maps = perceived.tokens.transpose(1, 2).unflatten(2, perceived.grid)
            tokens[v, index.numpy()] = F.adaptive_avg_pool2d(maps, GRID).flatten(2).transpose(1, 2).half().numpy()
            known = photos.has_mask[index].view(-1, 1, 1)
            labelled = F.adaptive_avg_pool2d(batch[:, 3:], GRID)[:, 0]
            rows["embeddings"][v].append(perceived.embedding)
            rows["style"][v].append(perceived.style)
            rows["lesion"][v].append(F.adaptive_avg_pool2d(evidence.lesion.unsqueeze(1), GRID)[:, 0])
            rows["labelled_lesion"][v].append(torch.where(known, labelled, torch.nan))
    tokens.flush()
    np.savez(path / "small.npz", **{k: torch.stack([torch.cat(v) for v in p]).numpy() for k, p in rows.items()})
    (path / "done").touch()
