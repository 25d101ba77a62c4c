"""The mask stage: where a tower is published and was never trained here, the lesion mask is learnt alone, on its maps.

A preset whose own tower stage 0 makes learns the mask beside it, with the same loss. The towers' work is shared out
among the processes; the head is small, so each trains it alike, on all.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from skinclip.core.config import TrainConfig
from skinclip.data.augmentation import Augmentation
from skinclip.data.cases import DataError
from skinclip.model.skinclip_vl import SkinClipVL
from skinclip.training.checkpoints import load_checkpoint, rng_state, save_checkpoint, seed_everything
from skinclip.training.csv_log import CsvLog
from skinclip.training.derm_clip import mask_loss
from skinclip.training.distributed import DistributedContext
from skinclip.training.photo_sets import PhotoSet
from skinclip.training.schedules import cosine_schedule


def train_masks(
    model: SkinClipVL, recipe: TrainConfig, train: PhotoSet, out: Path, distributed: DistributedContext
) -> None:
    """Trains `model.evidence.mask_head` in place; resumes from `out/masks.pt`.

    Raises DataError where no photo has a reference mask.
    """
    cfg, generator = recipe.masks, seed_everything(recipe.seed)
    masked = train.has_mask.nonzero()[:, 0]
    if not len(masked):
        raise DataError("no training photo has a lesion mask: add a data set that has them, such as HAM10000's")
    head = model.evidence.mask_head
    optimizer = torch.optim.AdamW(head.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay)
    first, rows = 0, None
    if state := load_checkpoint(out / "masks.pt", distributed.rank):
        head.load_state_dict(state["head"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        first, rows = state["step"] + 1, state["log_rows"]
    csv_log = CsvLog(out / "log.csv", "masks", rows) if distributed.is_main else None
    schedule = cosine_schedule(optimizer, [cfg.lr], cfg.steps, cfg.steps // 20, first)
    head.train()
    numbers = range(first, cfg.steps)
    for step in tqdm(
        numbers, "lesion mask", initial=first, total=cfg.steps, mininterval=5, disable=not distributed.is_main
    ):
        photo = masked[torch.randint(len(masked), (cfg.batch_size,), generator=generator)]
        drawn = Augmentation.draw(cfg.batch_size, generator, cfg.augmentation)
        levels, target = levels_and_masks(model, train, photo, drawn, distributed)
        loss = mask_loss(head(levels), target, torch.ones(len(target), dtype=torch.bool, device=target.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if csv_log and step % cfg.log_every == 0:
            csv_log.write(step, {"mask": loss.item()})
        if (step + 1) % cfg.save_every == 0 or step + 1 == cfg.steps:
            state = {"head": head.state_dict(), "optimizer": optimizer.state_dict(), "generator": generator.get_state()}
            state |= {
                "step": step,
                "rng": distributed.gather_objects([rng_state()]),
                "log_rows": csv_log.rows if csv_log else 0,
            }
            if distributed.is_main:
                save_checkpoint(out / "masks.pt", state)
            distributed.wait()
    distributed.broadcast_weights(head)
    head.eval()


def levels_and_masks(
    model: SkinClipVL, train: PhotoSet, photo: Tensor, drawn: Augmentation, distributed: DistributedContext
) -> tuple[list[Tensor], Tensor]:
    """Tower features of the photos [B] under an augmentation, level by level [B, D_i, h_i, w_i], and their masks
    [B, m, m]; each process computes its share. In the order of the processes."""
    rows = distributed.own_rows(torch.arange(len(photo)))
    batch = train.batch(photo[rows]).to(model.device)
    views = drawn.pick(rows).to(model.device)(batch, model.config.photo_side)
    tokens = model.perceive(views[:, :3], own_too=False)
    size = model.config.evidence.mask_size
    return [distributed.gather_rows(level) for level in tokens.levels], distributed.gather_rows(
        F.adaptive_avg_pool2d(views[:, 3], size)
    )
