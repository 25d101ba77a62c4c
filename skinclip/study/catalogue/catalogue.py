"""The catalogue of all that a study's readers read: one file a language, each with the keys of `en.yaml`.

A language is one file: letters, pages and protocols may name it as soon as it is there, and a test says what it lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from skinclip.core.strict_yaml import read_yaml

ENGLISH = "en"  # the language of protocols and of everything that readers do not see
_FOLDER = Path(__file__).parent


@cache
def languages() -> tuple[str, ...]:
    """The languages there are, English first."""
    codes = sorted(path.stem for path in _FOLDER.glob("*.yaml"))
    return (ENGLISH, *(code for code in codes if code != ENGLISH))


@cache
def section(language: str, name: str) -> dict[str, Any]:
    """A section of a language's file, such as `page`; empty where it has none."""
    values: dict[str, Any] = _file(language).get(name) or {}
    return values


def language_name(language: str) -> str:
    """A language's name in itself."""
    return str(_file(language)["name"])


@cache
def _file(language: str) -> dict[str, Any]:
    if language not in languages():
        raise KeyError(f"the catalogue has no language {language!r}")
    values: dict[str, Any] = read_yaml(_FOLDER / f"{language}.yaml").values
    return values


@dataclass(frozen=True)
class Words:
    """One section of the catalogue in one language, with values filled in: `Words("de", "page")("position", ...)`."""

    language: str
    section: str

    def __call__(self, key: str, **values: object) -> str:
        """The text of a key. Values that are `Phrase` are put into this language."""
        text = str(section(self.language, self.section)[key])
        return text.format_map({name: within(value, self.language) for name, value in values.items()})


class Phrase(str):
    """A text of the catalogue that knows its key: English as it stands, and any language on request.

    Errors and headings are made where no language is known, and worded where the reader's is.
    """

    _render: Callable[[str], str]

    @classmethod
    def of(cls, section_name: str, key: str, **values: object) -> Self:
        """The text of a key of a section, filled in."""
        return cls._made(lambda language: Words(language, section_name)(key, **values))

    @classmethod
    def detailed(cls, detail: str, section_name: str, key: str) -> Self:
        """A detail that is worded in English alone; in other languages the general text of a key."""
        return cls._made(lambda language: detail if language == ENGLISH else Words(language, section_name)(key))

    @classmethod
    def joined(cls, separator: str, parts: Iterable[object]) -> Self:
        """Several texts as one; those that are phrases stay so."""
        listed: Sequence[object] = tuple(parts)
        return cls._made(lambda language: separator.join(str(within(part, language)) for part in listed))

    @classmethod
    def _made(cls, render: Callable[[str], str]) -> Self:
        phrase = cls(render(ENGLISH))
        phrase._render = render
        return phrase

    def within(self, language: str) -> str:
        """The text in a language."""
        return self._render(language)


def within(value: object, language: str) -> object:
    """A phrase in a language; anything else as it is."""
    return value.within(language) if isinstance(value, Phrase) else value


def error_text(key: str, **values: object) -> Phrase:
    """The words of an error, from the section `errors`."""
    return Phrase.of("errors", key, **values)


def problem_in(problem: Exception, language: str, otherwise: str = "") -> str:
    """An error's words in a language; where they are not in the catalogue, English alone has them in full.

    Args:
        otherwise: then said in the other languages. By default readers are told what became of their answer, and whom
            to tell.
    """
    words = problem.args[0] if problem.args else ""
    if isinstance(words, Phrase):
        return words.within(language)
    return str(problem) if language == ENGLISH else otherwise or str(section(language, "errors")["other"])


def diagnosis_name(name: str, code: str, language: str, in_text: bool = False) -> str:
    """A diagnosis in a language: `name` as it is in English, the catalogue's by `code` in others."""
    if language == ENGLISH:
        return name
    known = section(language, "diagnoses") | (section(language, "diagnoses_in_text") if in_text else {})
    return str(known.get(code, name))
