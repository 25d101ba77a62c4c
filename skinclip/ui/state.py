"""State of one visitor's page, kept in the server's memory: the photos in the form and the answer on display.

Every answer carries the photos that it is of, and the entries (age, sex, site, model, kinds of the photos) that it was
made with. Handlers use the photos of the answer, never those of the form, so that nothing drawn for one photo can be
laid over another; the page itself (`assets/page.js`) hides whatever does not belong to the photos in the form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from skinclip.core.assessment import Assessment, ClinicianRecord, Context, Kind
from skinclip.core.formatting import listed
from skinclip.imaging.bounded import load_photo_bounded
from skinclip.imaging.photo import LesionImage, PhotoError, load_photo
from skinclip.imaging.reframe import Edit
from skinclip.pipeline.reweighting import reweighted
from skinclip.pipeline.settings import Settings, at_threshold
from skinclip.reporting import limits
from skinclip.reporting.phrasing import KIND_NAMES

if TYPE_CHECKING:
    from skinclip.pipeline.assessor import Assessor

NOT_GIVEN = "not given"
AS_RECOGNISED = "recognised"  # the kind of a photo is left to the model
GIVEN: dict[str, Kind] = {"dermoscopy": "dermoscopy", "clinical": "clinical"}  # what a visitor may say that it is
Photos = tuple[bytes | None, bytes | None]  # the files in the form: the photo, and the other one of the same lesion
Kinds = tuple[Kind | None, Kind | None]  # of them, in that order


@dataclass(frozen=True)
class FormPhotos:
    """The photos in the form, and what is known of them.

    Attributes:
        photo: the file as it will be assessed, None where there is none.
        edit: how that was turned and cropped, None where it was not.
        other: the other one of the same lesion.
        other_kind: what the visitor says that it is.
        recognised: what the model takes both for.
    """

    photo: bytes | None = None
    edit: Edit | None = None
    other: bytes | None = None
    other_edit: Edit | None = None
    other_kind: str = AS_RECOGNISED
    recognised: Kinds | None = None


def edits_in_words(edit: Edit | None, other_edit: Edit | None, two: bool) -> str:
    """Words for the edits of the photos of an answer; "" where there are none. `two`: it is to two photos."""
    if not two:
        return "" if edit is None else edit.words
    named = ((edit, "first"), (other_edit, "second"))
    return listed([f"{one.words} (the photo added {which})" for one, which in named if one is not None])


@dataclass(frozen=True)
class Entries:
    """The form as it stood when Assess was pressed.

    Attributes:
        photo: SHA-256 of the photo file.
        adapter: `weights_sha256` of the chosen checkpoint, None for the one in use.
        other: SHA-256 of the file of the other photo, None where there is one photo.
        kinds: as the visitor gave them; None leaves a photo's to the model.
    """

    photo: str
    age: str
    sex: str
    site: str
    adapter: str | None
    other: str | None = None
    kinds: Kinds = (None, None)

    @classmethod
    def of(cls, photos: Photos, form: Sequence[Any]) -> Entries | None:
        """The entries in the fields of `AssessView.form`; None without a photo."""
        first, other = photos
        if first is None:
            return None
        age, sex, site, adapter, kind, other_kind = form
        beside = None if other is None else photo_hash(other)
        kinds = (GIVEN.get(kind), None if other is None else GIVEN.get(other_kind))
        return cls(photo_hash(first), age or "", sex, site, adapter, beside, kinds)

    def are_of(self, photos: Photos) -> bool:
        """True where these are the photos that they were made with."""
        return (self.photo, self.other) == tuple(None if photo is None else photo_hash(photo) for photo in photos)

    def same_but_photos(self, other: Entries) -> bool:
        """True where both give the same answer for the same photos."""
        mine, others = (e.context or e.age.strip() for e in (self, other))
        return (mine, self.adapter, self.kinds) == (others, other.adapter, other.kinds)

    @property
    def context(self) -> Context | None:
        """Patient as entered; None for an age that no patient has."""
        try:
            return context_of(self.age, self.sex, self.site)
        except PhotoError:
            return None


@dataclass(frozen=True)
class AssessedPhoto:
    """The answer on display. Pictures are kept encoded and at the size displayed: a visitor costs about a megabyte.

    Attributes:
        photo: the bytes of the photo file that was assessed; of two, the one that regions are drawn in.
        assessment: the model's own, at its own threshold and prevalence.
        picture: the photo at the size displayed, JPEG.
        heat: the Grad-CAM map of the leading diagnosis as a layer over it, PNG; None after an abstention.
        settings: threshold and prevalence that the reader chose.
        clinician: what the reader added.
        made_by: the name of the model, where there are several to choose from.
        other: the bytes of the photo file that was seen beside it, and `other_picture`, small; None for one photo.
        kinds: as the visitor gave them, in the order of the form.
        weighted: the Assessment at the prevalence of the settings, where that is not the model's own.
    """

    photo: bytes
    assessment: Assessment
    picture: bytes
    heat: bytes | None
    settings: Settings = Settings()  # noqa: RUF009  frozen
    clinician: ClinicianRecord = ClinicianRecord()  # noqa: RUF009  frozen
    made_by: str | None = None
    other: bytes | None = None
    other_picture: bytes | None = None
    kinds: Kinds = (None, None)
    weighted: Assessment | None = None

    def at(self, settings: Settings, assessor: Assessor) -> AssessedPhoto:
        """The answer at a reader's settings. Raises ValueError where the model cannot change its prevalence."""
        malignant, own = settings.prevalence, self.assessment
        other = None if malignant is None or own.abstained else reweighted(assessor, own, malignant)
        return replace(self, settings=settings, weighted=other)

    def load(self) -> tuple[LesionImage, LesionImage | None]:
        """The photos in the order in which they were read, each of the kind that was given. Raises PhotoError."""
        records = self.assessment.photos or (self.assessment.photo,)
        files = [file for file in (self.photo, self.other) if file is not None]
        first, *others = (
            replace(load_photo_bounded(file), kind=record.kind_given)
            for file, record in zip(files, records, strict=True)
        )
        return first, others[0] if others else None

    @property
    def key(self) -> str:
        """See `answer_key`."""
        return answer_key(self.assessment)

    @property
    def pixels(self) -> np.ndarray:
        """uint8 [H, W, 3] at the size displayed."""
        return load_photo(self.picture).pixels

    @property
    def pictures(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The photos at the size displayed, uint8 [H, W, 3] each; None where there is one."""
        return self.pixels, None if self.other_picture is None else load_photo(self.other_picture).pixels

    @property
    def shown(self) -> Assessment:
        """The Assessment at the reader's settings, with what the referral costs there."""
        shown = at_threshold(self.weighted or self.assessment, self.settings.threshold)
        costs = limits.costs(shown.malignancy, shown.model.weights_sha256, self.assessment.malignancy.prevalence)
        return replace(shown, malignancy=replace(shown.malignancy, sensitivity=costs[0], specificity=costs[1]))

    @property
    def exported(self) -> Assessment:
        """The Assessment for the hand-over: at the reader's settings, with what the reader added."""
        added = None if self.clinician == ClinicianRecord() else self.clinician
        return replace(self.shown, clinician=added)


def photo_hash(photo: bytes) -> str:
    """SHA-256 of a photo file, as in `LesionImage.sha256`."""
    return hashlib.sha256(photo).hexdigest()


def photos_mark(assessment: Assessment) -> str:
    """Names the photos of an answer, whichever is first; `assets/page.js` makes the same of those in the form."""
    return "+".join(sorted(photo.sha256 for photo in assessment.photos or (assessment.photo,)))


def entries_of(answer: AssessedPhoto, adapter: bool) -> Entries:
    """The entries that an answer was made with. `adapter`: the form names the model too."""
    assessment = answer.assessment
    c = assessment.context
    age = "" if c.age is None else repr(c.age)
    weights = assessment.model.weights_sha256 if adapter else None
    other = None if answer.other is None else photo_hash(answer.other)
    sex, site = c.sex or NOT_GIVEN, c.site or NOT_GIVEN
    return Entries(assessment.photo.sha256, age, sex, site, weights, other, answer.kinds)


def answer_key(assessment: Assessment) -> str:
    """Identifies an answer: a hash of its photos with the kinds that were given, context and weights."""
    photos = tuple((photo.sha256, photo.kind_given) for photo in assessment.photos or (assessment.photo,))
    parts = (photos, assessment.context, assessment.model.weights_sha256)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def context_of(age: str | None, sex: str | None, site: str | None) -> Context:
    """Context from the form's fields. Raises PhotoError for an age that no patient has."""
    years: float | None = None
    if age and age.strip():
        try:
            years = float(age.strip().replace(",", "."))
        except ValueError:
            years = -1.0
        if not 0 <= years <= 120:
            raise PhotoError("The age must be a number of years from 0 to 120. Correct it or leave it empty.")
    return Context(years, None if sex in (None, NOT_GIVEN) else sex, None if site in (None, NOT_GIVEN) else site)


def describe_kinds(entries: Entries) -> str:
    """The kinds that a visitor gave, in words, such as "the photo taken for a clinical close-up"."""
    first, other = (f"taken for {KIND_NAMES[kind]}" if kind else "of the kind recognised" for kind in entries.kinds)
    return f"the photo {first}" if entries.other is None else f"the first photo {first}, the other {other}"


def describe_context(context: Context) -> str:
    """The patient entries in words, such as "age 61, female, back"."""
    parts = ["" if context.age is None else f"age {context.age:g}", context.sex or "", context.site or ""]
    return ", ".join(filter(None, parts)) or "no age, sex or body site"
