"""Stage 0: the compact derm-CLIP, contrastive on photo-description pairs, then frozen.

A photo's positives are all descriptions of its diagnosis (several paraphrases each, drawn anew at every step) and of
the criterion states it is labelled with; all others are negatives: multi-positive InfoNCE in both directions. Mixed
photos have mixed positives.
The lesion-mask head learns beside it, so that the tower's features stay tied to places in the photo.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skinclip.core.config import ModelConfig, Stage0Config, TrainConfig
from skinclip.core.vocabulary import DIAGNOSES, DIAGNOSIS_CODES, EVIDENCE_STATES
from skinclip.data.augmentation import augment, mix
from skinclip.language.paraphrases import describe
from skinclip.model.evidence import LesionMaskHead
from skinclip.model.perception import Perception
from skinclip.training.checkpoints import seed_everything
from skinclip.training.epochs import PhotoDraws, mean_recall, train_epochs
from skinclip.training.imagenet import load_imagenet_start
from skinclip.training.losses import MISSING, CriterionLoss
from skinclip.training.photo_sets import PhotoSet
from skinclip.training.sampling import draw_weights, favour_criteria, soft_targets


class DermClip(nn.Module):
    """The tower with the mask head that is trained beside it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.perception = Perception(config.perception)
        self.mask_head = LesionMaskHead(
            self.perception.level_widths, config.evidence.mask_width, config.evidence.mask_size
        )


@dataclass
class Descriptions:
    """The texts that photos are contrasted with: P paraphrases of each diagnosis, and one of each criterion state."""

    diagnosis: list[str]
    states: list[str]
    owner: Tensor  # [C * P] which diagnosis a wording belongs to

    @classmethod
    def of(cls, paraphrases: Sequence[Sequence[str]]) -> Descriptions:
        """From the paraphrases of each diagnosis."""
        texts = [text for own in paraphrases for text in own]
        owner = torch.tensor([c for c, own in enumerate(paraphrases) for _ in own])
        return cls(texts, [s.descriptions[0] for s in EVIDENCE_STATES], owner)

    @classmethod
    def fixed(cls) -> Descriptions:
        """The descriptions that the model answers with."""
        return cls.of([d.descriptions for d in DIAGNOSES])

    @classmethod
    def drawn(cls, paraphrases: int, rng: random.Random) -> Descriptions:
        """`paraphrases` texts per diagnosis, anew at each call."""
        return cls.of([describe(code, paraphrases, rng) for code in DIAGNOSIS_CODES])


def contrast(logits: Tensor, targets: Tensor, owner: Tensor, text_to_image: float) -> Tensor:
    """Multi-positive InfoNCE of photos and diagnosis descriptions, both directions.

    Args:
        logits: [B, T] scaled similarities of B photos and T descriptions.
        targets: [B, C] soft targets; a row of zeros is not labelled.
        owner: [T] the diagnosis of each description.
        text_to_image: weight of the direction from text to photos.
    """
    by_class = torch.stack([logits[:, owner == c].logsumexp(1) for c in range(targets.shape[1])], 1)  # [B, C]
    log_p = by_class - logits.logsumexp(1, keepdim=True)
    labelled = targets.sum(1).clamp_min(1e-6)
    image_to_text = -(targets * log_p).sum(1).sum() / labelled.sum()
    weights = targets[:, owner]  # [B, T]
    total = weights.sum(0)
    text_log_p = logits.log_softmax(0)
    per_text = -(weights * text_log_p).sum(0) / total.clamp_min(1e-6)
    present = total > 0.5
    if text_to_image == 0 or not present.any():
        return image_to_text
    return image_to_text + text_to_image * per_text[present].mean()


