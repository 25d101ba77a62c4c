"""State of one visitor's page, kept in the server's memory: the photo in the form and the answer on display.

Every answer carries the photo that it is of, and the entries (age, sex, site, model) that it was made with. Handlers
use the photo of the answer, never that of the form, so that nothing drawn for one photo can be laid over another; the
page itself (`assets/page.js`) hides whatever does not belong to the photo in the form.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from skinclip.core.assessment import Assessment, ClinicianRecord, Context
from skinclip.imaging.photo import PhotoError, load_photo
from skinclip.pipeline.settings import Settings, at_settings
from skinclip.reporting import limits

NOT_GIVEN = "not given"


@dataclass(frozen=True)
class Entries:
    """The form as it stood when Assess was pressed.

    Attributes:
        photo: SHA-256 of the photo file.
        adapter: `weights_sha256` of the chosen checkpoint, None for the one in use.
    """

    photo: str
    age: str
    sex: str
    site: str
    adapter: str | None

    def same_patient_and_model(self, other: Entries) -> bool:
        """True where both give the same answer for the same photo."""
        mine, others = (e.context or e.age.strip() for e in (self, other))
        return (mine, self.adapter) == (others, other.adapter)

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
        photo: the bytes of the photo file that was assessed.
        assessment: the model's own, at its own threshold and prevalence.
        picture: the photo at the size displayed, JPEG.
        heat: the Grad-CAM map of the leading diagnosis as a layer over it, PNG; None after an abstention.
        settings: threshold and prevalence that the reader chose.
        clinician: what the reader added.
        made_by: the name of the model, where there are several to choose from.
    """

    photo: bytes
    assessment: Assessment
    picture: bytes
    heat: bytes | None
    settings: Settings = Settings()  # noqa: RUF009  frozen
    clinician: ClinicianRecord = ClinicianRecord()  # noqa: RUF009  frozen
    made_by: str | None = None

    @property
    def key(self) -> str:
        """See `answer_key`."""
        return answer_key(self.assessment)

    @property
    def pixels(self) -> np.ndarray:
        """uint8 [H, W, 3] at the size displayed."""
        return load_photo(self.picture).pixels

    @property
    def shown(self) -> Assessment:
        """The Assessment at the reader's settings, with what the referral costs there."""
        shown = at_settings(self.assessment, self.settings)
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


def entries_of(assessment: Assessment, adapter: bool) -> Entries:
    """The entries that an answer was made with. `adapter`: the form names the model too."""
    c = assessment.context
    age = "" if c.age is None else repr(c.age)
    weights = assessment.model.weights_sha256 if adapter else None
    return Entries(assessment.photo.sha256, age, c.sex or NOT_GIVEN, c.site or NOT_GIVEN, weights)


def answer_key(assessment: Assessment) -> str:
    """Identifies an answer: a hash of its photo, context and weights."""
    parts = (assessment.photo.sha256, assessment.context, assessment.model.weights_sha256)
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


def describe_context(context: Context) -> str:
    """The patient entries in words, such as "age 61, female, back"."""
    parts = ["" if context.age is None else f"age {context.age:g}", context.sex or "", context.site or ""]
    return ", ".join(filter(None, parts)) or "no age, sex or body site"
