"""The photos of one lesion: their kinds in the record, and which of two is read first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from skinclip.core.assessment import Kind, PhotoInfo, Quality
from skinclip.imaging.photo import LesionImage

KINDS: dict[str, Kind] = {"dermoscopy": "dermoscopy", "clinical": "clinical", "neither": "neither"}  # as recognised
_ORDER: dict[Kind | None, int] = {"dermoscopy": 0, None: 1, "clinical": 2, "neither": 3}


class RecognisesKinds(Protocol):
    """The part of an `Assessor` that tells kinds of photos apart."""

    def recognise(self, images: Sequence[LesionImage]) -> list[Kind | None]:
        """The kind of each photo; see `Assessor.recognise`."""
        ...


def photo_info(image: LesionImage, quality: Quality, recognised: Kind | None) -> PhotoInfo:
    """The record of a photo. What a person said of its kind holds, and what was recognised stays beside it."""
    return PhotoInfo(
        image.width,
        image.height,
        image.sha256,
        quality,
        kind=image.kind or recognised,
        kind_given=image.kind,
        kind_recognised=recognised,
    )


def dermoscopy_first(
    assessor: RecognisesKinds, first: LesionImage, other: LesionImage | None
) -> tuple[LesionImage, LesionImage | None]:
    """The photos of one lesion in the order in which they are read: regions are drawn in dermoscopy where there is any.

    Photos of one kind, or of a kind that nobody knows, keep their order.
    """
    if other is None:
        return first, None
    recognised = assessor.recognise([first, other]) if None in (first.kind, other.kind) else [None, None]
    before, after = (_ORDER[image.kind or kind] for image, kind in zip((first, other), recognised, strict=True))
    return (first, other) if before <= after else (other, first)
