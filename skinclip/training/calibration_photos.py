"""Choice of the photos that a calibration is fitted on: several sources and both kinds, none that was learnt from.

HAM10000 and MILK10k have a `calib` split of their own. Derm7pt and ISIC 2017 have none, and their `train` split is what
the model learnt from: on photos that it knows by heart it is surer than it will ever be again, so nothing can be
calibrated there. A part of the lesions of their `valid` split is taken instead, by a hash of the lesion's name, so that
it stays the same whatever else is there; the rest of `valid` is left for choosing and measuring. No test photo, ever.
"""

from __future__ import annotations

from collections.abc import Sequence

from skinclip.data.cases import Case
from skinclip.data.splits import lesion_share
from skinclip.training.photo_sets import with_clinical

# Of the lesions of `valid` of a source without `calib`; with fewer there are too few melanomas for a promise.
VALID_SHARE = 0.75
CUT_SEED = 17
# ISIC 2018 Task 2 is made of ISIC 2017's photos: one source, whose photos count once.
SAME_SOURCE = {"isic2018_task2": "isic2017"}


def source_of(case: Case) -> str:
    """The name under which a case's source is calibrated and reported."""
    return SAME_SOURCE.get(case.source, case.source)


def calibration_cases(calib: Sequence[Case], valid: Sequence[Case]) -> list[Case]:
    """The cases to fit on, each close-up as a case of its own.

    Args:
        calib: all cases of the `calib` splits; valid: all of the `valid` splits.
    """
    own = {source_of(c) for c in calib}
    cut = [c for c in valid if source_of(c) not in own and in_calibration_cut(c)]
    once = {(source_of(c), c.image_id): c for c in [*calib, *cut]}
    labelled = [c for c in once.values() if c.diagnosis is not None or c.malignant is not None]
    return with_clinical(labelled)


def in_calibration_cut(case: Case) -> bool:
    """Says that a `valid` case of a source without a `calib` split belongs to the part that is calibrated on."""
    return lesion_share(source_of(case), case.lesion_id, CUT_SEED) < VALID_SHARE
