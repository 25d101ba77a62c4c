"""Trains the compact derm-CLIP for a given time and writes weights, log and figures on the valid splits.

    python -m eval_study.gpu.train --packs PACKS --start lite2.safetensors --out OUT --seconds 420 --seed 0

The learning rate follows one cosine over the time given, so that a run always ends where it should. On a machine
without a GPU the same command runs on the CPU, slowly, to rehearse (`--seconds 60 --batch 16`).
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from timm.layers import DropPath
from torch import Tensor, nn

from eval_study.gpu.derm_clip import GpuDermClip, contrast, criterion_loss, mask_loss, pool, region_loss
from eval_study.gpu.measure import evaluate
from eval_study.gpu.photos import (
    MISSING,
    Photos,
    drawn_window,
    grid,
    load,
    mask_boxes,
    recoloured,
    sample,
    shrunk,
    whole_window,
)
from eval_study.gpu.texts import TextPool
from eval_study.gpu.vocabulary import CODES
from skinclip.model.evidence import symmetric_orthogonalize

PRIOR_FLOOR = 1e-3
DRAWN_SHARE, CRITERIA_SHARE = 0.18, 0.14  # of the photos drawn
DIRECTIONS_EVERY = 10  # steps; the descriptions of states move slowly


def draw_weights(photos: Photos, index: Tensor, power: float) -> Tensor:
    """Chance [n] of each photo: rare diagnoses, single photos of a lesion and rare drawn regions more often.

    Photos with drawn regions are `DRAWN_SHARE` of those drawn, others with surely labelled criteria `CRITERIA_SHARE`,
    the rest has what is left; a kind that is not there has its share among the others.
    """
    weights = _rarity(photos.diagnosis[index], power)
    keys = [(r["source"], r["lesion_id"], r["kind"]) for r in (photos.records[i] for i in index.tolist())]
    times = Counter(keys)
    weights /= torch.tensor([times[k] ** 0.5 for k in keys], device=index.device)
    rows = photos.region_row[index]
    drawn = rows != MISSING
    weights[drawn] *= _region_boost(photos.regions)[rows[drawn]]
    criteria = (photos.weight[index] >= 1).any(1) & ~drawn
    kinds = [(DRAWN_SHARE, drawn), (CRITERIA_SHARE, criteria), (1 - DRAWN_SHARE - CRITERIA_SHARE, ~(drawn | criteria))]
    for share, chosen in kinds:
        weights[chosen] *= share / weights[chosen].sum().clamp_min(1e-12)
    return weights / weights.sum()


def _rarity(labels: Tensor, power: float) -> Tensor:
    """[n] n_c ** -power of a photo's diagnosis c; the mean of all where it is not labelled."""
    known = labels != MISSING
    if not known.any():
        return torch.ones(len(labels), dtype=torch.double, device=labels.device)
    counts = torch.bincount(labels[known], minlength=len(CODES)).clamp_min(1).double()
    weights = counts.pow(-power)[labels.clamp_min(0)]
    weights[~known] = weights[known].mean()
    return weights


def _region_boost(regions: Tensor) -> Tensor:
    """[r] 1 and, for every attribute drawn in a photo, the root of how rare it is."""
    present = regions.flatten(2).amax(2) > 127  # [r, 5]
    rarity = (present.sum().double() / present.sum(0).clamp_min(1) / present.shape[1]).sqrt()  # [5]
    return 1 + (present * rarity).sum(1)


def priors(photos: Photos, index: Tensor, weights: Tensor) -> Tensor:
    """[groups, C] shares of the diagnoses among the photos drawn from each source and kind."""
    labels = photos.diagnosis[index]
    known = labels != MISSING
    out = torch.zeros(len(photos.groups), len(CODES), dtype=torch.double, device=index.device)
    out.index_put_((photos.group[index][known], labels[known]), weights[known], accumulate=True)
    out = out / out.sum(1, keepdim=True).clamp_min(1e-12) + PRIOR_FLOOR
    return (out / out.sum(1, keepdim=True)).float()


