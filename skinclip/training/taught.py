"""The part of the vocabulary that training photos can teach: what no photo shows is not known, and so never said."""

from __future__ import annotations

import logging
from dataclasses import replace

from skinclip.core.config import ModelConfig
from skinclip.core.known import FIRST_CRITERIA, FIRST_DIAGNOSES
from skinclip.core.vocabulary import CRITERION_CODES, DIAGNOSIS_CODES
from skinclip.training.photo_sets import PhotoSet

log = logging.getLogger(__name__)


def taught(config: ModelConfig, photos: PhotoSet) -> ModelConfig:
    """The config without the later diagnoses and criteria that none of `photos` is labelled with, which the log names.

    HAM10000's seven diagnoses and the 7-point checklist stay in any case. A diagnosis that is never learnt would
    otherwise be in every prediction set, as nothing rules it out.
    """
    shown = {DIAGNOSIS_CODES[int(c)] for c in photos.diagnosis.unique() if c >= 0}
    labelled = (photos.criterion_targets.weight > 0).any(0).tolist()
    described = {code for code, any_label in zip(CRITERION_CODES, labelled, strict=True) if any_label}
    diagnoses = tuple(code for code in config.diagnoses if code in FIRST_DIAGNOSES or code in shown)
    criteria = tuple(code for code in config.criteria if code in FIRST_CRITERIA or code in described)
    missing = [code for code in (*config.diagnoses, *config.criteria) if code not in (*diagnoses, *criteria)]
    if missing:
        log.warning("no training photo is labelled with %s: the model will not know them", ", ".join(missing))
    return replace(config, diagnoses=diagnoses, criteria=criteria)
