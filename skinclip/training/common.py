"""What all stages share: which photos may be learnt from, checkpoints that survive a kill, a log one can plot."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import logging
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from skinclip.core.vocabulary import CRITERIA, DIAGNOSIS_CODES
from skinclip.data.cases import Case, DataError
from skinclip.data.photos import load_masks, load_photos
from skinclip.data.readers import discover
from skinclip.data.splits import check_no_leak, guard_training, hold_out
from skinclip.training.losses import MISSING

log = logging.getLogger(__name__)
CLOSE_UP = "-clinical"  # ends the id of a close-up's case
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8  # options of glibc's mallopt


@dataclass
class PhotoSet:
    """Photos with their partial labels.

    Attributes:
        cases: the records, in the order of the tensors.
        photos: uint8 [n, 3, side, side].
        masks: uint8 [n, side, side], 0, 1, or 255 where there is none.
        diagnosis: long [n], MISSING where not labelled.
        criteria: long [n, Q], index into `Criterion.labels`, MISSING where not labelled.
        unseen: bool [n], held out of stage 0.
    """

    cases: list[Case]
    photos: Tensor
    masks: Tensor
    diagnosis: Tensor
    criteria: Tensor
    unseen: Tensor

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def has_mask(self) -> Tensor:
        return self.masks[:, 0, 0] != 255

    def subset(self, index: Tensor) -> PhotoSet:
        cases = [self.cases[i] for i in index.tolist()]
        parts = (self.photos, self.masks, self.diagnosis, self.criteria, self.unseen)
        return PhotoSet(cases, *(p[index] for p in parts))

    def batch(self, index: Tensor) -> Tensor:
        """[len(index), 4, side, side] in 0..1, the mask as fourth channel (0 where there is none)."""
        masks = self.masks[index]
        masks = torch.where(masks == 255, torch.zeros_like(masks), masks).unsqueeze(1)
        return torch.cat([self.photos[index].contiguous().float() / 255, masks.float()], 1)


def criterion_labels(case: Case) -> list[int]:
    return [c.labels.index(case.criteria[c.code]) if c.code in case.criteria else MISSING for c in CRITERIA]


def diagnosis_labels(cases: Sequence[Case]) -> Tensor:
    """[n] number of each diagnosis, MISSING where not labelled."""
    return torch.tensor([DIAGNOSIS_CODES.index(c.diagnosis) if c.diagnosis else MISSING for c in cases])


def photo_set(cases: list[Case], side: int, cache: Path | None, unseen: set[str] | None = None) -> PhotoSet:
    """Loads the photos and masks of `cases` at `side` pixels. ISIC 2017 style squashed photos come as they are."""
    photos = load_photos(cases, side, cache_dir=cache, progress=True)
    masks = load_masks(cases, side, cache_dir=cache, progress=True)
    return PhotoSet(
        cases,
        torch.from_numpy(photos).permute(0, 3, 1, 2),
        torch.from_numpy(masks),
        diagnosis_labels(cases),
        torch.tensor([criterion_labels(c) for c in cases]).reshape(len(cases), len(CRITERIA)),
        torch.tensor([photo_key(c) in (unseen or set()) for c in cases], dtype=torch.bool),
    )


def photo_key(case: Case) -> str:
    return f"{case.source}/{case.image_id}"


def gather(root: Path, strict: bool = False) -> dict[str, list[Case]]:
    """All cases under `root` by split ("train", "valid", "calib", ...), over all its data sets.

    A data set that has no train split (test or shift sets) is left out whole, so that none of its photos can be read
    by any stage. Raises DataError where nothing can be learnt from.
    """
    tables = discover(root, strict=strict)
    for name, table in tables.items():
        if table.problems:
            log.warning("%s: %d rows left out, the first: %s", name, len(table.problems), table.problems[0])
    check_no_leak([case for table in tables.values() for case in table.cases])
    by_split: dict[str, list[Case]] = {}
    for table in tables.values():
        if not any(c.split == "train" for c in table.cases):
            continue
        for case in table.cases:
            if case.split in ("train", "valid", "calib"):
                by_split.setdefault(case.split, []).append(case)
    guard_training(by_split.get("train", []))
    return by_split


def scarce(cases: list[Case], share: float, seed: int) -> list[Case]:
    """About `share` of the lesions of `cases`; a smaller share is always a part of a larger one."""
    return cases if share >= 1 else hold_out(cases, share, seed + 1)[1]


def with_clinical(cases: list[Case]) -> list[Case]:
    """`cases`, and the clinical close-up of each that has one as a case of its own.

    A close-up shows the diagnosis, but not the dermoscopic criteria, and its mask would be another: it keeps neither.
    """
    found = [(c, c.clinical_image) for c in cases if c.clinical_image is not None]
    return [*cases, *(_close_up(c, photo) for c, photo in found)]


def _close_up(case: Case, photo: Path) -> Case:
    name = case.image_id + CLOSE_UP
    return replace(case, image=photo, image_id=name, mask=None, criteria={}, clinical_image=None)


def is_close_up(case: Case) -> bool:
    """Whether `with_clinical` made this case."""
    return case.image_id.endswith(CLOSE_UP)


def held_out_keys(cases: list[Case], share: float, seed: int) -> set[str]:
    """The photos of the lesions that stage 0 must not see."""
    return {photo_key(c) for c in hold_out(cases, share, seed)[1]}


def soft_targets(labels: Tensor, smoothing: float) -> Tensor:
    """Smoothed one-hot rows [B, C] of labels [B]; a row of zeros where there is no label."""
    n = len(DIAGNOSIS_CODES)
    targets = F.one_hot(labels.clamp_min(0), n).float() * (1 - smoothing) + smoothing / n
    return torch.where((labels == MISSING).unsqueeze(1), torch.zeros_like(targets), targets)


def draw_weights(labels: Tensor, power: float) -> Tensor:
    """Chance of each photo to be drawn: n^-power of its class's size n, so rare classes come up more often.

    Photos without a label are drawn as an average photo is.
    """
    counts = torch.bincount(labels[labels != MISSING], minlength=len(DIAGNOSIS_CODES)).clamp_min(1).double()
    weights = counts.pow(-power)[labels.clamp_min(0)]
    labelled = labels != MISSING
    weights[~labelled] = weights[labelled].mean() if labelled.any() else 1.0
    return weights / weights.sum()


def favour_criteria(weights: Tensor, criteria: Tensor, share: float) -> Tensor:
    """Chances [n] by which photos with labelled criteria make up `share` of those drawn.

    One photo in twenty-five has such labels: drawn as they come, a batch would hold one or two.
    """
    labelled = (criteria != MISSING).any(1)
    weights = weights.clone()
    if labelled.any() and not labelled.all():
        weights[labelled] *= share / weights[labelled].sum()
        weights[~labelled] *= (1 - share) / weights[~labelled].sum()
    return weights / weights.sum()


def natural_prior(labels: Tensor) -> Tensor:
    """Shares of the diagnoses among the labelled photos, [C] (one photo added to each, so that none is zero)."""
    counts = torch.bincount(labels[labels != MISSING], minlength=len(DIAGNOSIS_CODES)).double() + 1
    return counts / counts.sum()


def keep_memory() -> None:
    """Tells glibc to keep freed memory rather than hand it back to the kernel; does nothing under another C library.

    A training step frees and asks again for the same hundreds of megabytes. Each time the kernel would clear every
    page anew, which on two cores costs as much as the arithmetic (measured: a step of stage 0 takes half the time).
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, 1 << 28), (_M_ARENA_MAX, 1)):
            library.mallopt(option, value)


