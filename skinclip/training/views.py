"""Augmented views of the training photos, and what the frozen parts of the model make of them.

Stage 2 learns from no more than that: tokens, style, lesion mask. The towers never change, so it can be kept on disk
for a few fixed views per photo, after which a step costs the language model alone. Levels are kept as their means, all
that is still read of them once the mask is known: 1.6 MB a view for `qwen-3b`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from skinclip.core.config import ModelConfig, TrainConfig
from skinclip.data.augmentation import Augmentation
from skinclip.data.cases import DataError
from skinclip.data.photos import bytes_in
from skinclip.model.evidence import Evidence
from skinclip.model.looks import lesion_windows_of
from skinclip.model.perception import FIRST, VisualTokens
from skinclip.model.skinclip_vl import SkinClipVL
from skinclip.training.distributed import DistributedContext
from skinclip.training.photo_sets import PhotoSet, photo_key

_VERSION = 2  # of what is kept; views kept by another version are not used


@dataclass
class ViewFeatures:
    """Outputs of the frozen parts for k views.

    Attributes:
        tokens: with each of its levels as a map of one cell, its mean.
        mask_logits: [k, m, m] predicted lesion mask.
        lesion: [k, h, w] share of each patch that is lesion by the reference mask, 0 where there is none.
        evidence: what a frozen evidence finder found; None where stage 2 trains it. What was read off its maps is kept,
            the maps themselves are not: nothing can change them.
    """

    tokens: VisualTokens
    mask_logits: Tensor
    lesion: Tensor
    evidence: Evidence | None = None

    def pick(self, index: Tensor) -> ViewFeatures:
        found = None if self.evidence is None else self.evidence.pick(index)
        return ViewFeatures(self.tokens.pick(index), self.mask_logits[index], self.lesion[index], found)


def view_side(config: ModelConfig, recipe: TrainConfig) -> int:
    """Pixels of a view: what the model takes, or all that there is where a second look is cut out of it."""
    return config.photo_side if config.perception.looks == 1 else recipe.photo_size


@torch.no_grad()
def see(model: SkinClipVL, views: Tensor, encode_in: str = "float32") -> ViewFeatures:
    """Outputs of the frozen parts for views [k, 4, side, side], the reference mask as fourth channel.

    Args:
        encode_in: the type that the towers compute in; what comes out is float32.
    """
    type_ = {"float32": torch.float32, "bfloat16": torch.bfloat16}[encode_in]
    with torch.autocast(model.device.type, type_, enabled=encode_in != "float32"):
        if model.config.perception.looks > 1:
            return as_kept(model, *_two_looks(model, views))
        tokens = model.perceive(views[:, :3])
        mask_logits = model.evidence.segment(tokens.levels)
        return as_kept(model, tokens, mask_logits, views[:, 3:])


def _two_looks(model: SkinClipVL, views: Tensor) -> tuple[VisualTokens, Tensor, Tensor]:
    """Tokens of both looks together, the mask of the first, and the second look's reference mask [k, 1, side, side]."""
    side = model.config.photo_side
    small = F.interpolate(views[:, :3], (side, side), mode="bilinear", antialias=True)
    first = model.perceive(small, look=FIRST)
    mask_logits = model.evidence.segment(first.levels, FIRST).float()
    near = lesion_windows_of(mask_logits).cut(views.to(mask_logits.device), side)
    return model.perception.together([first, model.perceive(near[:, :3])]), mask_logits, near[:, 3:]


def kept_grid(model: SkinClipVL) -> tuple[int, int]:
    """The grid that kept tokens lie on: the tower's own, or the one that the reasoner pools them to where no evidence
    finder learns from them."""
    side = model.config.reasoner.clip_grid
    return (side, side) if model.evidence.frozen else model.perception.grid


def as_kept(model: SkinClipVL, tokens: VisualTokens, mask_logits: Tensor, reference: Tensor) -> ViewFeatures:
    """Outputs of the frozen parts as stage 2 reads them: levels as their means, tokens on the `kept_grid`.

    Args:
        mask_logits: [k, m, m] of the look that finds the lesion.
        reference: [k, 1, side, side] the lesion of the last look, 0 where there is no reference mask.
    """
    means, style = [level.mean((2, 3), keepdim=True).float() for level in tokens.levels], tokens.style.float()
    grid, patches, found = tokens.grid, tokens.tokens.float(), None
    if model.evidence.frozen:
        found = model.find_evidence(tokens)
        few = found.scores.new_ones(len(found.scores), 1, 1)
        no_maps = few.unsqueeze(1).expand(-1, found.maps.shape[1], 1, 1)
        found = replace(found, mask_logits=mask_logits.float(), lesion=few, maps=no_maps)
        maps = F.adaptive_avg_pool2d(patches.transpose(1, 2).unflatten(2, grid), kept_grid(model))
        patches, grid = maps.flatten(2).transpose(1, 2), kept_grid(model)
    lesion = F.adaptive_avg_pool2d(reference, grid)[:, 0]
    kept = VisualTokens(patches, grid, tokens.embedding.float(), means, tokens.own, style)
    return ViewFeatures(kept, mask_logits.float(), lesion, found)


