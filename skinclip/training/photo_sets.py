"""Photos with partial labels as tensors, and which of all cases may be learnt from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from skinclip.core.config import TrainConfig
from skinclip.core.vocabulary import CRITERIA, CRITERION_CODES, DIAGNOSIS_CODES
from skinclip.data.cases import Case, close_up, words_of_unknown
from skinclip.data.photos import load_masks, load_photos
from skinclip.data.possible_states import certain_labels, possible_states
from skinclip.data.readers import discover
from skinclip.data.splits import check_no_leak, guard_training, hold_out, keep_apart, known_duplicates
from skinclip.training.losses import MISSING, CriterionTargets

log = logging.getLogger(__name__)


CLOSE_UP = "-clinical"  # ends the id of a close-up's case


@dataclass
class PhotoSet:
    """Photos with their partial labels.

    Attributes:
        cases: the records, in the order of the tensors.
        photos: uint8 [n, 3, side, side].
        masks: uint8 [n, side, side], 0, 1, or 255 where there is none.
        diagnosis: long [n], MISSING where not labelled.
        criteria: long [n, Q], index into `Criterion.labels`, MISSING where not labelled for sure.
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

    @cached_property
    def criterion_targets(self) -> CriterionTargets:
        """The states that the labels of each photo leave possible: sure labels, drawings and readings together."""
        return criterion_targets(self.cases, self.criteria)

    @property
    def sources(self) -> list[str]:
        """The source and kind of each photo."""
        return [f"{c.source}/{'clinical' if is_close_up(c) else c.kind or 'dermoscopy'}" for c in self.cases]

    def partners(self) -> Tensor:
        """[n] the number of the other photo of the same lesion, of the other kind; MISSING where there is none."""
        number = {photo_key(c): i for i, c in enumerate(self.cases)}
        others = [
            photo_key(c).removesuffix(CLOSE_UP) if is_close_up(c) else photo_key(c) + CLOSE_UP for c in self.cases
        ]
        return torch.tensor([number.get(key, MISSING) for key in others], dtype=torch.long)

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
    """[Q] number of each criterion's state in `Criterion.labels`, MISSING where it is not labelled for sure."""
    labels = certain_labels(case)
    return [c.labels.index(labels[c.code]) if c.code in labels else MISSING for c in CRITERIA]


def criterion_targets(cases: Sequence[Case], criteria: Tensor) -> CriterionTargets:
    """The states that the labels of `cases` leave possible; those in `criteria` [n, Q], which are sure, come first."""
    sure = CriterionTargets.of(criteria)
    possible, weight = sure.possible.clone(), sure.weight.clone()
    for i, case in enumerate(cases):
        for code, label in possible_states(case).items():
            q = CRITERION_CODES.index(code)
            if code not in case.criteria:  # "not drawn" counts less than a label, also where it says the same
                states = CRITERIA[q].labels
                possible[i, q, : len(states)] = torch.tensor([state in label.states for state in states])
                weight[i, q] = label.weight
    return CriterionTargets(possible, weight)


def diagnosis_labels(cases: Sequence[Case]) -> Tensor:
    """[n] number of each diagnosis, MISSING where not labelled or not known to the model."""
    known = [c.diagnosis if c.diagnosis in DIAGNOSIS_CODES else None for c in cases]
    return torch.tensor([DIAGNOSIS_CODES.index(code) if code else MISSING for code in known])


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
    by any stage. A photo or lesion that two data sets, or the list of near-duplicates beside them, put into different
    splits stays in the one that is kept further from training; what is left out, here or because the model does not
    know its diagnosis, is counted in the log. Raises DataError where nothing can be learnt from.
    """
    tables = discover(root, strict=strict)
    for name, table in tables.items():
        if table.problems:
            log.warning("%s: %d rows left out, the first: %s", name, len(table.problems), table.problems[0])
        check_no_leak(table.cases)
    cases = [case for table in tables.values() for case in table.cases]
    kept, left_out = keep_apart(cases, known_duplicates(root))
    for sentence in (*left_out, words_of_unknown(kept, DIAGNOSIS_CODES)):
        if sentence:
            log.warning("%s: left out", sentence)
    learnt_from = {name for name, table in tables.items() if any(c.split == "train" for c in table.cases)}
    by_split: dict[str, list[Case]] = {}
    for case in kept:
        known = case.diagnosis is None or case.diagnosis in DIAGNOSIS_CODES
        if known and case.source in learnt_from and case.split in ("train", "valid", "calib"):
            by_split.setdefault(case.split, []).append(case)
    guard_training(by_split.get("train", []))
    return by_split


def scarce(cases: list[Case], share: float, seed: int) -> list[Case]:
    """About `share` of the lesions of `cases`; a smaller share is always a part of a larger one."""
    return cases if share >= 1 else hold_out(cases, share, seed + 1)[1]


def with_clinical(cases: list[Case]) -> list[Case]:
    """`cases`, and the clinical close-up of each that has one as a case of its own."""
    close_ups = [replace(close_up(c), image_id=c.image_id + CLOSE_UP) for c in cases if c.clinical_image is not None]
    return [*cases, *close_ups]


def is_close_up(case: Case) -> bool:
    """Tells whether `with_clinical` made this case."""
    return case.image_id.endswith(CLOSE_UP)


def held_out_keys(cases: list[Case], share: float, seed: int, sources: Sequence[str] | None = None) -> set[str]:
    """The photos of the lesions that stage 0 must not see, of all `sources` or those named."""
    return {photo_key(c) for c in hold_out(cases, share, seed)[1] if sources is None or c.source in sources}


def unseen_keys(cases: list[Case], recipe: TrainConfig) -> set[str]:
    """The photos of the lesions that stage 0 of a recipe never saw."""
    return held_out_keys(cases, recipe.stage0.held_out, recipe.seed, recipe.stage0.held_out_sources)
