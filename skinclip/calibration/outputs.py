"""Answers of a model to labelled photos, before anything is calibrated: all that a fit reads, of whatever model.

The photos come from several sources and of several kinds (dermoscopy, clinical close-up). A group is one kind of one
source; every source weighs the same in a fit, however many photos it has, and so does each kind within it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from skinclip.core.vocabulary import DIAGNOSIS_CODES, MALIGNANT_CODES, MIXED_CODES

MALIGNANT = np.array([code in MALIGNANT_CODES for code in DIAGNOSIS_CODES])  # [C]
_MIXED = np.array([code in MIXED_CODES for code in DIAGNOSIS_CODES])  # [C] may be either
DERMOSCOPY = "dermoscopy"  # the kind of a photo whose source does not say
NEITHER = "neither"  # of a photo that is like those of no kind
PAIR = "pair"  # two photos of one lesion that are seen together; their style is that of the first


@dataclass(frozen=True)
class LabelledOutputs:
    """The model's answers to n photos and their labels.

    Attributes:
        logits: [n, C] diagnosis logits.
        style: [n, S] what the shift score reads.
        scores: [n, K] scores of the criteria's states, before calibration.
        labels: [n] class numbers, -1 where the diagnosis is not labelled.
        malignant: [n] 1, 0, or -1 where not labelled.
        criteria: [n, Q] number of each criterion's state, 0 for absent, -1 where not labelled.
        sources, kinds, lesions: [n] names; a lesion's name is unique within its source.
        ita: [n] individual typology angle of the skin around the lesion in degrees, NaN where it was not measured.
    """

    logits: np.ndarray
    style: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    malignant: np.ndarray
    criteria: np.ndarray
    sources: np.ndarray
    kinds: np.ndarray
    lesions: np.ndarray
    ita: np.ndarray

    def __post_init__(self) -> None:
        lengths = {f.name: len(getattr(self, f.name)) for f in fields(self)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"one row a photo in every array, but their lengths are {lengths}")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def groups(self) -> np.ndarray:
        """[n] name of the group of each photo, "SOURCE KIND"."""
        names = [f"{s} {k}" for s, k in zip(self.sources, self.kinds, strict=True)]
        return np.array(names, dtype=str)

    def where(self, chosen: np.ndarray) -> LabelledOutputs:
        """The rows where `chosen` [n] bool holds."""
        return LabelledOutputs(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    @classmethod
    def joined(cls, parts: Sequence[LabelledOutputs]) -> LabelledOutputs:
        """The rows of several, one after the other."""
        return cls(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)})

    def bare(self) -> LabelledOutputs:
        """The same without style, evidence, criteria and skin: what sets and thresholds are fitted on."""
        empty = np.zeros((len(self), 0))
        return replace(self, style=empty, scores=empty, criteria=empty.astype(np.int64), ita=np.full(len(self), np.nan))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The content of `bare` as numbers alone: sources and kinds are numbered, names of lesions are not kept."""
        groups, group = np.unique(self.groups, return_inverse=True)
        numbers: dict[tuple[str, str], int] = {}  # in the order of the photos, so that a second storing is the same
        lesion = [
            numbers.setdefault((g, n), len(numbers)) for g, n in zip(self.groups, self.lesions.astype(str), strict=True)
        ]
        return {
            "logits": np.ascontiguousarray(self.logits, dtype=np.float32),
            "labels": self.labels.astype(np.int16),
            "malignant": self.malignant.astype(np.int8),
            "group": group.astype(np.int16),
            "lesion": np.array(lesion, dtype=np.int32),
            "groups": np.frombuffer("\n".join(groups).encode(), dtype=np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> LabelledOutputs:
        """The rows of `bare` again, of `to_arrays`. Raises ValueError where an array is missing."""
        missing = sorted({"logits", "labels", "malignant", "group", "lesion", "groups"} - set(arrays))
        if missing:
            raise ValueError(f"not the arrays of calibration photos: missing {missing}")
        names = arrays["groups"].tobytes().decode().split("\n")
        of_photo = [names[g].rsplit(" ", 1) for g in arrays["group"]]
        n, empty = len(of_photo), np.zeros((len(of_photo), 0))
        return cls(
            logits=arrays["logits"],
            style=empty,
            scores=empty,
            labels=arrays["labels"].astype(np.int64),
            malignant=arrays["malignant"].astype(np.int64),
            criteria=empty.astype(np.int64),
            sources=np.array([source for source, _ in of_photo], dtype=str),
            kinds=np.array([kind for _, kind in of_photo], dtype=str),
            lesions=arrays["lesion"].astype(str),
            ita=np.full(n, np.nan),
        )

    @classmethod
    def of_diagnoses(cls, logits: np.ndarray, labels: np.ndarray, lesions: np.ndarray | None = None) -> LabelledOutputs:
        """Dermoscopy photos of one source of which only the diagnosis is known; malignancy follows from it.

        Args:
            lesions: [n] lesion of each photo; None: each photo is its own lesion.
        """
        n, labels = len(logits), np.asarray(labels)
        empty = np.zeros((n, 0))
        return cls(
            logits=np.asarray(logits),
            style=empty,
            scores=empty,
            labels=labels,
            malignant=np.where((labels >= 0) & ~_MIXED[labels], MALIGNANT[labels], -1).astype(np.int64),
            criteria=np.zeros((n, 0), np.int64),
            sources=np.full(n, "calib"),
            kinds=np.full(n, DERMOSCOPY),
            lesions=np.arange(n).astype(str) if lesions is None else np.asarray(lesions).astype(str),
            ita=np.full(n, np.nan),
        )


def balanced_weights(sources: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """[n] weights of mean 1 by which each source counts the same, and each kind within a source."""
    weights, names = np.zeros(len(sources)), np.unique(sources)
    for source in names:
        own = sources == source
        present = np.unique(kinds[own])
        for kind in present:
            group = own & (kinds == kind)
            weights[group] = len(sources) / (len(names) * len(present) * group.sum())
    return weights
