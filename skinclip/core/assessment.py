"""The Assessment: what the path from photo to diagnosis hands over. A frozen record without tensors, JSON in and out.

Page, report, study and command line render, store or rate an `Assessment`; none of them computes one. Coordinates
are pixels of the oriented photo, x to the right and y down. Every value is checked when a record is made, and JSON is
read strictly: a number is a number, and an unknown field is an error.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from skinclip.core.vocabulary import state_key

Polygon = tuple[tuple[float, float], ...]  # an outline: ((x, y), ...)
Kind = Literal["dermoscopy", "clinical", "neither"]  # of a photo
Box = tuple[float, float, float, float]  # x0, y0, x1, y1
STRICT = ConfigDict(strict=True, extra="forbid")


@dataclass(frozen=True, config=STRICT)
class ModelInfo:
    """The model that answered; `weights_sha256` is one hash over all of its weights."""

    preset: str
    version: str
    weights_sha256: str


@dataclass(frozen=True, config=STRICT)
class QualityIssue:
    """`code`: blur, dark, bright, low_contrast, small, no_lesion or cut_off; `blocking` makes the photo unusable."""

    code: str
    message: str
    blocking: bool


@dataclass(frozen=True, config=STRICT)
class Quality:
    """The verdict on the photo: usable unless an issue blocks."""

    usable: bool
    issues: tuple[QualityIssue, ...] = ()


@dataclass(frozen=True, config=STRICT)
class PhotoInfo:
    """The photo that was assessed, by the hash of its file.

    `kind` is what it was taken for, "dermoscopy", "clinical" or "neither": `kind_given`, what a person said it is, or
    else `kind_recognised`, what the model recognised it as, with the `kind_probability` of that. None where nobody said
    so, nothing recognised it, or it was not kept. Criteria of dermoscopy are asserted on dermoscopy, or where the kind
    is not known.
    """

    width: int
    height: int
    sha256: str
    quality: Quality
    kind: Kind | None = None
    kind_probability: float | None = None
    kind_given: Kind | None = None
    kind_recognised: Kind | None = None


@dataclass(frozen=True, config=STRICT)
class Context:
    """Patient context as the clinician gave it; None is "not given"."""

    age: float | None = None
    sex: str | None = None
    site: str | None = None


@dataclass(frozen=True, config=STRICT)
class DiagnosisProbability:
    """One diagnosis of the vocabulary with its calibrated probability."""

    code: str
    name: str
    probability: float


@dataclass(frozen=True, config=STRICT)
class PredictionSet:
    """The diagnoses that cannot be ruled out at `coverage` (split-conformal)."""

    coverage: float
    codes: tuple[str, ...]


@dataclass(frozen=True, config=STRICT)
class Malignancy:
    """The probability of the malignant diagnoses together, and the referral decision at `threshold`.

    `sensitivity` is the share of malignant calibration photos that are referred at this threshold, `specificity` that
    of benign ones that are not; `prevalence` is the share of malignant lesions that the probabilities assume. None
    where it is not known.
    """

    probability: float
    threshold: float
    refer: bool
    sensitivity: float | None = None
    specificity: float | None = None
    prevalence: float | None = None


@dataclass(frozen=True, config=STRICT)
class PrevalenceUsed:
    """The prevalence that the probabilities are at: its name, and the share of each diagnosis."""

    name: str
    shares: dict[str, float]


@dataclass(frozen=True, config=STRICT)
class SkinTone:
    """The skin around the lesion, as the photo shows it.

    Attributes:
        ita: individual typology angle in degrees, lower is darker; None where too little skin could be measured.
        in_range: it lies within the range of nearly all training photos; None where either is not known.
    """

    ita: float | None
    in_range: bool | None


@dataclass(frozen=True, config=STRICT)
class Shift:
    """`score` is 0-1, the share of calibration photos that look more usual than this one."""

    score: float
    in_domain: bool


@dataclass(frozen=True, config=STRICT)
class Region:
    """A part of the photo: outlines and the box around them."""

    box: Box
    polygons: tuple[Polygon, ...]


@dataclass(frozen=True, config=STRICT)
class Lesion:
    """The segmented lesion; `box` is None where none was found. `area_fraction` is of the whole photo."""

    box: Box | None
    polygons: tuple[Polygon, ...]
    area_fraction: float


@dataclass(frozen=True, config=STRICT)
class Finding:
    """One cited finding. `ref` is "r1", "r2", ...; `score` 0-1; `criterion` and `state` as in `core/vocabulary.py`.

    `effect` is what the leading diagnosis loses without the region and gains by it alone, in log-odds
    (`explain.effects`); None where it was not measured, or the region is the lesion itself.
    """

    ref: str
    criterion: str
    state: str
    score: float
    region: Region
    effect: float | None = None

    @property
    def key(self) -> str:
        """The key of its state in `core/vocabulary.py`."""
        return state_key(self.criterion, self.state)


@dataclass(frozen=True, config=STRICT)
class Dependence:
    """Dependence of the leading diagnosis on one region, taken out of the photo (`explain.dependence`).

    Attributes:
        ref: of the finding without whose region the diagnosis loses most.
        before, after: probability of the leading diagnosis with the region and without it.
        after_random: the same without random places of the lesion as large, on average.
        beyond_chance: the loss is larger than that without random places.
    """

    ref: str
    before: float
    after: float
    after_random: float
    beyond_chance: bool


@dataclass(frozen=True, config=STRICT)
class Revision:
    """The answer after a clinician's corrections, beside the model's own, which stays as it is.

    Attributes:
        outline: the lesion's outline as the clinician drew it; empty where it was left.
        struck_out: references of the findings that the clinician does not see.
        added: criterion -> state that the clinician sees and the model did not cite.
    """

    outline: Polygon
    struck_out: tuple[str, ...]
    added: dict[str, str]
    diagnosis: tuple[DiagnosisProbability, ...]
    prediction_set: PredictionSet
    malignancy: Malignancy


@dataclass(frozen=True, config=STRICT)
class ClinicianRecord:
    """The clinician's part of an Assessment; everything is None or "" where it was not given.

    Attributes:
        case_id: as typed at the hand-over; `date` likewise (ISO 8601).
        first_diagnosis: the code that the clinician gave before the answer was shown; `agrees` says that the model's
            leading diagnosis is the same.
        photo_edit: how the photo was turned and cropped before it was assessed, in words.
        revision: the answer after the clinician's corrections.
    """

    case_id: str = ""
    date: str = ""
    first_diagnosis: str | None = None
    agrees: bool | None = None
    photo_edit: str = ""
    revision: Revision | None = None


@dataclass(frozen=True)
class Differential:
    """The first two diagnoses, by code; `runner_up_open` says that the second one cannot be ruled out."""

    leading: str
    runner_up: str
    runner_up_open: bool = True


@dataclass(frozen=True, config=STRICT)
class Assessment:
    """Everything the model says about one photo.

    `criteria` gives the probability of every state of every criterion, "absent" included, cited or not.
    `diagnosis` is sorted by falling probability. `rationale` cites findings as [r1], [r2], ...; it is empty where
    the model abstained. `abstained` says that the photo is unusable or too unlike what the model knows. `dependence`
    is None where it was not measured, `clinician` where nobody has added anything, `prevalence` and `skin_tone` in an
    Assessment made before they were kept. `photos` are all photos of the lesion, `photo` first, in whose pixels all
    regions lie; it is empty in an Assessment of one photo.
    """

    model: ModelInfo
    photo: PhotoInfo
    context: Context
    diagnosis: tuple[DiagnosisProbability, ...]
    prediction_set: PredictionSet
    malignancy: Malignancy
    shift: Shift
    lesion: Lesion
    criteria: dict[str, dict[str, float]]
    findings: tuple[Finding, ...]
    rationale: str
    abstained: bool
    dependence: Dependence | None = None
    clinician: ClinicianRecord | None = None
    prevalence: PrevalenceUsed | None = None
    skin_tone: SkinTone | None = None
    photos: tuple[PhotoInfo, ...] = ()

    @property
    def dermoscopic(self) -> bool:
        """True unless the photo that findings are drawn in is known not to be dermoscopy."""
        return self.photo.kind in (None, "dermoscopy")

    @property
    def of_one_kind(self) -> Kind | None:
        """The kind that both photos of the lesion were taken for; None where they differ, or there is one."""
        kinds = [photo.kind for photo in self.photos]
        return kinds[0] if len(kinds) > 1 and len(set(kinds)) == 1 else None

    @property
    def differential(self) -> Differential:
        """The first two diagnoses, and whether the prediction set holds the second."""
        leading, runner_up = (d.code for d in self.diagnosis[:2])
        return Differential(leading, runner_up, runner_up in self.prediction_set.codes)

    @property
    def pivotal(self) -> Finding | None:
        """The finding on whose region the leading diagnosis depends, beyond chance; None where there is none."""
        if self.dependence is None or not self.dependence.beyond_chance:
            return None
        return next((f for f in self.findings if f.ref == self.dependence.ref), None)

    def to_dict(self) -> dict[str, Any]:
        """The Assessment as plain dicts, lists and values."""
        return dataclasses.asdict(self)

    def to_json(self, indent: int | None = 2) -> str:
        """The Assessment as a JSON object. Raises ValueError for a number that JSON does not have."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Assessment:
        """The same Assessment again, also one written before a field with a default was added.

        Raises ValueError naming each field that is missing, unknown or of another kind.
        """
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError as error:
            problems = (f"{'.'.join(map(str, e['loc'])) or 'document'}: {e['msg']}" for e in error.errors())
            raise ValueError(f"not an Assessment: {'; '.join(problems)}") from error


_ADAPTER = TypeAdapter(Assessment)
