"""The epoch loop of everything that trains a whole image tower: derm-CLIP (stage 0) and the plain classifier.

Photos are drawn with replacement, rare classes more often; the learning rate goes down one cosine over all phases; what
is kept is the exponential average of the weights. Resumes after a kill from the last whole epoch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
from sklearn.metrics import recall_score
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from skinclip.core.config import Stage0Config
from skinclip.training.checkpoints import load_checkpoint, save_checkpoint
from skinclip.training.csv_log import CsvLog
from skinclip.training.sampling import batches
from skinclip.training.schedules import cosine_schedule

log = logging.getLogger(__name__)
Model = TypeVar("Model", bound=nn.Module)
VALIDATE_EVERY = 4


@dataclass(frozen=True)
class PhotoDraws:
    """Photos that may be drawn.

    Attributes:
        numbers: [n] of the photos.
        chances: [n] of each to be drawn.
        generator: that draws them.
    """

    numbers: Tensor
    chances: Tensor
    generator: torch.Generator


def train_epochs(
    name: str,
    model: Model,
    cfg: Stage0Config,
    photos: PhotoDraws,
    step: Callable[[Model, Tensor, int], dict[str, Tensor]],
    validate: Callable[[Model], Mapping[str, float]],
    out: Path,
) -> Model:
    """Trains `model` in place; resumes from `out/<name>.pt`.

    Args:
        step: (model, photo numbers, side in pixels) -> named losses of one batch, "total" among them.
        validate: figures of the averaged model, to follow the training with.

    Returns:
        The averaged model, in eval mode.
    """
    numbers, generator = photos.numbers, photos.generator
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = averaged(model, cfg.ema)
    kept = cast(Model, average.module)
    optimizer = torch.optim.AdamW(_groups(model, cfg.weight_decay), lr=cfg.lr)
    sides = [side for side, length in cfg.phases for _ in range(length)]
    per_epoch = len(numbers) // cfg.batch_size
    done, first, rows = 0, 0, None
    if state := load_checkpoint(out / f"{name}.pt"):
        model.load_state_dict(state["model"])
        kept.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        done, first, rows = state["step"], state["epoch"] + 1, state["log_rows"]
        average.n_averaged.fill_(done + 1)
    csv_log = CsvLog(out / "log.csv", name, rows)
    peaks = [cfg.lr * group["factor"] for group in optimizer.param_groups]
    schedule = cosine_schedule(optimizer, peaks, per_epoch * len(sides), per_epoch // 2, done)
    for number in range(first, len(sides)):
        model.train()
        order = numbers[
            torch.multinomial(photos.chances, per_epoch * cfg.batch_size, replacement=True, generator=generator)
        ]
        description = f"{name}, epoch {number + 1}/{len(sides)}"
        for index in tqdm(list(batches(order, cfg.batch_size)), desc=description, mininterval=5):
            parts = step(model, index, sides[number])
            optimizer.zero_grad()
            parts["total"].backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
            if done % 20 == 0:
                csv_log.write(done, {k: v.item() for k, v in parts.items()})
            done += 1
        if (number + 1) % VALIDATE_EVERY == 0 or number + 1 == len(sides):
            scores = validate(kept)
            csv_log.write(done, {f"balanced_accuracy/{k}": v for k, v in scores.items()})
            log.info("%s epoch %d: %s", name, number + 1, {k: round(v, 4) for k, v in scores.items()})
        save_checkpoint(
            out / f"{name}.pt",
            {
                "model": model.state_dict(),
                "average": kept.state_dict(),
                "optimizer": optimizer.state_dict(),
                "generator": generator.get_state(),
                "step": done,
                "epoch": number,
                "log_rows": csv_log.rows,
            },
        )
    return kept.eval()


def _groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Pretrained trunk at a part of the rate; no decay on norms, biases and scales."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault(("trunk." in name, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": p, "factor": 0.4 if trunk else 1.0, "weight_decay": weight_decay if decay else 0.0}
        for (trunk, decay), p in groups.items()
    ]


def mean_recall(labels: np.ndarray, guesses: np.ndarray) -> float:
    """Balanced accuracy: the mean recall of the classes that are among the labels [n], for guesses [n]."""
    return float(recall_score(labels, guesses, labels=np.unique(labels), average="macro", zero_division=0))


def averaged(model: Model, decay: float) -> AveragedModel:
    """The exponential average of a model's weights and running statistics, frozen, without those of the first steps.

    The average starts as the model is; the decay rises to `decay` as (1 + n) / (10 + n) over the first n steps.
    """

    def average(own: Tensor, new: Tensor, updates: Tensor | int) -> Tensor:
        if not own.is_floating_point():
            return new
        done = int(updates) - 1
        mean = own.lerp(new.to(own.dtype), 1 - min(decay, (1 + done) / (10 + done)))
        return torch.where(own == new, own, mean)  # an attention mask holds infinities, whose difference is no number

    kept = AveragedModel(model, avg_fn=average, use_buffers=True)
    kept.n_averaged.fill_(1)  # the model as it is counts as the first
    return kept.eval().requires_grad_(False)
