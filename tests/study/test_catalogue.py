"""The catalogue: complete in every language, used as it is written, and no page of a study says anything beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, nodes

from skinclip import RESEARCH_USE_ONLY
from skinclip.core.paths import ASSETS
from skinclip.core.vocabulary import DIAGNOSES
from skinclip.study.catalogue import catalogue
from skinclip.study.catalogue.catalogue import ENGLISH, Phrase, languages, section
from skinclip.study.protocol.model import BLINDED_WORDS
from skinclip.study.protocol.protocol import default_questions
from skinclip.ui.templating import TEMPLATES

OTHERS = [language for language in languages() if language != ENGLISH]
SECTIONS = ("page", "script", "coordinator", "steps", "errors", "texts", "diagnoses", "diagnoses_in_text", "letters")
COORDINATOR = TEMPLATES / "coordinator.html"
TEMPLATE, SCRIPT = TEMPLATES / "study.html", ASSETS / "study.js"
EMPTY_IN_ENGLISH = {"steps.aid_language"}  # English readers need not be told that the aid writes English


def leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict):
        for key, value in values.items():
            yield from leaves(value, f"{path}.{key}".removeprefix("."))
    else:
        yield path, values


def texts(language: str) -> dict[str, Any]:
    return {path: text for name in SECTIONS for path, text in leaves(section(language, name), name)}


def named(text: Any) -> list[str]:
    """What is filled in, and the parts that a template leaves out."""
    return sorted(re.findall(r"\{\w+\}|\{%.*?%\}|\[\w+\]", str(text)))


# --- complete ------------------------------------------------------------------------------------------------------


def test_there_are_english_german_and_spanish() -> None:
    assert languages() == ("en", "de", "es")


@pytest.mark.parametrize("language", OTHERS)
def test_no_key_lacks_a_language(language: str) -> None:
    english, other = texts(ENGLISH), texts(language)
    assert english.keys() - other.keys() == set(), f"missing in {language}.yaml"
    assert other.keys() - english.keys() == set(), f"in {language}.yaml alone"
    empty = [path for path, text in other.items() if not text]
    assert not empty
    assert {path for path, text in english.items() if not text} == EMPTY_IN_ENGLISH
    differ = [path for path in english if named(english[path]) != named(other[path])]
    assert not differ, "filled in with other values"
    assert len(section(language, "steps")["months"]) == 12


@pytest.mark.parametrize("language", OTHERS)
def test_every_sentence_was_translated(language: str) -> None:
    english, other = texts(ENGLISH), texts(language)
    same = [path for path, text in english.items() if len(str(text).split()) > 3 and other[path] == text]
    assert [path for path in same if re.sub(r"\{\w+\}", "", str(english[path])).strip(" ,:hmins")] == []


@pytest.mark.parametrize("language", OTHERS)
def test_the_words_of_all_default_questions_are_translated_and_no_others(language: str) -> None:
    words = set()
    for asked in default_questions()["questions"].values():
        for question in asked:
            scale = question["scale"]
            words |= {question["text"], *scale.get("anchors", ()), *(o["label"] for o in scale.get("options", ()))}
    assert set(section(language, "phrases")) == words
    assert all(section(language, "phrases").values())


def test_the_english_names_of_diagnoses_and_the_notice_are_those_of_the_program() -> None:
    assert section(ENGLISH, "diagnoses") == {d.code: d.name for d in sorted(DIAGNOSES, key=lambda d: order(d.code))}
    assert section(ENGLISH, "page")["banner"] == RESEARCH_USE_ONLY


def order(code: str) -> int:
    return list(section(ENGLISH, "diagnoses")).index(code)


@pytest.mark.parametrize("language", languages())
def test_nothing_in_it_unblinds(language: str) -> None:
    said = [*texts(language).values(), *section(language, "phrases").values()]
    assert [text for text in said for word in BLINDED_WORDS if word in str(text).lower()] == []


def test_a_phrase_knows_every_language_and_is_english_as_it_stands() -> None:
    phrase = Phrase.joined(": ", ("trust", Phrase.of("errors", "likert", points=7, given="9")))
    assert phrase == "trust: choose a whole number from 1 to 7, not 9"
    assert phrase.within("de") == "trust: wählen Sie eine ganze Zahl von 1 bis 7, nicht 9"
    with pytest.raises(KeyError, match="no language 'fr'"):
        catalogue.section("fr", "page")


# --- used ----------------------------------------------------------------------------------------------------------


def test_every_key_of_the_page_and_its_script_is_used_and_there() -> None:
    template, script = TEMPLATE.read_text(), SCRIPT.read_text()
    python = "\n".join(path.read_text() for path in Path("skinclip").rglob("*.py"))
    used = set(re.findall(r'\btext\((?:open === 1 \? )?"(\w+)"', script)) | {"some_open"}
    around = {name.removeprefix("page_") for name in used | {"page_tab_reader", "page_tab_coordinator"}}
    assert {name for name in used if not name.startswith("page_")} == set(section(ENGLISH, "script"))
    page = set(re.findall(r'\bt\("(\w+)"', template))
    assert page <= set(section(ENGLISH, "page"))
    unused = set(section(ENGLISH, "page")) - page - around
    assert [key for key in unused if f'"{key}"' not in python and not key.startswith("confirm_")] == []


def test_every_key_of_the_coordinator_s_tab_is_used_and_there() -> None:
    sources = [COORDINATOR, Path("skinclip/ui/coordinator_html.py"), Path("skinclip/ui/tabs/coordinator_tab.py")]
    text = "\n".join(path.read_text() for path in sources)
    there = set(section(ENGLISH, "coordinator"))
    used = set(re.findall(r"""\bt\(["'](\w+)["']""", text)) | set(re.findall(r"""words_of\(study\)\("(\w+)""", text))
    assert used <= there
    built = ("state_", "column_")
    assert [key for key in there - used if f'"{key}"' not in text and not key.startswith(built)] == []


def test_the_template_has_no_bare_text() -> None:
    """Whatever a reader could read stands in the catalogue: between tags, and in attributes that are read out."""
    assert bare(TEMPLATE.read_text()) == bare(COORDINATOR.read_text()) == []
    for planted in ("<p>Hello</p>", '<img alt="A photo">', '<b aria-label="Close {{ x }}"></b>', "<p>{{ x }} of</p>"):
        assert bare(planted), planted
    assert bare('{% macro a(t) %}<p title="{{ t("x") }}">{{ t("y") if t else "" }}: 1</p>{% endmacro %}') == []
    assert bare('<p>{{ "Hello you" if x else "" }}</p>'), "words in an expression"


def bare(source: str) -> list[str]:
    """Words of a template that come from itself."""
    found = [
        node.value
        for node in Environment().parse(source).find_all(nodes.Const)
        if isinstance(node.value, str) and re.search(r"[A-Za-z]{2,} [A-Za-z]{2,}", node.value)
    ]
    text = re.sub(r"\{#.*?#\}|\{%.*?%\}", "", source, flags=re.S)
    text = re.sub(r"\{\{.*?\}\}", "", text, flags=re.S)
    read = re.findall(r'(?:aria-label|aria-valuetext|alt|title|placeholder|content|data-name)="([^"]*)"', text)
    for words in [*read, *re.sub(r"<[^>]*>", "\n", text).split("\n")]:
        if re.search(r"[^\W\d_]", words) and not re.fullmatch(r"[X-]+", words.strip()):
            found.append(words.strip())
    return found


def test_the_script_has_no_bare_text() -> None:
    assert sentences(SCRIPT.read_text()) == []
    assert sentences('tell("Not saved yet");') and sentences("tell(`Step ${one} of two`);")
    assert sentences('button.textContent = "Close";') and sentences("form.innerHTML = '<p>Type it</p>';")


def sentences(script: str) -> list[str]:
    """String literals that a reader could read: beginning with a capital and in small letters, or of several words."""
    code = re.sub(r"(?m)(?:^|(?<=\s))//.*$", "", script)
    literals = [a or b or c for a, b, c in re.findall(r'"([^"\n]*)"|\'([^\'\n]*)\'|`([^`]*)`', code)]
    found = []
    for literal in literals:
        words = re.sub(r"<[^>]*>", " ", re.sub(r"\$\{.*?\}", "", literal)).strip()
        selector = re.search(r"[\[\].#>*=]|^fieldset|^(?:input|textarea|button)\b|^sk-", words)
        several = re.search(r"[A-Za-z]{2,} [a-z]{2,}", words) and not selector
        if several or (re.match(r"[A-Z][a-z]+\b", words) and words not in KEYS_AND_HEADERS):
            found.append(words)
    return found


KEYS_AND_HEADERS = {"Content-Type", "Enter"}
