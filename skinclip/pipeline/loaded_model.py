"""The model for programs: `from skinclip import load`.

model = load()
assessment = model.assess("lesion.jpg", age=55, sex="male", site="back")
print(assessment.diagnosis[0].name, assessment.malignancy.refer)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from skinclip.core.assessment import Assessment, ModelInfo
from skinclip.core.patient_context import patient_context
from skinclip.imaging.photo import load_photo
from skinclip.pipeline.assessor import Assessor

Photo = str | Path | bytes | BinaryIO


class LoadedModel:
    """A model in memory that assesses photo files. Calls from several threads wait for each other.

    Attributes:
        assessor: what it is made of, for explanations and batches.
    """

    def __init__(self, assessor: Assessor) -> None:
        self.assessor = assessor

    @property
    def info(self) -> ModelInfo:
        """The preset, the version, and the hash of the weights."""
        return self.assessor.model_info

    def assess(
        self,
        photo: Photo,
        age: float | None = None,
        sex: str | None = None,
        site: str | None = None,
        clinical: Photo | None = None,
    ) -> Assessment:
        """The Assessment of a photo: a path, the bytes of a file, or a binary stream.

        Args:
            clinical: a clinical close-up of the same lesion beside it.

        Raises PhotoError for a photo that cannot be read, ValueError for an age, sex or site that cannot be used.
        """
        context = patient_context(age, sex, site)
        beside = None if clinical is None else replace(load_photo(clinical), kind="clinical")
        return self.assessor.assess(load_photo(photo), context, clinical=beside)

    def assess_all(self, photos: Iterable[Photo]) -> Iterator[Assessment]:
        """The Assessments of photos without patient context, one by one. Raises PhotoError at the first bad one.

        For photos by the thousand see `skinclip screen`, which goes on after bad ones and restarts.
        """
        return (self.assess(photo) for photo in photos)


def load(preset: str = "mini", weights: str | Path | None = None) -> LoadedModel:
    """Loads a preset, from its own checkpoint unless `weights` names another folder.

    Raises ValueError, CheckpointError or MissingWeights with what is missing, or TooLittleMemory.
    """
    return LoadedModel(Assessor.load(preset, Path(weights) if weights else None))
