"""Bodies of the HTTP API beside the Assessment: requests, batches, problems."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from skinclip.core.assessment import Assessment, Context, ModelInfo
from skinclip.core.patient_context import MAX_AGE, patient_context
from skinclip.core.vocabulary import SEXES, SITES
from skinclip.service.assessments import LesionFiles

MOST_IN_BATCH = 16
SEX = f"^({'|'.join(SEXES)})$"


class ApiBody(BaseModel):
    """A JSON body; an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


Base64 = Annotated[str, Field(min_length=4, json_schema_extra={"format": "byte"})]


class PhotoRequest(ApiBody):
    """A photo, or two of one lesion, with what is known of the patient."""

    photo: Base64 = Field(description="The photo file in base64; dermoscopy where there is one.")
    clinical: Base64 | None = Field(None, description="A clinical close-up of the same lesion, likewise.")
    age: Annotated[float, Field(ge=0, le=MAX_AGE, allow_inf_nan=False)] | None = None
    sex: Annotated[str, Field(json_schema_extra={"enum": list(SEXES)})] | None = None
    site: Annotated[str, Field(json_schema_extra={"enum": list(SITES)})] | None = None

    @property
    def lesion(self) -> LesionFiles:
        """The photos and the entries. Raises ValueError for what cannot be used."""
        clinical = None if self.clinical is None else _decoded(self.clinical, "clinical")
        return given_lesion(_decoded(self.photo, "photo"), clinical, given_context(self.age, self.sex, self.site))

    @property
    def n_photos(self) -> int:
        """One or two, as the rate of a key counts them."""
        return 1 if self.clinical is None else 2


def _decoded(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{name} is not base64") from error


def given_lesion(photo: bytes, clinical: bytes | None, context: Context) -> LesionFiles:
    """Photos and entries of a call. Raises ValueError where both photos are one file."""
    if photo == clinical:
        raise ValueError("clinical is the photo itself; send another photo of the same lesion, or leave it out")
    return LesionFiles(photo, context, clinical)


def given_context(age: float | str | None = None, sex: str | None = None, site: str | None = None) -> Context:
    """The entries of a call. Raises ValueError for one that cannot be used, also an empty one: it is to be left out."""
    for name, entry in (("age", age), ("sex", sex), ("site", site)):
        if isinstance(entry, str) and entry.strip().lower() in ("", "unknown"):
            raise ValueError(f"{name} is empty; leave it out where it is not known")
    return patient_context(age, sex, site)


class BatchRequest(ApiBody):
    """Several lesions, of one or two photos each; each is answered by itself."""

    photos: list[PhotoRequest] = Field(min_length=1, max_length=MOST_IN_BATCH)


class ApiProblem(BaseModel):
    """A refusal (RFC 9457): `title` for programs, `detail` says what to do."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class BatchItem(BaseModel):
    """The answer to one lesion of a batch: its Assessment, or its problem."""

    assessment: Assessment | None = None
    problem: ApiProblem | None = None


class BatchAnswer(BaseModel):
    """The answers to a batch, in its order."""

    results: list[BatchItem]


class ModelAnswer(BaseModel):
    """The model that answers, and the diagnoses that it tells apart."""

    model: ModelInfo
    diagnoses: dict[str, str]
    research_use_only: str


MULTIPART: dict[str, Any] = {
    "type": "object",
    "required": ["photo"],
    "properties": {
        "photo": {
            "type": "string",
            "format": "binary",
            "description": "The photo file; dermoscopy where there is one.",
        },
        "clinical": {"type": "string", "format": "binary", "description": "A clinical close-up of the same lesion."},
        "age": {"type": "number", "minimum": 0, "maximum": MAX_AGE},
        "sex": {"type": "string", "enum": list(SEXES)},
        "site": {"type": "string", "enum": list(SITES)},
    },
    "additionalProperties": False,
}
