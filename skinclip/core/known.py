"""The part of the vocabulary that a checkpoint knows: its diagnoses and its criteria.

Arrays always have one column per diagnosis and per criterion state of the vocabulary, whatever a checkpoint knows. What
it does not know is padded so that it is never said: a diagnosis has the probability 0, a state is never there. So a
checkpoint made before a diagnosis was added gives the numbers that it gave, and nothing that reads arrays has to ask.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from skinclip.core.vocabulary import CRITERIA, CRITERION_CODES, DIAGNOSIS_CODES, EVIDENCE_STATES, Criterion

# Those of checkpoints that do not say what they know: HAM10000's seven classes and the 7-point checklist.
FIRST_DIAGNOSES: tuple[str, ...] = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
FIRST_CRITERIA: tuple[str, ...] = (
    *("pigment_network", "streaks", "pigmentation", "regression_structures"),
    *("dots_and_globules", "blue_whitish_veil", "vascular_structures"),
)


@dataclass(frozen=True)
class KnownVocabulary:
    """Diagnoses and criteria by code, in the vocabulary's order; by default all of it.

    Raises ValueError for a code that is unknown, given twice or out of order, and for fewer than two diagnoses or no
    criterion.
    """

    diagnoses: tuple[str, ...] = DIAGNOSIS_CODES
    criteria: tuple[str, ...] = CRITERION_CODES

    def __post_init__(self) -> None:
        _check("diagnoses", self.diagnoses, DIAGNOSIS_CODES, 2)
        _check("criteria", self.criteria, CRITERION_CODES, 1)

    @cached_property
    def columns(self) -> tuple[int, ...]:
        """Numbers of the diagnoses in `vocabulary.DIAGNOSIS_CODES`."""
        return tuple(DIAGNOSIS_CODES.index(code) for code in self.diagnoses)

    @cached_property
    def unknown_columns(self) -> tuple[int, ...]:
        """Numbers of the diagnoses that are not known."""
        return tuple(c for c in range(len(DIAGNOSIS_CODES)) if c not in self.columns)

    @cached_property
    def states(self) -> tuple[int, ...]:
        """Numbers in `vocabulary.EVIDENCE_STATES` of the states of the criteria."""
        return tuple(k for k, state in enumerate(EVIDENCE_STATES) if state.criterion in self.criteria)

    @cached_property
    def unknown_states(self) -> tuple[int, ...]:
        """Numbers of the states that are not known."""
        return tuple(k for k in range(len(EVIDENCE_STATES)) if k not in self.states)

    @cached_property
    def known_criteria(self) -> tuple[Criterion, ...]:
        """The criteria as the vocabulary describes them."""
        return tuple(c for c in CRITERIA if c.code in self.criteria)


def _check(field: str, codes: tuple[str, ...], known: tuple[str, ...], least: int) -> None:
    unknown = [code for code in codes if code not in known]
    if unknown:
        raise ValueError(
            f"{field}: this version does not know {', '.join(unknown)} (it knows {', '.join(known)}); a checkpoint "
            "that names them was made by a newer version: update SkinCLIP-VL"
        )
    if len(codes) < least:
        raise ValueError(f"{field} must name at least {least} of {', '.join(known)}, got {len(codes)}")
    in_order = tuple(code for code in known if code in codes)
    if codes != in_order:
        raise ValueError(f"{field} must be in the vocabulary's order, each once: {', '.join(in_order)}")
