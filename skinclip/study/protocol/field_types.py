"""Checks of single protocol fields, as annotations for Pydantic: `n: Annotated[int, Whole(2, 2000)]`.

Pydantic collects all problems with their paths and builds the dataclasses; these classes word the messages, for a study
coordinator who does not program.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import PydanticCustomError, core_schema

from skinclip.core.safe_text import plain_text

SLUG = re.compile(r"[a-z][a-z0-9_]*(?:-[a-z0-9_]+)*")  # keys of studies, arms, questions; safe in files and columns
PROBLEMS = "problems"  # key in an error's context: a list of (path below the field, message)


def problem(*messages: tuple[str, str]) -> PydanticCustomError:
    """An error raised for a whole mapping that lists problems of its fields: (field name, message) pairs."""
    return PydanticCustomError("study", "see context", {PROBLEMS: list(messages)})


def quoted(value: Any) -> str:
    """A value as quoted in a message, shortened to 40 characters.

    >>> quoted(None)
    'nothing'
    """
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


class FieldCheck:
    """Base class of the checks: `expected` completes the message "must be ...", `check` returns the value to store."""

    expected: str

    def check(self, value: Any) -> Any:
        """The value to store. Raises the error that `reject` makes for a value that is not allowed."""
        raise NotImplementedError

    def reject(self, value: Any) -> PydanticCustomError:
        """The error for a value that is not what is expected."""
        return _error(f"must be {self.expected}, not {quoted(value)}")

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)


def _error(message: str) -> PydanticCustomError:
    return PydanticCustomError("study", "{message}", {"message": message})


@dataclass(frozen=True)
class Text(FieldCheck):
    """Text of 1 to `longest` characters; may be empty or missing where `optional`."""

    longest: int = 20_000
    optional: bool = False
    expected: str = "text"

    def check(self, value: Any) -> str:
        """The text without surrounding spaces."""
        if value in (None, "") and self.optional:
            return ""
        if isinstance(value, (int, float)):
            raise _error(f"must be text; put {quoted(value)} in quotes")
        if not isinstance(value, str) or not value.strip():
            raise self.reject(value)
        text = value.strip()
        hidden = next((c for c in text if c != "\r" and plain_text(c) != c), None)
        if hidden is not None:
            raise _error(f"has a character that cannot be shown (U+{ord(hidden):04X}); remove it")
        if len(text) > self.longest:
            raise _error(f"has {len(text)} characters; at most {self.longest} are allowed")
        return text


@dataclass(frozen=True)
class Slug(Text):
    """A name that is safe as a file name and, where no `hyphen` is allowed, as a column name."""

    longest: int = 60
    hyphen: bool = True

    def check(self, value: Any) -> str:
        """The name."""
        text = super().check(value)
        if not SLUG.fullmatch(text):
            words = "lower-case letters, digits, _ and -, beginning with a letter"
            raise _error(f"must be {words}, not {quoted(text)}")
        if "-" in text and not self.hyphen:
            raise _error(f"must not have -, since it names a column of the export, not {quoted(text)}")
        return text


@dataclass(frozen=True)
class Number(FieldCheck):
    """A number from `low` to `high`."""

    low: float
    high: float

    @property
    def expected(self) -> str:  # type: ignore[override]
        """The range in words."""
        return f"a number from {self.low:g} to {self.high:g}"

    def check(self, value: Any) -> float:
        """The number as a float."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not self.low <= value <= self.high:
            raise self.reject(value)
        return float(value)


@dataclass(frozen=True)
class Whole(FieldCheck):
    """A whole number from `low` to `high`."""

    low: int
    high: int

    @property
    def expected(self) -> str:  # type: ignore[override]
        """The range in words."""
        return f"a whole number from {self.low} to {self.high}"

    def check(self, value: Any) -> int:
        """The number."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise self.reject(value)
        return value


@dataclass(frozen=True)
class Flag(FieldCheck):
    """True or false."""

    expected: str = "true or false"

    def check(self, value: Any) -> bool:
        """The truth value."""
        if not isinstance(value, bool):
            raise self.reject(value)
        return value


@dataclass(frozen=True)
class OneOf(FieldCheck):
    """One of the `allowed` words."""

    allowed: tuple[str, ...]

    @property
    def expected(self) -> str:  # type: ignore[override]
        """The words."""
        return f"one of {', '.join(self.allowed)}"

    def check(self, value: Any) -> str:
        """The word."""
        if not isinstance(value, str) or value not in self.allowed:
            raise self.reject(value)
        return value


@dataclass(frozen=True)
class StudyArm(FieldCheck):
    """An arm of the protocol under validation (`arms` in the validation context); any text without that context."""

    expected: str = "an arm of this study"

    def check_arm(self, value: Any, info: ValidationInfo) -> str:
        """The arm's key."""
        arms = (info.context or {}).get("arms")
        return OneOf(tuple(arms)).check(value) if arms else Text().check(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_plain_validator_function(self.check_arm)


@dataclass(frozen=True)
class Listed(FieldCheck):
    """A list of `what`, of at least one entry unless it `may_be_empty`; each entry is checked by its own type."""

    what: str
    may_be_empty: bool = False

    @property
    def expected(self) -> str:  # type: ignore[override]
        """The kind of list in words."""
        return f"a list of {self.what}"

    def check(self, value: Any) -> Sequence[Any]:
        """The list, its entries unchanged."""
        if self.may_be_empty and value in (None, [], ()):
            return ()
        if not isinstance(value, (list, tuple)) or not value:
            raise self.reject(value)
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self.check, handler(source))
