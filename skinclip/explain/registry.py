"""The registry's entry: one way to explain a photo's diagnosis, behind one interface.

A photo and the model in, labelled maps out. Page, study and benchmarks take their methods from `explain.methods`, so
what is rated is what was measured, and a new method appears everywhere by its entry alone (`docs/extending.md`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from skinclip.explain.subject import LabelledMap, Subject

# Where a report picks some of the methods, by what it shows: a new method is in all of them unless its entry says less.
SUMMARY, CURVES, SANITY, GALLERY = "summary", "curves", "sanity", "gallery"
ALL_REPORTS = frozenset((SUMMARY, CURVES, SANITY, GALLERY))


@dataclass(frozen=True)
class Method:
    """One way to explain.

    Attributes:
        maps: the explanation as a whole first, then its parts where it has any.
        caption: how to read it, in a sentence, for a dermatologist.
        uses_model: False for controls, which know nothing of the model.
        of_criteria: False where it explains diagnoses alone, not the score of a criterion (`explain.criterion`).
        reports: the reports that show it beside the full comparison: README and model card (`SUMMARY`), deletion and
            insertion curves, the randomisation check, the gallery.
    """

    key: str
    title: str
    maps: Callable[[Subject], list[LabelledMap]]
    caption: str
    uses_model: bool = True
    of_criteria: bool = True
    reports: frozenset[str] = ALL_REPORTS


def registry(methods: Iterable[Method]) -> dict[str, Method]:
    """Methods by key, in their order. Raises ValueError where two have one key."""
    by_key: dict[str, Method] = {}
    for method in methods:
        if method.key in by_key:
            raise ValueError(f"two explanation methods have the key {method.key!r}")
        by_key[method.key] = method
    return by_key
