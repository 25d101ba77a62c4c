"""Patient context from what a person or a program gave, checked once for command line, HTTP API and Python."""

from __future__ import annotations

import re

from skinclip.core.assessment import Context
from skinclip.core.vocabulary import SEXES, SITES, canonical_site

MAX_AGE = 120  # years
CONTEXT_NUMBERS = 3 + len(SEXES) + len(SITES)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def patient_context(age: float | str | None = None, sex: str | None = None, site: str | None = None) -> Context:
    """The context of these entries; None, an empty text and "unknown" are "not given".

    Raises ValueError saying which entry cannot be used, and what can.
    """
    return Context(_age(age), _sex(sex), _site(site))


def context_numbers(context: Context) -> list[float]:
    """[CONTEXT_NUMBERS] whether an age is given, age in units of 50 years around 50 and its square, sex and body site.

    All are 0 where nothing is given, so that a linear layer without a bias then says nothing.
    """
    age = None if context.age is None else context.age / 50 - 1
    years = [0.0, 0.0, 0.0] if age is None else [1.0, age, age**2]
    return [*years, *(float(context.sex == sex) for sex in SEXES), *(float(context.site == site) for site in SITES)]


def _age(age: float | str | None) -> float | None:
    if age is None or (isinstance(age, str) and _not_given(age)):
        return None
    years = float(age) if not isinstance(age, str) or _NUMBER.fullmatch(age.strip()) else -1.0
    if isinstance(age, bool) or not 0 <= years <= MAX_AGE:
        raise ValueError(f"{age!r} is not an age; give years from 0 to {MAX_AGE}")
    return years


def _sex(sex: str | None) -> str | None:
    if sex is None or _not_given(sex):
        return None
    if sex.strip().lower() not in SEXES:
        raise ValueError(f"{sex!r} is not known; give {' or '.join(SEXES)}, or leave it out")
    return sex.strip().lower()


def _site(text: str | None) -> str | None:
    if text is None or _not_given(text):
        return None
    site = canonical_site(text)
    if site is None:
        raise ValueError(f"{text!r} is not a known body site; give one of {', '.join(SITES)}")
    return site


def _not_given(text: str) -> bool:
    return text.strip().lower() in ("", "unknown")