def seed_everything(seed: int) -> torch.Generator:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """Where all random generators of this process stand."""
    state = {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": np.random.get_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {})


def set_rng_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes beside the target and renames, so that a kill leaves the old checkpoint or the new one, never half.

    Under "rng" goes where this process's random generators stand, unless `state` has it of several.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save({"rng": [rng_state()], **state}, part)
    os.replace(part, path)


def load_checkpoint(path: Path, rank: int = 0) -> dict[str, Any] | None:
    """The state saved at `path`, random generators set back to it, or None where there is none.

    Raises DataError for one that another version saved.

    Args:
        rank: of this process; one that was not there at the time goes on with the generators it has.
    """
    if not path.exists():
        return None
    state = torch.load(path, map_location="cpu", weights_only=False)
    if "rng" not in state:
        raise DataError(f"{path} was saved by another version; give another --work or remove that folder")
    if rank < len(state["rng"]):
        set_rng_state(state["rng"][rank])
    return state


class CsvLog:
    """The rows of one stage in a file of several, `stage,step,name,value` in long form, each appended at once."""

    def __init__(self, path: Path, stage: str, rows: int | None = None) -> None:
        """
        Args:
            rows: of this stage, those that were there when its checkpoint was saved: later ones are taken back, as
                their steps are taken again. None keeps all.
        """
        self.path, self.stage = path, stage
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1].splitlines()  # a kill may have cut the last row short
        lines = whole or ["stage,step,name,value"]
        own = [i for i, line in enumerate(lines) if line.startswith(f"{stage},")]
        late = set() if rows is None else set(own[rows:])
        self.rows = len(own) - len(late)
        kept = "".join(f"{line}\n" for i, line in enumerate(lines) if i not in late)
        if kept != text:
            part = path.with_suffix(".part")
            part.write_text(kept)
            os.replace(part, path)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One row a value, exact for a float32."""
        with self.path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(
                [self.stage, step, name, f"{value:.9g}"] for name, value in values.items()
            )
        self.rows += len(values)


def batches(order: Tensor, size: int) -> Iterator[Tensor]:
    """`order` in runs of `size`; the last incomplete one is left out."""
    for start in range(0, len(order) - size + 1, size):
        yield order[start : start + size]


def cosine(step: int, total: int, warmup: int) -> float:
    """Learning-rate factor: linear warm-up, then half a cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + np.cos(np.pi * (step - warmup) / max(1, total - warmup)))
