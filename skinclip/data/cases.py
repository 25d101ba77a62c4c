"""What every reader returns: one `Case` a photo, with the labels its source gives and None for those it does not.

Only what a training stage or a measurement may use is here. What leaks the answer (how it was confirmed, the
photo's size, management, difficulty, total score, elevation) has no field, so it can never reach a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from skinclip.core.assessment import Context


class DataError(ValueError):
    """A data set that cannot be read or must not be used; the message says where and what was expected."""


@dataclass(frozen=True)
class Case:
    """One dermoscopy (or close-up) photo and its labels.

    `source` is the name of the data set's folder; `image_id` is unique within it. `lesion_id` falls back to the
    patient or the photo, so it can always be grouped by. `diagnosis` is a code of `vocabulary.DIAGNOSIS_CODES`,
    `criteria` holds labelled criteria only (code -> grouped state, "absent" included), `diagnosis_group` is one
    of `vocabulary.DERM7PT_GROUPS`, `group` a free word to report figures by.
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


@dataclass(frozen=True)
class CaseTable:
    """The cases of one data set, in the order of its label file, and one line for every row left out."""

    cases: tuple[Case, ...]
    problems: tuple[str, ...] = ()

    def split(self, *names: str) -> tuple[Case, ...]:
        """The cases of the named splits."""
        return tuple(case for case in self.cases if case.split in names)
