"""State of one visitor's page, kept in the server's memory: the photo in the form and the answer on display.

Every answer carries the photo that it is of, and the entries (age, sex, site, model) that it was made with. Handlers
use the photo of the answer, never that of the form, so that nothing drawn for one photo can be laid over another; the
page itself (`assets/page.js`) hides whatever does not belong to the photo in the form.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from skinclip.core.assessment import Assessment, Context
from skinclip.imaging.photo import PhotoError

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
    """The answer on display.

    Attributes:
        photo: the bytes of the photo file that was assessed.
        pixels: uint8 [H, W, 3] at the size displayed.
        heat: [H, W] in 0..1, the Grad-CAM map of the leading diagnosis; None after an abstention.
    """

    photo: bytes
    assessment: Assessment
    pixels: np.ndarray
    heat: np.ndarray | None

    @property
    def key(self) -> str:
        """See `answer_key`."""
        return answer_key(self.assessment)


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
