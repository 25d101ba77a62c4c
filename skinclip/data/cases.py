"""Labelled photos as every reader returns them: one `Case` per photo, None for each label that its source lacks.

Only what a training stage or a measurement may use is here. What leaks the answer (how it was confirmed, the
photo's size, management, difficulty, total score, elevation) has no field, so it can never reach a prompt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from skinclip.core.assessment import Context


class DataError(ValueError):
    """A data set that cannot be read or must not be used; the message says where and what was expected."""


KINDS = ("dermoscopy", "clinical")
PHOTOS = (*KINDS, "both")  # which photos of a lesion are seen
_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("calib", "calibration"), "calib"),
}


def split_name(text: str) -> str:
    """`train`, `valid`, `calib` or `test` for the usual words; any other split name stays, in lower case."""
    word = text.strip().lower()
    return _SPLIT_NAMES.get(word, word)


@dataclass(frozen=True)
class CriteriaReading:
    """The criteria that one dermatologist marked on one photo, from a list of others that were offered.

    `marked` were seen. `not_marked` were offered and left: weaker than "absent", which `Case.criteria` says.
    """

    marked: frozenset[str]
    not_marked: frozenset[str]
    annotator: str | None = None


@dataclass(frozen=True)
class Case:
    """One dermoscopy (or clinical) photo and its labels.

    `source` is the name of the data set's folder; `image_id` is unique within it. `lesion_id` falls back to the
    patient or the photo, so it can always be grouped by. `diagnosis` is a code of `vocabulary.DIAGNOSIS_CODES`,
    `criteria` holds labelled criteria only (code -> grouped state, "absent" included), `diagnosis_group` is one
    of `vocabulary.DERM7PT_GROUPS`, `group` a free word to report figures by.

    Attributes:
        kind: "dermoscopy" or "clinical", None where the source does not say.
        clinical_image: a second photo of the same lesion, a clinical close-up.
        attribute_masks: attribute (ISIC 2018 Task 2) -> where an expert drew it, None where nothing was drawn. An
            attribute that is not among the keys was not labelled.
        readings: the criteria that dermatologists marked, one entry a reading; not marked is weaker than absent.
        skin_tone: MILK10k's class, 0 (very dark) to 5 (very light).
        fitzpatrick: skin type 1 (very light) to 6 (very dark).
    """

    image: Path
    image_id: str
    source: str
    lesion_id: str
    diagnosis: str | None = None
    mask: Path | None = None
    context: Context = field(default_factory=Context)
    split: str | None = None
    group: str | None = None
    malignant: bool | None = None
    criteria: dict[str, str] = field(default_factory=dict)
    diagnosis_group: str | None = None
    clinical_image: Path | None = None
    patient_id: str | None = None
    kind: str | None = None
    attribute_masks: dict[str, Path | None] = field(default_factory=dict)
    readings: tuple[CriteriaReading, ...] = ()
    skin_tone: int | None = None
    fitzpatrick: int | None = None


def close_up(case: Case) -> Case:
    """The clinical photo of a case as the case itself. Raises DataError where it has none.

    A close-up shows the diagnosis, but not the dermoscopic criteria, and its mask would be another: it keeps neither.
    """
    if case.clinical_image is None:
        raise DataError(f"{case.source}/{case.image_id} has no clinical photo")
    return replace(
        case,
        image=case.clinical_image,
        kind="clinical",
        clinical_image=None,
        mask=None,
        criteria={},
        attribute_masks={},
        readings=(),
    )


@dataclass(frozen=True)
class CaseTable:
    """The cases of one data set, in the order of its label file, and one line for every row left out."""

    cases: tuple[Case, ...]
    problems: tuple[str, ...] = ()

    def split(self, *names: str) -> tuple[Case, ...]:
        """The cases of the named splits; the usual words for a split all name it ("val" is "valid")."""
        wanted = {split_name(name) for name in names}
        return tuple(case for case in self.cases if case.split in wanted)


def words_of_unknown(cases: Iterable[Case], known: Collection[str]) -> str | None:
    """A sentence that counts the cases whose diagnosis is not among `known`, None where there are none."""
    counts = Counter(case.diagnosis for case in cases if case.diagnosis is not None and case.diagnosis not in known)
    if not counts:
        return None
    listed = ", ".join(f"{code} {count}" for code, count in sorted(counts.items()))
    return f"{sum(counts.values())} photos are of a diagnosis that the model does not know ({listed})"