class Trainer:
    """One run: model, averaged model, optimizer, and the step."""

    def __init__(self, photos: Photos, args: argparse.Namespace, device: str) -> None:
        self.photos, self.args, self.device = photos, args, device
        self.model = GpuDermClip(args.model).to(device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if args.start:
            load_start(self.model.tower.image_trunk(), args.start)
        drop_paths(self.model.tower.image_trunk(), args.drop_path)
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(groups(self.model, args.decay), lr=args.lr, fused=device == "cuda")
        self.texts = TextPool(args.seed, device, args.model)
        self.index = photos.of("train")
        self.weights = draw_weights(photos, self.index, args.power)
        self.prior = priors(photos, self.index, self.weights)
        pair = (photos.partner[self.index] != MISSING).double()
        self.pair_weights = self.weights * pair
        self.steps = 0
        self.directions: Tensor | None = None
        self.forward: Callable = self.model
        if args.compile:
            self.forward = torch.compile(self.model, mode=args.compile, dynamic=False)

    def batch(self) -> Tensor:
        """Numbers of the photos of a batch; the last two quarters of `pairs` are partners of each other."""
        singles = self.args.batch - 2 * self.args.pairs
        one = self.index[torch.multinomial(self.weights, singles, replacement=True)]
        if not self.args.pairs:
            return one
        first = self.index[torch.multinomial(self.pair_weights, self.args.pairs, replacement=True)]
        return torch.cat([one, first, self.photos.partner[first]])

    def step(self, side: int) -> dict[str, Tensor]:
        """Trains on one batch of views `side` pixels wide; the parts of its loss by name."""
        photos, args = self.photos, self.args
        index = self.batch()
        where = grid(photos, index, drawn_window(photos, index, args.near), side, turn=True)
        planes = torch.cat([photos.pixels[index], photos.lesion[index].unsqueeze(1)], 1)
        view = sample(planes, where)
        rgb, lesion = recoloured(view[:, :3]), view[:, 3]
        labels, group = photos.diagnosis[index], photos.group[index]
        order = mixing_order(len(index), args.pairs, self.device)
        chance = args.mix * (photos.region_row[index] == MISSING)  # drawn regions are few, and seen as they are
        rgb, share = mixed_photos(rgb, order, chance, args.pairs)
        pure, mixed = share == 1, (labels[order], share)
        prior = self.prior[group]
        prior = prior * share.unsqueeze(1) + prior[order] * (1 - share).unsqueeze(1)
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.device == "cuda"):
            embedding, features = self.forward(rgb)
            described = self.model.embed_texts(self.texts.draw(args.wordings))  # [C * P + K, E]
        features = features.float()
        n = len(CODES) * args.wordings
        scale = self.model.tower.similarity_scale().clamp(max=50)
        logits = embedding @ described.T * scale
        parts = {"contrast": contrast(self.texts.by_class(logits[:, :n]), labels, prior, args.smoothing, mixed)}
        if args.pairs:
            a, b = embedding[-2 * args.pairs :].split(args.pairs)
            both = F.normalize(a + b, dim=-1) @ described[:n].T * scale
            own = slice(-args.pairs, None)
            answer = self.texts.by_class(both), labels[own], prior[own], args.smoothing
            parts["pair"] = args.w_pair * contrast(*answer, (mixed[0][own], share[own]))
        if self.steps % DIRECTIONS_EVERY == 0 or self.directions is None:
            self.directions = symmetric_orthogonalize(described[n:].detach())
        seen = index[pure], where[pure], lesion[pure], features[pure], logits[pure, n:]
        parts |= self.places(*seen, self.directions)
        parts["total"] = torch.stack(list(parts.values())).sum()
        self.update(parts["total"])
        return parts

    def places(
        self, index: Tensor, where: Tensor, lesion: Tensor, features: Tensor, state_logits: Tensor, directions: Tensor
    ) -> dict[str, Tensor]:
        """The losses that know of places: lesion mask, criteria through their maps, drawn regions."""
        photos, args = self.photos, self.args
        small = shrunk(lesion.unsqueeze(1), features)[:, 0]
        masks, has = self.model.mask(features), photos.has_lesion[index]
        inside = torch.where(has.view(-1, 1, 1), small, masks.detach().sigmoid())
        rows = photos.region_row[index]
        drawn, known = (rows != MISSING).nonzero()[:, 0], (photos.weight[index] > 0).any(1).nonzero()[:, 0]
        parts = {"mask": args.w_mask * mask_loss(masks[has], small[has])} if has.any() else {}
        if len(known):
            maps = self.model.maps(features[known], directions)
            scores = pool(maps, inside[known])
            labels = photos.allowed[index[known]], photos.weight[index[known]]
            parts["criteria"] = args.w_criteria * criterion_loss(scores, *labels)
            parts["words"] = 0.3 * criterion_loss(state_logits[known], *labels)
        if len(drawn):
            maps = self.model.maps(features[drawn], directions)
            target = sample(photos.regions[rows[drawn]], where[drawn])
            target = shrunk(target, features)
            parts["regions"] = args.w_regions * region_loss(maps, target, inside[drawn])
        return parts

    def update(self, loss: Tensor) -> None:
        """Follows the gradient, and lets the averaged model follow the model."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.steps += 1
        decay = min(self.args.ema, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            ours, theirs = [], []
            for a, m in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
                if a.dtype.is_floating_point:
                    ours.append(a)
                    theirs.append(m)
            torch._foreach_lerp_(ours, theirs, 1 - decay)

    def rate(self, progress: float) -> None:
        """Sets the learning rate for the part of the training that is done, 0 to 1."""
        factor = min(1.0, progress / 0.03) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in self.optimizer.param_groups:
            group["lr"] = self.args.lr * group["factor"] * factor

    def rounded_priors(self) -> dict[str, list[float]]:
        """Prior of each diagnosis in each group, for the summary."""
        rows = zip(self.photos.groups, self.prior.tolist(), strict=True)
        return {group: [round(share, 4) for share in shares] for group, shares in rows}

    @torch.no_grad()
    def find_lesions(self) -> int:
        """Boxes of the lesions of photos without a reference mask, by the averaged model; how many were found."""
        unknown = self.index[~self.photos.has_lesion[self.index]]
        n_boxes = 0
        for index in unknown.split(256):
            window = whole_window(self.photos, index)
            view = sample(self.photos.pixels[index], grid(self.photos, index, window, 192, turn=False))
            with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.device == "cuda"):
                mask = self.average.mask(self.average(view)[1])
            box = mask_boxes(mask, window, 0.02, 0.8)
            known = box[:, 2] > 0
            self.photos.box[index[known]] = box[known]
            n_boxes += int(known.sum())
        return n_boxes


def mixing_order(size: int, pairs: int, device: str) -> Tensor:
    """[size] which other photo of a batch each is mixed with: both photos of a lesion with both of another lesion."""
    single = torch.randperm(size - 2 * pairs, device=device)
    lesion = torch.randperm(pairs, device=device) + size - 2 * pairs
    return torch.cat([single, lesion, lesion + pairs])


def mixed_photos(rgb: Tensor, order: Tensor, chance: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    """Mixes some photos with others, half of these by mixup, half by CutMix (Zhang et al. 2018, Yun et al. 2019).

    Args:
        rgb: [b, 3, s, s], the last `2 * pairs` of them both photos of lesions, which are mixed alike.
        order: [b] of `mixing_order`.
        chance: [b] that a photo is mixed.

    Returns:
        The photos, and share [b] of a photo that is its own, 1 where it was not mixed.
    """
    b, side, device = len(rgb), rgb.shape[-1], rgb.device
    own = torch.distributions.Beta(0.4, 0.4).sample((b,)).to(device)
    own[torch.rand(b, device=device) >= chance] = 1
    cut = torch.rand(b, device=device) < 0.5
    centre, half = torch.rand(b, 2, device=device), (1 - own).sqrt() / 2
    if pairs:
        for alike in (own, cut, centre, half):
            alike[-pairs:] = alike[-2 * pairs : -pairs]
    place = (torch.arange(side, device=device) + 0.5) / side
    along, across = ((place - c.unsqueeze(1)).abs() < half.unsqueeze(1) for c in centre.unbind(1))
    kept = ~(along.unsqueeze(1) & across.unsqueeze(2)) | ~cut.view(-1, 1, 1)  # [b, s, s]
    weight = torch.where(cut.view(-1, 1, 1), kept.to(own.dtype), own.view(-1, 1, 1)).unsqueeze(1)
    share = torch.where(own < 1, weight.mean((1, 2, 3)), own)  # a mean of ones is not always exactly 1
    return rgb * weight + rgb[order] * (1 - weight), share


def drop_paths(trunk: nn.Module, most: float) -> None:
    """Stochastic depth (Huang et al. 2016): blocks are left out at random, later ones more often, the last `most`."""
    blocks = [m for m in trunk.modules() if isinstance(getattr(m, "drop_path", None), nn.Module)]
    for k, block in enumerate(blocks):
        block.drop_path = DropPath(most * k / max(1, len(blocks) - 1))


def load_start(trunk: nn.Module, path: Path) -> None:
    """Loads what `eval_study.gpu.start` wrote. Raises RuntimeError where a tensor is missing or differs."""
    state, expected = load_file(path), trunk.state_dict()
    wrong = [k for k in expected if "num_batches_tracked" not in k and k not in state]
    wrong += [k for k in state if k not in expected or state[k].shape != expected[k].shape]
    if wrong:
        raise RuntimeError(f"{path} is no start for this trunk, see {wrong[0]}; write it with eval_study.gpu.start")
    trunk.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)


def groups(model: nn.Module, decay: float) -> list[dict]:
    """The pretrained trunk at a part of the rate; no decay on norms, biases and scales."""
    parameters: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        parameters.setdefault(("trunk." in name, parameter.ndim > 1), []).append(parameter)
    return [
        {"params": p, "factor": 0.5 if trunk else 1.0, "weight_decay": decay if heavy else 0.0}
        for (trunk, heavy), p in parameters.items()
    ]


def run(trainer: Trainer, args: argparse.Namespace, out: Path) -> None:
    """Trains until the time is over, then measures the averaged model and writes it."""
    begun, log, boxes_made = time.monotonic(), [], False
    trainer.model.train()
    phases = [(float(share), int(side)) for share, side in (p.split(":") for p in args.phases.split(","))]
    n_views = 0
    while (progress := (time.monotonic() - begun) / args.seconds) < 1 and trainer.steps < args.max_steps:
        trainer.rate(progress)
        parts = trainer.step(next(side for share, side in phases if progress < share or share >= 1))
        n_views += args.batch
        if trainer.steps % args.log_every == 0:
            row = {k: round(v.item(), 4) for k, v in parts.items()}
            elapsed = round(time.monotonic() - begun, 2)
            log.append({"step": trainer.steps, "views": n_views, "seconds": elapsed, **row})
            print(json.dumps(log[-1]), flush=True)
            if not math.isfinite(row["total"]):
                raise RuntimeError("the loss is no number any more")
        if not boxes_made and progress > 0.25:
            print("lesions found:", trainer.find_lesions(), flush=True)
            boxes_made = True
    trained = time.monotonic() - begun
    save(trainer.average, out / "derm_clip.safetensors")
    figures = {} if args.no_figures else evaluate(trainer.average, trainer.photos, trainer.texts, args.side)
    summary = {"arguments": {k: str(v) for k, v in vars(args).items()}, "steps": trainer.steps, "views": n_views}
    summary |= {"seconds": round(trained, 1), "views_per_second": round(n_views / trained, 1), "valid": figures}
    summary["priors"] = trainer.rounded_priors()
    (out / "summary.json").write_text(json.dumps({**summary, "log": log}, indent=1))
    print(
        json.dumps(figures, indent=1),
        f"{trainer.steps} steps, {n_views} views, {n_views / trained:.0f} a second",
        flush=True,
    )


def save(model: GpuDermClip, path: Path) -> None:
    """Weights as fp16 where they have more than one dimension."""
    state = {k: v.half() if v.ndim > 1 and v.dtype == torch.float32 else v for k, v in model.weights().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, path)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of a run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="ImageNet weights of the trunk, safetensors")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="derm-clip-lite2")
    parser.add_argument("--seconds", type=float, default=420)
    parser.add_argument("--max-steps", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=24, help="lesions per batch seen in both kinds of photo")
    parser.add_argument("--phases", default="0.3:160,1:224", help="share of the time : side in pixels")
    parser.add_argument("--side", type=int, default=224, help="pixels at which the valid splits are measured")
    parser.add_argument("--lr", type=float, default=1.6e-3)
    parser.add_argument("--decay", type=float, default=0.04)
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--power", type=float, default=0.3)
    parser.add_argument("--mix", type=float, default=0.2, help="share of the photos mixed with another")
    parser.add_argument("--near", type=float, default=0.55, help="share of the views that are the lesion with a margin")
    parser.add_argument("--drop-path", type=float, default=0.0, help="chance that the last block is left out")
    parser.add_argument("--smoothing", type=float, default=0.05)
    parser.add_argument("--wordings", type=int, default=3)
    parser.add_argument("--w-pair", type=float, default=0.5)
    parser.add_argument("--w-mask", type=float, default=0.5)
    parser.add_argument("--w-criteria", type=float, default=0.6)
    parser.add_argument("--w-regions", type=float, default=1.5)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--no-figures", action="store_true", help="to time the steps only")
    parser.add_argument("--compile", default="", help="mode of torch.compile, empty for none")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Trains by the command line."""
    args = parse(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    if device == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.set_float32_matmul_precision("high")
    begun = time.monotonic()
    photos = load(args.packs, device)
    print(f"{len(photos)} photos in {time.monotonic() - begun:.1f} s on {device}", flush=True)
    run(Trainer(photos, args, device), args, args.out)


if __name__ == "__main__":
    main()
