from __future__ import annotations

import dataclasses

from skinclip import RESEARCH_USE_ONLY
from skinclip.core import assessment as record
from skinclip.core.vocabulary import DIAGNOSES
from skinclip.pipeline.settings import Settings, at_threshold
from skinclip.reporting import limits
from skinclip.ui import components


def test_references_become_chips_in_the_colours_of_their_regions(made_up: record.Assessment) -> None:
    html = components.rationale(made_up)
    for i in range(2):
        assert html.count(f'class="sk-chip sk-e{i + 1}" data-ref="r{i + 1}"') == 1
    assert "[r1]" not in html


def test_a_reference_to_no_finding_stays_text(made_up: record.Assessment) -> None:
    html = components.rationale(dataclasses.replace(made_up, rationale="See [r7]."))
    assert "[r7]" in html and "sk-chip" not in html


def test_all_are_drawn_and_the_malignant_marked(made_up: record.Assessment) -> None:
    html = components.differential(made_up)
    assert html.count('role="listitem"') == len(DIAGNOSES)
    assert html.count('aria-label="malignant"') == sum(d.malignant for d in DIAGNOSES)
    assert html.count("sk-in-set") == 2
    assert f"{len(DIAGNOSES) - 3} others, together 67\xa0%" in html  # the three leading are in view, the rest is folded


def test_prediction_set_in_words(made_up: record.Assessment) -> None:
    def said(*codes: str) -> str:
        return components.prediction_set(dataclasses.replace(made_up, prediction_set=record.PredictionSet(0.9, codes)))

    assert said("mel", "nv").startswith("Cannot be ruled out: <b>melanoma or melanocytic nevus</b> (in 90\xa0% of")
    assert said("mel").startswith("Only <b>melanoma</b> remains in the 90\xa0% set")
    assert said(*(d.code for d in made_up.diagnosis)).startswith("<b>None of the nine")
    assert said().startswith("No diagnosis stands out")


def test_the_referral_says_what_it_rests_on(made_up: record.Assessment) -> None:
    text = components.referral(made_up)
    assert ">Refer<" in text and "40\xa0% malignant, threshold 20\xa0%" in text
    kept = dataclasses.replace(made_up, malignancy=record.Malignancy(0.02, 0.2, False))
    assert "Below the referral threshold" in components.referral(kept)  # melanoma is still in the set


def test_an_abstained_photo_claims_nothing(made_up: record.Assessment) -> None:
    quiet = dataclasses.replace(made_up, abstained=True, rationale="", shift=record.Shift(1.0, False))
    html = components.result(quiet)
    assert "abstains" in html and "does not look like" in html
    assert "%" not in html and "Differential" not in html and "Refer" not in html


def test_warnings_are_told_beside_a_result(made_up: record.Assessment) -> None:
    issue = record.QualityIssue("cut_off", "The lesion is cut off at the border.", blocking=False)
    photo = dataclasses.replace(made_up.photo, quality=record.Quality(True, (issue,)))
    html = components.result(dataclasses.replace(made_up, photo=photo))
    assert issue.message in html and "threshold" in html
    assert not components.warnings(made_up)


def test_probabilities_are_never_rounded_to_certainty(made_up: record.Assessment) -> None:
    first, *others = made_up.diagnosis
    sure = (
        dataclasses.replace(first, probability=0.99995),
        *(dataclasses.replace(d, probability=1e-5) for d in others),
    )
    html = components.differential(dataclasses.replace(made_up, diagnosis=sure))
    assert "&gt;99.9\xa0%" in html and html.count("&lt;0.1\xa0%") == len(others) + 1  # and their sum


def test_the_seven_points_are_added_up(made_up: record.Assessment) -> None:
    html = components.findings(made_up)  # irregular streaks count 1; the border is none of the seven
    assert "7-point checklist: 1" in html and "fewer than three points" in html
    assert html.count("data-strike=") == 2 and "likely, 0.80" in html and "measured, 0.70" in html
    assert '<option value="streaks:regular">' in html and '<option value="streaks:irregular">' not in html


def test_settings_change_the_verdict_and_say_so(made_up: record.Assessment) -> None:
    own = dataclasses.replace(made_up, malignancy=record.Malignancy(0.4, 0.2, True, 0.9, 0.75, 0.2))
    html = components.referral(own)
    assert "90 are referred and 10 missed" in html and "25 are referred too" in html
    assert "20\xa0% malignant, that of HAM10000" in html and "reset-settings" not in html
    settings = Settings(threshold=0.5, prevalence=0.1)
    there = dataclasses.replace(own, malignancy=dataclasses.replace(own.malignancy, prevalence=0.1))
    other = components.referral(at_threshold(there, settings.threshold), settings)
    assert "Below the referral threshold" in other and "10\xa0% malignant, your choice" in other
    assert "reset-settings" in other and 'value="50" data-setting="threshold"' in other


def test_what_it_cannot_tell_is_one_click_from_the_verdict(made_up: record.Assessment) -> None:
    html = components.result(made_up)
    assert 'data-opens="limits-dialog"' in html and 'id="limits-dialog"' in html
    assert "Merkel cell carcinoma" in html and "melanocytic nevus" in html
    assert "have not been measured" in html  # of weights that nobody measured
    known = limits.measured()
    assert known is not None
    shipped = dataclasses.replace(made_up, model=record.ModelInfo("mini", "0", known.weights_sha256))
    html = components.limits_dialog(shipped)
    for kind in ("kind of photo", "skin tone, dermoscopy", "body site", "sex", "age"):
        assert f"Errors by {kind}" in html


def test_text_is_escaped(made_up: record.Assessment) -> None:
    attack = "<script>alert(1)</script>"
    assert attack not in components.error(attack)
    assert attack not in components.rationale(dataclasses.replace(made_up, rationale=attack))


def test_research_use_only_is_on_the_page_twice(made_up: record.Assessment) -> None:
    assert RESEARCH_USE_ONLY in components.BANNER and RESEARCH_USE_ONLY in components.footer(made_up.model)
