"""Languages of a protocol: English alone keeps its plan, and what a reader would see untranslated is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from skinclip.study.protocol.protocol import Protocol, ProtocolError
from tests.study import tiny

GERMAN = {"title": "Eine Studie zum Testen", "consent_text": "Einwilligung", "retention": "zehn Jahre"}
SPANISH = {"title": "Un estudio de prueba", "consent_text": "Consentimiento", "retention": "diez años"}


def protocol(**changes: Any) -> Protocol:
    offered = {"languages": ["en", "de", "es"], "translations": {"de": dict(GERMAN), "es": dict(SPANISH)}}
    return Protocol.from_dict(tiny.protocol(**(offered | changes)))


def problems(**changes: Any) -> list[str]:
    with pytest.raises(ProtocolError) as refused:
        protocol(**changes)
    return list(refused.value.problems)


def own_question(**changes: Any) -> dict[str, Any]:
    question = {
        "key": "clear",
        "text": "Is the explanation clear?",
        "scale": {"kind": "likert", "points": 3, "anchors": ["Not clear", "Crystal clear"]},
        "arms": "aid",
        "translations": {
            "de": {"text": "Ist die Erklärung klar?", "anchors": ["Unklar", "Glasklar"]},
            "es": {"text": "¿Es clara la explicación?", "anchors": ["Nada clara", "Clarísima"]},
        },
    }
    return {"after": [*tiny.default_questions("after"), question | changes]}


def test_english_alone_is_the_default_and_changes_no_plan() -> None:
    plain, said = Protocol.from_dict(tiny.protocol()), Protocol.from_dict(tiny.protocol(languages=["en"]))
    assert plain.languages == ("en",) and plain.plan_sha256 == said.plan_sha256
    assert not {"languages", "translations"} & plain.to_dict().keys()
    assert all("translations" not in q for asked in plain.to_dict()["questions"].values() for q in asked)
    assert plain.in_language("en") is plain


def test_other_languages_are_part_of_the_plan_and_come_back_from_a_file() -> None:
    offered = protocol()
    assert offered.plan_sha256 != Protocol.from_dict(tiny.protocol()).plan_sha256
    again = Protocol.from_dict(offered.to_dict())
    assert again == offered and again.plan_sha256 == offered.plan_sha256
    later = {"de": GERMAN | {"retention": "fünf Jahre"}, "es": SPANISH}
    assert protocol(translations=later).plan_sha256 == offered.plan_sha256  # as the English one: no new plan
    assert protocol(translations={"de": GERMAN | {"title": "x"}, "es": SPANISH}).plan_sha256 != offered.plan_sha256


def test_default_questions_are_translated_by_the_catalogue_and_own_ones_by_their_protocol() -> None:
    german = protocol(questions=own_question()).in_language("de")
    trust = next(q for q in german.questions["after"] if q.key == "trust")
    assert trust.text == "Wie sehr vertrauen Sie dieser Antwort der Hilfe?"
    assert trust.scale.anchors == ("Überhaupt nicht", "Völlig") and trust.scale.points == 7
    role = next(q for q in german.questions["background"] if q.key == "role")
    assert [o.value for o in role.scale.options][:2] == ["dermatologist", "trainee"]
    assert role.scale.options[-1].label == "Sonstiges"
    clear = german.questions["after"][-1]
    assert (clear.text, clear.scale.anchors) == ("Ist die Erklärung klar?", ("Unklar", "Glasklar"))
    assert clear.arms == ("grad_cam", "grad_cam_text", "regions")
    assert (german.title, german.ethics.consent_text) == ("Eine Studie zum Testen", "Einwilligung")
    assert german.ethics.contact == "for tests only: contact"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"languages": ["en", "fr"]}, "languages[1]: must be one of en, de, es, not 'fr'"),
        ({"languages": []}, "languages: must be a list of languages"),
        ({"languages": ["en", "de", "es", "de"]}, "languages: names a language twice"),
        ({"languages": ["en", "de"]}, "translations.es: is none of the study's `languages`"),
        ({"translations": {"de": GERMAN}}, "translations.es.title: is missing; readers in es would see the English"),
        ({"translations": {"de": GERMAN, "es": SPANISH, "en": GERMAN}}, "translations.en: the fields themselves are"),
        (
            {"translations": {"de": GERMAN | {"consent_text": ""}, "es": SPANISH}},
            "translations.de.consent_text: is missing",
        ),
        ({"texts": {"debrief": "Thanks."}}, "translations.de.debrief: is missing"),
        (
            {"translations": {"de": GERMAN | {"practice_feedback": "Richtig."}, "es": SPANISH}},
            "translations.de.practice_feedback: must say {truth} once",
        ),
        (
            {"translations": {"de": GERMAN | {"title": "Die Grad-CAM-Studie"}, "es": SPANISH}},
            "translations.de.title: says 'grad-cam', which would unblind readers",
        ),
        (
            {"translations": {"de": GERMAN | {"titel": "x"}, "es": SPANISH}},
            "translations.de.titel: is not a field here",
        ),
    ],
)
def test_what_is_missing_or_seen_by_nobody_is_refused_in_words(changes: dict[str, Any], problem: str) -> None:
    assert [said for said in problems(**changes) if said.startswith(problem)], problems(**changes)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ({}, ".translations.de: the text is missing (clear)"),
        ({"text": "Klar?"}, ".translations.de: 2 anchors are needed, not 0 (clear)"),
        ({"text": "Klar?", "anchors": ["a", "b", "c"]}, ".translations.de: 2 anchors are needed, not 3 (clear)"),
        ({"text": "Klar?", "anchors": ["a", "b"], "options": {"x": "y"}}, "there are no options x (clear)"),
        ({"text": "Klar wie SkinCLIP?", "anchors": ["a", "b"]}, "says 'skinclip', which would unblind readers"),
    ],
)
def test_a_question_that_is_not_wholly_translated_is_refused(words: dict[str, Any], problem: str) -> None:
    spanish = own_question()["after"][-1]["translations"]["es"]
    said = problems(questions=own_question(translations={"de": words, "es": spanish}))
    assert len(said) >= 1 and all(line.startswith("questions.after[8]") for line in said)
    assert any(problem in line for line in said), said


def test_an_option_without_a_label_is_named() -> None:
    asked = tiny.default_questions("background")
    options = [{"value": "l", "label": "Left-handed"}, {"value": "r", "label": "Right-handed"}]
    words = {"text": "Welche Hand?", "options": {"l": "Links"}}
    asked.append(
        {
            "key": "hand",
            "text": "Which hand?",
            "scale": {"kind": "choice", "options": options},
            "translations": {"de": words, "es": words | {"options": {"l": "Izquierda", "r": "Derecha"}}},
        }
    )
    assert problems(questions={"background": asked}) == [
        "questions.background[3].translations.de: the options r are missing (hand)"
    ]


def test_a_question_may_not_take_the_name_of_the_column() -> None:
    asked = [*tiny.default_questions("background"), own_question()["after"][-1] | {"key": "language", "arms": "all"}]
    assert "questions.background: language is the name of a column" in problems(questions={"background": asked})[0]
    english = tiny.protocol(questions={"background": [asked[-1] | {"translations": {}}, *asked[:-1]]})
    assert Protocol.from_dict(english)  # as studies of before may have it


def test_missing_words_are_named_with_their_line(tmp_path: Path) -> None:
    path = tiny.write_protocol(tmp_path / "study.yaml", languages=["de"], translations={"de": {"title": "Titel"}})
    with pytest.raises(ProtocolError, match=r"line \d+: translations\.de\.consent_text: is missing"):
        Protocol.read(path)
