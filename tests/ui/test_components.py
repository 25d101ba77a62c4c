from __future__ import annotations

import base64
import dataclasses
import re

import numpy as np

from skinclip import RESEARCH_USE_ONLY
from skinclip.core import assessment as record
from skinclip.core.vocabulary import DIAGNOSES
from skinclip.imaging.overlay import hex_colour
from skinclip.ui import components


def test_references_become_chips_in_the_colours_of_their_regions(made_up: record.Assessment) -> None:
    html = components.rationale(made_up)
    for i in range(2):
        assert html.count(f"--chip:{hex_colour(i)}") == 1 and f'data-ref="r{i + 1}"' in html
    assert "[r1]" not in html


def test_a_reference_to_no_finding_stays_text(made_up: record.Assessment) -> None:
    html = components.rationale(dataclasses.replace(made_up, rationale="See [r7]."))
    assert "[r7]" in html and "sk-chip" not in html


def test_all_are_drawn_and_the_malignant_marked(made_up: record.Assessment) -> None:
    html = components.differential(made_up)
    assert html.count('role="listitem"') == len(DIAGNOSES)
    assert html.count('aria-label="malignant"') == sum(d.malignant for d in DIAGNOSES)
    assert html.count("sk-in-set") == 2


def test_prediction_set_in_words(made_up: record.Assessment) -> None:
    def said(*codes: str) -> str:
        return components.prediction_set(dataclasses.replace(made_up, prediction_set=record.PredictionSet(0.9, codes)))

    assert said("mel", "nv").startswith("Cannot be ruled out: <b>melanoma or melanocytic nevus</b> (in 90 % of")
    assert said("mel").startswith("Only <b>melanoma</b> remains in the 90 % set")
    assert said(*(d.code for d in made_up.diagnosis)).startswith("<b>None of the nine")
    assert said().startswith("No diagnosis stands out")


def test_the_referral_says_what_it_rests_on(made_up: record.Assessment) -> None:
    text = components.referral(made_up)
    assert "> Refer<" in text and "40.0%" in text and "20.0%" in text
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
    assert issue.message in html and "Differential" in html
    assert not components.warnings(made_up)


def test_probabilities_are_never_rounded_to_certainty(made_up: record.Assessment) -> None:
    first, *others = made_up.diagnosis
    sure = (
        dataclasses.replace(first, probability=0.99995),
        *(dataclasses.replace(d, probability=1e-5) for d in others),
    )
    html = components.differential(dataclasses.replace(made_up, diagnosis=sure))
    assert "&gt;99.9%" in html and html.count("&lt;0.1%") == len(others)


def test_figures_have_one_size_and_a_text_for_those_who_do_not_see_them(made_up: record.Assessment) -> None:
    pixels = np.zeros((12, 16, 3), np.uint8)
    html = components.figures(made_up, pixels, pixels)
    assert len(re.findall(r'<img alt="[^"]+" src="data:image/jpeg;base64,', html)) == 2
    assert components.figures(made_up, pixels, None).count("<img") == 1
    assert "Irregular streaks" in components.figures(made_up, pixels, pixels, "r1")


def test_the_record_is_saved_from_the_page_itself(made_up: record.Assessment) -> None:
    html = components.downloads(made_up, np.zeros((120, 160, 3), np.uint8))
    files = dict(re.findall(r'download="([^"]+)" href="data:application/\w+;base64,([^"]+)"', html))
    assert set(files) == {"skinclip-00000000.pdf", "skinclip-00000000.json"}
    data = {name.split(".")[1]: base64.b64decode(coded) for name, coded in files.items()}
    assert record.Assessment.from_json(data["json"].decode()) == made_up
    assert data["pdf"].startswith(b"%PDF-")


def test_text_is_escaped(made_up: record.Assessment) -> None:
    attack = "<script>alert(1)</script>"
    assert attack not in components.error(attack)
    assert attack not in components.rationale(dataclasses.replace(made_up, rationale=attack))


def test_research_use_only_is_on_the_page_twice(made_up: record.Assessment) -> None:
    assert RESEARCH_USE_ONLY in components.BANNER and RESEARCH_USE_ONLY in components.footer(made_up.model)
