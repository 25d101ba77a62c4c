"""Prevalence: how often each diagnosis is met where the photo was taken. It is the user's to say.

The same photo means something else in a dermatology clinic and in a general practice. A prevalence is one of `NAMED`,
or one's own numbers in a YAML or JSON file:

    name: our clinic
    source: lesions excised in 2025
    shares: {mel: 120, nv: 900, bcc: 310, akiec: 80, scc: 60, bkl: 240, df: 30, vasc: 25, other: 90}

Numbers may be counts or shares; a diagnosis that is left out has none. `Calibrator.at` re-weights by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from skinclip.core.strict_yaml import ConfigError, YamlProblem, read_yaml
from skinclip.core.vocabulary import DIAGNOSIS_CODES

_LEFT_OUT = 1.0  # percent, of a diagnosis that a data set left out on purpose and every clinic has


def _some(shares: dict[str, float]) -> dict[str, float]:
    if sum(shares.values()) <= 0:
        raise ValueError("no diagnosis has a share above 0")
    return shares


class Prevalence(BaseModel):
    """Counts or shares of the diagnoses by code, with the source they are from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=80)
    source: str = ""
    shares: Annotated[
        dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]], Field(min_length=1), AfterValidator(_some)
    ]

    def vector(self) -> np.ndarray:
        """[C] shares in the order of `vocabulary.DIAGNOSIS_CODES`, their sum 1."""
        values = np.array([self.shares.get(code, 0.0) for code in DIAGNOSIS_CODES])
        vector: np.ndarray = values / values.sum()
        return vector


def _by_code(*shares: float) -> dict[str, float]:
    return dict(zip(("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc", "scc", "other"), shares, strict=True))


HAM10000 = Prevalence(
    name="ham10000",
    source="HAM10000's training photos by diagnosis (Tschandl et al. 2018): two clinics for pigmented lesions, in "
    "Vienna and Queensland. It has no squamous cell carcinoma and nothing outside its seven classes; each is given "
    "1 % here, since no clinic is without them.",
    shares=_by_code(3.3, 5.1, 11.0, 1.1, 11.1, 67.0, 1.4, _LEFT_OUT, _LEFT_OUT),
)
MILK10K = Prevalence(
    name="milk10k",
    source="MILK10k's training lesions by diagnosis (ISIC 2025), 96 % of them by histology: lesions that a specialist "
    "found worth a biopsy.",
    shares=_by_code(6.0, 49.9, 10.1, 0.9, 7.6, 13.0, 0.9, 9.5, 2.1),
)
GENERAL_PRACTICE = Prevalence(
    name="general-practice",
    source="An estimate from 6,364 lesions that Dutch general practitioners sent to a teledermatologist with a "
    "dermoscopy photo, 2015 to 2020, by the teledermatologist's diagnosis, not histology (E. Tensen, doctoral thesis, "
    "University of Amsterdam, chapter 5): 592 malignant (172 melanomas, 415 basal and squamous cell carcinomas), 561 "
    "premalignant (434 actinic keratoses), 5,211 benign (2,571 nevi, 1,221 seborrheic keratoses). Assumed, for the "
    "thesis does not say: four basal cell carcinomas to one squamous cell carcinoma; 200 dermatofibromas and 200 "
    "vascular lesions among the other benign ones; the rest is `other`.",
    shares=_by_code(434, 332, 1221, 200, 172, 2571, 200, 83, 1151),
)
NAMED: dict[str, Prevalence] = {p.name: p for p in (HAM10000, MILK10K, GENERAL_PRACTICE)}


def prevalence_of(words: str | Path | Prevalence) -> Prevalence:
    """The prevalence of that name, or in that YAML or JSON file.

    Raises ConfigError that names the file, the field and what was expected.
    """
    if isinstance(words, Prevalence):
        return words
    if str(words) in NAMED:
        return NAMED[str(words)]
    path = Path(words)
    if not path.is_file():
        raise ConfigError(
            f"{str(words)!r} is neither a prevalence ({', '.join(NAMED)}) nor a file; give one of these, or a YAML or "
            "JSON file with `name` and `shares`"
        )
    return _read(path)


def _read(path: Path) -> Prevalence:
    try:
        values: Any = read_yaml(path).values
    except (YamlProblem, OSError) as error:
        line = getattr(error, "line", None)
        where = f" line {line}" if line else ""
        raise ConfigError(f"{path}{where} cannot be read as a prevalence: {error}") from error
    if isinstance(values, Mapping):
        values = {"name": path.stem, **values}
        shares = values.get("shares")
        unknown = sorted(set(shares) - set(DIAGNOSIS_CODES), key=str) if isinstance(shares, Mapping) else []
        if unknown:
            raise ConfigError(f"{path}: shares: {unknown[0]!r} is no diagnosis; there are {', '.join(DIAGNOSIS_CODES)}")
    try:
        return Prevalence.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path} is not a prevalence: {problems}") from error


def observed(name: str, labels: np.ndarray) -> Prevalence:
    """The shares of the diagnoses among `labels` [n], -1 left out; 1 % for a diagnosis of which there is no photo."""
    counts = np.bincount(labels[labels >= 0], minlength=len(DIAGNOSIS_CODES)).astype(float)
    shares = np.where(counts > 0, counts, _LEFT_OUT / 100 * max(counts.sum(), 1))
    return Prevalence(name=name, shares=dict(zip(DIAGNOSIS_CODES, shares.tolist(), strict=True)))
