"""Training of the plain classifier: cross-entropy on all training photos, under the augmentation of stage 0.

The same photos, draws, phases, batches and averaging as derm-CLIP gets, and no lesion held out, so that whatever the
model does better is not due to a weaker opponent.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from skinclip.calibration.temperature import fit_calibration
from skinclip.core.config import Stage0Config, TrainConfig
from skinclip.data.augmentation import augment, mix
from skinclip.model.plain import IMAGE_SIZE, PlainClassifier
from skinclip.training.checkpoints import seed_everything
from skinclip.training.derm_clip import stage0_weights
from skinclip.training.epochs import PhotoDraws, mean_recall, train_epochs
from skinclip.training.imagenet import load_imagenet_start
from skinclip.training.losses import MISSING
from skinclip.training.photo_sets import PhotoSet
from skinclip.training.sampling import natural_prior, soft_targets


def plain_step(
    model: PlainClassifier, train: PhotoSet, index: Tensor, side: int, cfg: Stage0Config, generator: torch.Generator
) -> dict[str, Tensor]:
    """Cross-entropy of one batch, part of them under mixup or cutmix."""
    batch = augment(train.batch(index), side, generator)
    targets = soft_targets(train.diagnosis[index], cfg.label_smoothing)
    if torch.rand(1, generator=generator).item() < cfg.mix_share:
        batch, targets, _ = mix(batch, targets, train.has_mask[index], generator)
    log_p = model(batch[:, :3]).log_softmax(1)
    return {"total": -(targets * log_p).sum() / targets.sum().clamp_min(1e-6)}


@torch.inference_mode()
def plain_logits(model: PlainClassifier, photos: PhotoSet, side: int = IMAGE_SIZE) -> Tensor:
    """Logits [n, C] of photos as they are."""
    rows = []
    for index in torch.arange(len(photos)).split(64):
        batch = F.interpolate(photos.batch(index)[:, :3], (side, side), mode="bilinear", antialias=True)
        rows.append(model(batch))
    return torch.cat(rows)


def train_plain(
    recipe: TrainConfig, train: PhotoSet, valid: dict[str, PhotoSet], calib: PhotoSet, work: Path
) -> PlainClassifier:
    """Trains on the labelled photos of `train`, resumes from `work/plain.pt`, calibrates on `calib`.

    Args:
        valid: named sets of labelled photos to follow the training with.
    """
    cfg = recipe.stage0
    generator = seed_everything(recipe.seed)
    model = PlainClassifier()
    load_imagenet_start(model.trunk)
    labelled = (train.diagnosis != MISSING).nonzero()[:, 0]
    weights = stage0_weights(train.diagnosis[labelled], train.criterion_targets.weight[labelled], cfg)

    def validate(average: PlainClassifier) -> dict[str, float]:
        guesses = {k: plain_logits(average, p).argmax(1).numpy() for k, p in valid.items()}
        return {k: mean_recall(valid[k].diagnosis.numpy(), guess) for k, guess in guesses.items()}

    model = train_epochs(
        "plain",
        model,
        cfg,
        PhotoDraws(labelled, weights, generator),
        lambda m, index, size: plain_step(m, train, index, size, cfg, generator),
        validate,
        work,
    )
    sources = {c.source for c in calib.cases}
    prior = natural_prior(train.diagnosis[torch.tensor([c.source in sources for c in train.cases])])
    drawn = torch.zeros(len(prior), dtype=torch.double).index_add_(0, train.diagnosis[labelled], weights.double())
    shift = prior.log() - drawn.clamp_min(1e-6).log()
    logits = plain_logits(model, calib).double().numpy()
    fitted = fit_calibration(logits, calib.diagnosis.numpy(), shift.numpy())
    model.temperature, model.bias = fitted.temperature, fitted.bias
    model.natural_prior = tuple(prior.tolist())
    return model
