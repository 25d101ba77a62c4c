"""What the path from photo to diagnosis hands over: a frozen record without tensors, JSON in and out.

Page, report, study and command line render, store or rate an `Assessment`; none of them computes one. Coordinates
are pixels of the oriented photo, x to the right and y down.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from skinclip.core.vocabulary import state_key

Polygon = tuple[tuple[float, float], ...]  # an outline: ((x, y), ...)
Box = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True)
class ModelInfo:
    preset: str
    version: str
    weights_sha256: str


@dataclass(frozen=True)
class QualityIssue:
    """`code`: blur, dark, bright, low_contrast, small, no_lesion or cut_off; `blocking` makes the photo unusable."""

    code: str
    message: str
    blocking: bool


@dataclass(frozen=True)
class Quality:
    usable: bool
    issues: tuple[QualityIssue, ...] = ()


@dataclass(frozen=True)
class PhotoInfo:
    width: int
    height: int
    sha256: str
    quality: Quality


@dataclass(frozen=True)
class Context:
    """Patient context as the clinician gave it; None is "not given"."""

    age: float | None = None
    sex: str | None = None
    site: str | None = None


@dataclass(frozen=True)
class DiagnosisProbability:
    code: str
    name: str
    probability: float


@dataclass(frozen=True)
class PredictionSet:
    """The diagnoses that cannot be ruled out at `coverage` (split-conformal)."""

    coverage: float
    codes: tuple[str, ...]


@dataclass(frozen=True)
class Malignancy:
    probability: float
    threshold: float
    refer: bool


@dataclass(frozen=True)
class Shift:
    """`score` is 0-1, the share of calibration photos that look more usual than this one."""

    score: float
    in_domain: bool


@dataclass(frozen=True)
class Region:
    box: Box
    polygons: tuple[Polygon, ...]


@dataclass(frozen=True)
class Lesion:
    """The segmented lesion; `box` is None where none was found. `area_fraction` is of the whole photo."""

    box: Box | None
    polygons: tuple[Polygon, ...]
    area_fraction: float


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Assessment:
    """Everything the model says about one photo.

    `criteria` gives the probability of every state of every criterion, "absent" included, cited or not.
    `diagnosis` is sorted by falling probability. `rationale` cites findings as [r1], [r2], ...; it is empty where
    the model abstained. `abstained` says that the photo is unusable or too unlike what the model knows.
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

    @property
    def pivotal(self) -> Finding | None:
        """The finding whose region the leading diagnosis depends on most; None where it depends on none of them."""
        weighed = [f for f in self.findings if f.effect is not None and f.effect > 0]
        return max(weighed, key=lambda f: f.effect or 0.0, default=None)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_json(self, indent: int | None = 2) -> str:
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Assessment:
        """The same Assessment again. Raises ValueError for a document with missing or unknown fields."""
        return _build(cls, json.loads(text))


_NESTED: dict[str, Any] = {
    "model": ModelInfo,
    "photo": PhotoInfo,
    "quality": Quality,
    "context": Context,
    "prediction_set": PredictionSet,
    "malignancy": Malignancy,
    "shift": Shift,
    "lesion": Lesion,
    "region": Region,
}
_NESTED_LISTS: dict[str, Any] = {
    "issues": QualityIssue,
    "diagnosis": DiagnosisProbability,
    "findings": Finding,
}


def _build(cls: Any, values: dict[str, Any]) -> Any:
    names = {f.name for f in dataclasses.fields(cls)}
    if set(values) != names:
        missing, unknown = sorted(names - set(values)), sorted(set(values) - names)
        raise ValueError(f"not a {cls.__name__}: missing fields {missing}, unknown fields {unknown}")
    return cls(**{name: _convert(name, value) for name, value in values.items()})


def _convert(name: str, value: Any) -> Any:
    if name in _NESTED_LISTS:
        return tuple(_build(_NESTED_LISTS[name], v) for v in value)
    if name in _NESTED:
        return _build(_NESTED[name], value)
    return _tuples(value)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
