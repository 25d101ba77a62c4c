"""Which photos may be learnt from: guards against leaks, and the lesions that stage 0 must not see."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from skinclip.data.cases import Case, DataError

TRAINABLE_SPLITS = frozenset({"train"})
# Ids of the ISIC archive and of HAM10000 mean the same photo or lesion in whichever data set they turn up: ISIC 2018's
# training photos are those of HAM10000.
_PUBLISHED_ID = re.compile(r"(ISIC|HAM)_\d{7}")


def check_no_leak(cases: Sequence[Case]) -> None:
    """Raises DataError where one lesion is in more than one split of a data set, or a published photo or lesion is in
    different splits of two data sets.
    """
    split_of: dict[tuple[str, str], Case] = {}
    for case in cases:
        for scope, name in [(case.source, case.lesion_id), *_published(case)]:
            first = split_of.setdefault((scope, name), case)
            if first.split != case.split:
                raise DataError(
                    f"{name} is in the splits {first.split!r} of {first.source} and {case.split!r} of {case.source}; "
                    "give all photos of a lesion the same split"
                )


def _published(case: Case) -> list[tuple[str, str]]:
    if case.split is None:  # of a set without splits, from which nothing is learnt
        return []
    return [("", name) for name in (case.image_id, case.lesion_id) if _PUBLISHED_ID.fullmatch(name)]


def guard_training(cases: Sequence[Case]) -> None:
    """Raises DataError naming a photo that no training stage may read, or where there is none to read."""
    if not cases:
        raise DataError('no photo to learn from: no data set here has rows whose split is "train"')
    for case in cases:
        if case.split not in TRAINABLE_SPLITS:
            raise DataError(f"{case.source}/{case.image_id} is of split {case.split!r} and must not be learnt from")


def hold_out(cases: Sequence[Case], share: float, seed: int) -> tuple[list[Case], list[Case]]:
    """(kept, held): about `share` of the lesions held out, all photos of a lesion together.

    By a hash of the lesion's name, so that a lesion's side does not change when other photos are added.
    """
    kept: list[Case] = []
    held: list[Case] = []
    for case in cases:
        digest = hashlib.sha256(f"{seed}/{case.source}/{case.lesion_id}".encode()).digest()
        (held if int.from_bytes(digest[:8], "big") / 2**64 < share else kept).append(case)
    return kept, held
