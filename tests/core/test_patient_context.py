from __future__ import annotations

import pytest

from skinclip.core.assessment import Context
from skinclip.core.patient_context import patient_context


def test_entries_in_their_usual_forms() -> None:
    assert patient_context("55", " Male", "lower limbs") == Context(55.0, "male", "lower extremity")
    assert patient_context() == patient_context("", "unknown", " ") == Context()
    assert patient_context(0) == Context(0.0) and patient_context("1e1").age == 10


@pytest.mark.parametrize("age", ["-1", "121", "nan", "inf", "5_0", "\u0665", "old", True, float("nan"), 1e9])
def test_no_age(age) -> None:
    with pytest.raises(ValueError, match="give years from 0 to 120"):
        patient_context(age)


@pytest.mark.parametrize("entries", [{"sex": "x"}, {"site": "moon"}])
def test_unknown_words(entries: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="give "):
        patient_context(**entries)
