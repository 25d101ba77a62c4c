from __future__ import annotations

import dataclasses

from skinclip import RESEARCH_USE_ONLY
from skinclip.core import assessment as record
from skinclip.reporting.letter import referral_letter
from tests.reporting.test_assessment_pdf import made_up


def test_a_letter_says_whose_finding_is_whose() -> None:
    plain = made_up()
    revision = record.Revision(
        ((0.0, 0.0), (9.0, 0.0), (9.0, 9.0)), (), {"streaks": "regular"}, plain.diagnosis, plain.prediction_set,
        record.Malignancy(0.11, 0.2, False),
    )  # fmt: skip
    added = record.ClinicianRecord("C-17", "2026-11-27", "nv", False, "", revision)
    text = referral_letter(dataclasses.replace(plain, clinician=added))
    assert "Case: C-17    Date: 2026-11-27" in text
    assert "My own diagnosis, before I saw the program's answer: melanocytic nevus." in text
    assert "I redrew the outline and see regular streaks; with that, its probability of malignancy is 11\xa0%." in text
    assert RESEARCH_USE_ONLY in text and "**" not in text
    assert record.Assessment.from_json(dataclasses.replace(plain, clinician=added).to_json()).clinician == added


def test_a_letter_leaves_blanks_for_what_nobody_gave() -> None:
    text = referral_letter(made_up())
    assert "Case: ________" in text and "My own diagnosis" not in text


def test_a_letter_about_an_abstention_gives_no_figure() -> None:
    text = referral_letter(dataclasses.replace(made_up(), abstained=True, rationale=""))
    assert "gave no answer" in text and "probability of malignancy" not in text


def test_a_letter_about_two_photos_names_both_and_one_about_a_close_up_has_abcd() -> None:
    plain = made_up()
    other = record.PhotoInfo(120, 160, "ef56" * 16, record.Quality(True), "clinical", None, "clinical")
    text = referral_letter(dataclasses.replace(plain, photos=(plain.photo, other)))
    assert "photos cd34cd34cd34 and ef56ef56ef56 (clinical close-up as given)" in text and "twice" in text
    square = plain.findings[0].region
    border = (record.Finding("r1", "border", "irregular", 0.8, square),)
    clinical = dataclasses.replace(plain.photo, kind="clinical", kind_recognised="clinical")
    text = referral_letter(dataclasses.replace(plain, photo=clinical, findings=border, criteria={}))
    assert "ABCD on the clinical photo: asymmetry not clear either way; border irregular, measured, 0.80" in text
    assert "7-point" not in text and "ermoscop" not in text
