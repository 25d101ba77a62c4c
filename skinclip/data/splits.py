"""Which photos may be learnt from: guards against leaks, and the lesions that stage 0 must not see."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from skinclip.data.cases import Case, DataError


def check_no_leak(cases: Sequence[Case]) -> None:
    """Raises DataError where photos of one lesion are in more than one split of a data set."""
    split_of: dict[tuple[str, str], str | None] = {}
    for case in cases:
        first = split_of.setdefault((case.source, case.lesion_id), case.split)
        if first != case.split:
            raise DataError(
                f"{case.source}: lesion {case.lesion_id} is in the splits {first!r} and {case.split!r}; "
                "give all photos of a lesion the same split"
            )


def guard_training(cases: Sequence[Case]) -> None:
    """Raises DataError naming a photo that no training stage may read, or where there is none to read."""
    if not cases:
        raise DataError('no photo to learn from: no data set here has rows whose split is "train"')
    for case in cases:
        if case.split != "train":
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