@dataclass(frozen=True)
class ViewDraw:
    """The views of a step.

    Attributes:
        photo: [n] number of each view's photo.
        augmentation: of the n views.
        number: [n] which of the views that are kept of its photo each one is; None where none are.
    """

    photo: Tensor
    augmentation: Augmentation
    number: Tensor | None = None


class LiveViews:
    """Views that are drawn anew at every step."""

    def __init__(self, photos: PhotoSet, side: int, strength: float) -> None:
        self.photos, self.side, self.strength = photos, side, strength

    def draw(self, photo: Tensor, seconds: int, generator: torch.Generator) -> ViewDraw:
        """A view of each photo [B], then another of the first `seconds`."""
        photo = torch.cat([photo, photo[:seconds]])
        return ViewDraw(photo, Augmentation.draw(len(photo), generator, self.strength))

    def pixels(self, drawn: ViewDraw, rows: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """[k, 4, side, side] the views numbered `rows`."""
        photos = self.photos.batch(drawn.photo[rows]).to(device)
        return drawn.augmentation.pick(rows).to(device)(photos, self.side)


class KeptViews(LiveViews):
    """A few fixed views per photo, with what the frozen parts make of them on disk; see `keep_views`."""

    def __init__(self, photos: PhotoSet, side: int, strength: float, count: int, seed: int) -> None:
        super().__init__(photos, side, strength)
        self.count, self.seed = count, seed

    def draw(self, photo: Tensor, seconds: int, generator: torch.Generator) -> ViewDraw:
        first = torch.randint(self.count, (len(photo),), generator=generator)
        other = torch.randint(1, max(self.count, 2), (seconds,), generator=generator)  # never the first again
        number = torch.cat([first, (first[:seconds] + other) % self.count])
        return self.numbered(torch.cat([photo, photo[:seconds]]), number)

    def numbered(self, photo: Tensor, number: Tensor) -> ViewDraw:
        """The views `number` [n] of the photos [n]: always the same ones."""
        pairs = zip(photo.tolist(), number.tolist(), strict=True)
        return ViewDraw(photo, Augmentation.cat([self._augmentation(i, v) for i, v in pairs]), number)

    def seen(self, model: SkinClipVL, rows: Tensor, encode_in: str) -> ViewFeatures:
        """Outputs of the frozen parts for the views in the places `rows`, those of a photo one after the other."""
        drawn = self.numbered(rows // self.count, rows % self.count)
        return see(model, self.pixels(drawn, torch.arange(len(rows)), model.device), encode_in)

    @property
    def settings(self) -> list[object]:
        """All that decides, beside the photos and the seed, which pixels the views show."""
        return [self.side, self.strength, self.count]

    def _augmentation(self, photo: int, number: int) -> Augmentation:
        name = f"{self.seed}/{photo_key(self.photos.cases[photo])}/{number}"
        return Augmentation.draw(1, torch.Generator().manual_seed(zlib.crc32(name.encode())), self.strength)


class ViewStore:
    """`ViewFeatures` of n photos under V views each, in files that are mapped, one per part."""

    def __init__(
        self, folder: Path, shapes: dict[str, tuple[tuple[int, ...], torch.dtype]], n: int, count: int
    ) -> None:
        """
        Args:
            shapes: of each part for one view, and the type it is kept in.
        """
        self.count = count
        self.parts = {
            name: torch.from_file(str(folder / name), shared=True, size=_numel((n * count, *shape)), dtype=dtype).view(
                n * count, *shape
            )
            for name, (shape, dtype) in shapes.items()
        }
        self.written = torch.from_file(str(folder / "written"), shared=True, size=n * count, dtype=torch.uint8)

    def write(self, rows: Tensor, features: ViewFeatures) -> None:
        for name, value in parts_of(features).items():
            self.parts[name][rows] = value.to("cpu", self.parts[name].dtype)
        self.written[rows] = 1

    def read(self, drawn: ViewDraw, rows: Tensor, grid: tuple[int, int], device: torch.device | str) -> ViewFeatures:
        """Raises ValueError for views that have no number."""
        if drawn.number is None:
            raise ValueError("these views were drawn anew; only numbered ones are kept")
        places = drawn.photo[rows] * self.count + drawn.number[rows]
        part = {name: values[places].to(device) for name, values in self.parts.items()}
        own, style = part.get("own"), part["style"]
        tokens = VisualTokens(part["tokens"].float(), grid, part["embedding"], [style[:, :, None, None]], own, style)
        mask_logits, found = part["mask_logits"].float(), None
        if "scores" in part:
            few = part["scores"].new_ones(len(places), 1, 1)
            maps = few.unsqueeze(1).expand(-1, part["scores"].shape[1], 1, 1)
            features, mean = part["features"].float(), part["mean"].float()
            found = Evidence(mask_logits, few, maps, part["scores"], features, mean.new_zeros(len(places), 0), mean)
        return ViewFeatures(tokens, mask_logits, part["lesion"].float(), found)


def parts_of(features: ViewFeatures) -> dict[str, Tensor]:
    """The tensors that are kept."""
    tokens = features.tokens
    parts = {"tokens": tokens.tokens, "embedding": tokens.embedding, "style": tokens.style}
    parts |= {"mask_logits": features.mask_logits, "lesion": features.lesion}
    if features.evidence is not None and features.evidence.mean is not None:
        parts |= {"scores": features.evidence.scores, "features": features.evidence.features}
        parts |= {"mean": features.evidence.mean}
    return parts if tokens.own is None else parts | {"own": tokens.own}


# Photo embedding and style decide answers by small differences and are small themselves. Qwen's own tokens are kept in
# the type that its tower computes in on a GPU.
_KEPT_AS = {"own": torch.bfloat16} | dict.fromkeys(("embedding", "style", "scores"), torch.float32)


def keep_views(
    model: SkinClipVL,
    views: KeptViews,
    base: str,
    folder: Path,
    batch: int,
    distributed: DistributedContext,
    encode_in: str = "float32",
) -> ViewStore:
    """Outputs of the frozen parts for all views of all photos, from `folder` as far as it is there already.

    Processes share the work; a build that was interrupted goes on.

    Args:
        base: identity of the language model's weights, which Qwen's own tower is a part of.
        encode_in: see `see`.

    Raises DataError where the disk has no room.
    """
    n, count = len(views.photos), views.count
    example = parts_of(views.seen(model, torch.tensor([0]), encode_in))
    shapes = {k: (tuple(v.shape[1:]), _KEPT_AS.get(k, torch.float16)) for k, v in example.items()}
    folder = folder / f"views-{_digest(model, views, base, encode_in)}"
    with distributed.main_process_first():
        if distributed.is_main and not folder.exists():
            _check_room(folder.parent, n * count * sum(_numel(s) * t.itemsize for s, t in shapes.values()))
            folder.mkdir(parents=True)
        store = ViewStore(folder, shapes, n, count)
    missing = distributed.own_rows((store.written == 0).nonzero()[:, 0])
    distributed.wait()  # all know what is missing before any of it is written
    micro_batches = missing.split(batch) if len(missing) else ()
    for rows in tqdm(micro_batches, desc="encoding photos", disable=not distributed.is_main, mininterval=5):
        store.write(rows, views.seen(model, rows, encode_in))
    distributed.wait()
    return store


def _digest(model: SkinClipVL, views: KeptViews, base: str, encode_in: str) -> str:
    """Hash of all that decides what is kept."""
    digest = hashlib.sha256()
    config = model.config
    drawn = [*views.settings, encode_in]
    settings = [_VERSION, config.perception, config.reasoner.own_vision, *drawn]
    digest.update(json.dumps([str(s) for s in [*settings, views.seed, base]]).encode())
    digest.update("\n".join(f"{photo_key(c)}/{bytes_in(c.image)}" for c in views.photos.cases).encode())
    digest.update(str(tuple(views.photos.photos.shape)).encode())
    for part in (model.perception.state_dict(), learnt_before(model)):
        for name, value in part.items():
            digest.update(name.encode() + value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def learnt_before(model: SkinClipVL) -> dict[str, Tensor]:
    """Tensors of the evidence finder that stage 2 leaves as they are: what is kept depends on no others."""
    if not model.evidence.frozen:
        return model.evidence.mask_head.state_dict()
    return {k: v for k, v in model.evidence.state_dict().items() if not k.startswith("to_pooled.")}


def _check_room(folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"the views to keep need {needed / 1e9:.1f} GB in {folder}, {free / 1e9:.1f} GB are free: give another "
            "--work, or a smaller `cached_views` in the recipe (0 encodes every view anew)"
        )


def _numel(shape: Sequence[int]) -> int:
    return torch.Size(shape).numel()