def mask_loss(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy plus soft Dice on the photos that have a mask. [B, m, m], [B, m', m'], [B] bool."""
    if not valid.any():
        return logits.sum() * 0
    target = F.adaptive_avg_pool2d(target.unsqueeze(1), (logits.shape[-2], logits.shape[-1]))[:, 0]
    logits, target = logits[valid], target[valid]
    p = logits.sigmoid()
    dice = 1 - (2 * (p * target).sum((1, 2)) + 1) / (p.sum((1, 2)) + target.sum((1, 2)) + 1)
    return F.binary_cross_entropy_with_logits(logits, target) + dice.mean()


def train_stage0(
    config: ModelConfig, recipe: TrainConfig, train: PhotoSet, valid: dict[str, PhotoSet], out: Path
) -> DermClip:
    """Trains derm-CLIP on the photos of `train` that are not held out; resumes from `out/stage0.pt`.

    Args:
        valid: named sets to follow the training with; nothing is learnt from them.

    Returns:
        The averaged (EMA) model, frozen.
    """
    cfg = recipe.stage0
    generator = seed_everything(recipe.seed)
    model = DermClip(config)
    load_imagenet_start(model.perception.tower.image_trunk())
    rows = (~train.unseen).nonzero()[:, 0]
    average = train_epochs(
        "stage0",
        model,
        cfg,
        PhotoDraws(rows, stage0_weights(train.diagnosis[rows], train.criterion_targets.weight[rows], cfg), generator),
        lambda m, index, side: stage0_step(m, train, index, side, cfg, generator),
        lambda m: {k: validate(m, photos, config.perception.image_size) for k, photos in valid.items()},
        out,
    )
    average.perception.freeze()
    return average


def stage0_weights(diagnosis: Tensor, known: Tensor, cfg: Stage0Config) -> Tensor:
    """[n] chance of each photo to be drawn: rare diagnoses and labelled criteria more often; see `favour_criteria`."""
    return favour_criteria(draw_weights(diagnosis, cfg.draw_power), known, cfg.criteria_share)


def stage0_step(
    model: DermClip,
    train: PhotoSet,
    index: Tensor,
    side: int,
    cfg: Stage0Config,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """The losses of one batch by name, "total" among them."""
    batch = augment(train.batch(index), side, generator)
    has_mask = train.has_mask[index]
    labels = train.diagnosis[index]
    targets = soft_targets(labels, cfg.label_smoothing)
    mixed = torch.rand(1, generator=generator).item() < cfg.mix_share
    if mixed:
        batch, targets, has_mask = mix(batch, targets, has_mask, generator)
    tokens = model.perception(batch[:, :3])
    # Python's generator is seeded by the stage and kept in its checkpoint
    texts = Descriptions.drawn(cfg.paraphrases, random.Random(random.getrandbits(32)))
    embedded = model.perception.embed_texts([*texts.diagnosis, *texts.states])
    logits = tokens.embedding @ embedded.T * model.perception.tower.similarity_scale().clamp(max=50)
    n, m = len(texts.diagnosis), cfg.mask_photos
    parts = {
        "contrast": contrast(logits[:, :n], targets, texts.owner, cfg.w_text_to_image),
        "mask": cfg.w_mask * mask_loss(model.mask_head([x[:m] for x in tokens.levels]), batch[:m, 3], has_mask[:m]),
    }
    if not mixed:  # a mixed photo has no single state of a criterion
        parts["criteria"] = cfg.w_criteria * CriterionLoss()(logits[:, n:], train.criterion_targets[index])
    parts["total"] = torch.stack(list(parts.values())).sum()
    return parts


@torch.no_grad()
def validate(model: DermClip, photos: PhotoSet, side: int) -> float:
    """Balanced accuracy of zero-shot diagnosis (most similar description) on labelled photos."""
    texts = Descriptions.fixed()
    chosen = (photos.diagnosis != MISSING).nonzero()[:, 0]
    embedded = model.perception.embed_texts(texts.diagnosis)
    scale = model.perception.tower.similarity_scale()
    guesses = []
    for index in chosen.split(64):
        batch = F.interpolate(photos.batch(index)[:, :3], (side, side), mode="bilinear", antialias=True)
        logits = model.perception(batch).embedding @ embedded.T * scale
        by_class = torch.stack([logits[:, texts.owner == c].logsumexp(1) for c in range(len(DIAGNOSIS_CODES))], 1)
        guesses.append(by_class.argmax(1))
    return mean_recall(photos.diagnosis[chosen].numpy(), torch.cat(guesses).numpy())
