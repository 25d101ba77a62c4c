"""The registry of question types: how a question is answered, checked, shown, stored and analysed, one entry each.

A type's entry is all there is to add: protocol files accept it, the page draws its `widget`, answers pass its `check`,
tables and data dictionary hold its `column`, and reports compare it between arms where it is a rating or a share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import field
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from skinclip.core.safe_text import plain_text
from skinclip.study.catalogue.catalogue import Phrase, error_text
from skinclip.study.errors import AnswerError
from skinclip.study.protocol.field_types import Listed, OneOf, Text, Whole, problem, quoted

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=STRICT)
class Option:
    """An answer to choose: `value` is stored, `label` is read."""

    value: Annotated[str, Text(60)]
    label: Annotated[str, Text(200)]


@dataclass(frozen=True, config=STRICT)
class Scale:
    """The scale of a question's answers; fields that its type does not have stay empty.

    Attributes:
        kind: A key of `QUESTION_TYPES`.
        options: Answers to choose from.
        points: Answers are 1 to this number.
        anchors: Words for the two ends, or for every point.
        max_length: The longest answer, in characters.
    """

    kind: str
    options: Annotated[tuple[Option, ...], Listed("options, each with a value and a label")] = field(default=())
    points: Annotated[int, Whole(2, 11)] = 0
    anchors: Annotated[tuple[Annotated[str, Text(200)], ...], Listed("words, those of the lowest point first")] = field(
        default=()
    )
    max_length: Annotated[int, Whole(1, 5000)] = 0

    @model_validator(mode="before")
    @classmethod
    def _fields_fit_the_kind(cls, values: Any) -> Any:
        if isinstance(values, ArgsKwargs):  # made by code, not read from a file
            return values
        if not isinstance(values, dict):
            return values
        kind = values.get("kind")
        if not isinstance(kind, str) or kind not in QUESTION_TYPES:
            raise problem(("kind", f"must be {OneOf(tuple(QUESTION_TYPES)).expected}, not {quoted(kind)}"))
        entry = QUESTION_TYPES[kind]
        foreign = [name for name in values if name in SCALE_FIELDS and name not in entry.fields]
        if foreign:
            raise problem(*((name, f"is not a field of a scale of kind {kind}") for name in foreign))
        missing = [name for name in entry.fields if name not in values and name not in entry.defaults]
        if missing:
            raise problem(*((name, f"must be {SCALE_FIELDS[name]}, not nothing") for name in missing))
        return {**entry.defaults, **values}

    @model_validator(mode="after")
    def _anchors_fit_the_points(self) -> Scale:
        ends = self.points or 2
        if self.anchors and len(self.anchors) not in (2, ends):
            wanted = "two texts (the lowest and the highest point)" + (f" or {ends}, one a point" if ends > 2 else "")
            raise problem(("anchors", f"must be {wanted}, not {quoted(list(self.anchors))}"))
        if len({option.value for option in self.options}) < len(self.options):
            raise problem(("options", "has the same value twice; each option needs its own"))
        return self

    @property
    def type(self) -> QuestionType:
        """The registry's entry for this kind."""
        return QUESTION_TYPES[self.kind]

    def to_dict(self) -> dict[str, Any]:
        """The fields that a scale of this kind has, as a protocol file lists them."""
        values: dict[str, Any] = {
            "options": [{"value": o.value, "label": o.label} for o in self.options],
            "points": self.points,
            "anchors": list(self.anchors),
            "max_length": self.max_length,
        }
        return {"kind": self.kind} | {name: values[name] for name in self.type.fields}


SCALE_FIELDS: dict[str, str] = {  # the fields of a scale beside its kind -> what each must be, in words
    "options": "a list of options, each with a value and a label",
    "points": "a whole number from 2 to 11",
    "anchors": "a list of words, those of the lowest point first",
    "max_length": "a whole number from 1 to 5000",
}


class AnswerColumn(NamedTuple):
    """The column of an answer: `dtype` text, number, integer or bool; `values` in words; `allowed` codes or bounds."""

    dtype: str
    values: str
    allowed: tuple[str, ...] | tuple[float, float] | None = None


class QuestionType(NamedTuple):
    """One way to ask and to answer.

    Attributes:
        fields: Of the scale, beside its kind; `defaults` are those that may be left out.
        widget: The page's form field: choice, likert, percent, yes_no or text.
        check: The answer as it is stored; raises AnswerError without naming the question.
        in_words: A stored answer as the reader gave it; a `Phrase` where the catalogue words it.
        column: How tables and data dictionary hold it.
        analysed: `rating` where arms are compared by means, `share` where by the share of yes, empty where not at all.
        unit: Of the rating, for reports.
        bounds: Lowest and highest answer where it can be averaged, else None.
        example: Some answer, for rehearsals by a program; `position` from 0 to 1 says where on the scale.
    """

    fields: tuple[str, ...]
    widget: str
    check: Callable[[Scale, Any], Any]
    in_words: Callable[[Scale, Any], str]
    column: Callable[[Scale], AnswerColumn]
    example: Callable[[Scale, float], Any]
    analysed: Literal["rating", "share", ""] = ""
    unit: Callable[[Scale], str] = lambda scale: ""
    bounds: Callable[[Scale], tuple[float, float]] | None = None
    defaults: dict[str, Any] = {}  # noqa: RUF012  (never written to)


def _check_choice(scale: Scale, value: Any) -> str:
    values = [option.value for option in scale.options]
    if value not in values:
        raise AnswerError(error_text("choice", values=", ".join(values), given=quoted(value)))
    return str(value)


def _check_likert(scale: Scale, value: Any) -> int:
    if not _is_number(value) or value != int(value) or not 1 <= value <= scale.points:
        raise AnswerError(error_text("likert", points=scale.points, given=quoted(value)))
    return int(value)


def _check_percent(scale: Scale, value: Any) -> float:
    if not _is_number(value) or not 0 <= value <= 100:
        raise AnswerError(error_text("percent", given=quoted(value)))
    return float(value)


def _check_yes_no(scale: Scale, value: Any) -> bool:
    if not isinstance(value, bool):
        raise AnswerError(error_text("yes_no", given=quoted(value)))
    return value


def _check_text(scale: Scale, value: Any) -> str:
    if not isinstance(value, str):
        raise AnswerError(error_text("text", given=quoted(value)))
    text = plain_text(value).strip()
    if len(text) > scale.max_length:
        raise AnswerError(error_text("too_long", length=len(text), most=scale.max_length))
    return text


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _option_label(scale: Scale, value: Any) -> str:
    return next(option.label for option in scale.options if option.value == value)


def _codes(scale: Scale) -> AnswerColumn:
    values = tuple(option.value for option in scale.options)
    return AnswerColumn("text", ", ".join(values), values)


QUESTION_TYPES: dict[str, QuestionType] = {
    "choice": QuestionType(
        fields=("options",),
        widget="choice",
        check=_check_choice,
        in_words=_option_label,
        column=_codes,
        example=lambda scale, position: scale.options[round(position * (len(scale.options) - 1))].value,
    ),
    "likert": QuestionType(
        fields=("points", "anchors"),
        widget="likert",
        check=_check_likert,
        in_words=lambda scale, value: Phrase.of("page", "points_of", point=value, points=scale.points),
        column=lambda scale: AnswerColumn("number", f"1 to {scale.points}", (1.0, float(scale.points))),
        example=lambda scale, position: 1 + round(position * (scale.points - 1)),
        analysed="rating",
        unit=lambda scale: f"points, 1-{scale.points}",
        bounds=lambda scale: (1, scale.points),
    ),
    "percent": QuestionType(
        fields=("anchors",),
        widget="percent",
        check=_check_percent,
        in_words=lambda scale, value: f"{value:g}%",
        column=lambda scale: AnswerColumn("number", "0 to 100", (0.0, 100.0)),
        example=lambda scale, position: float(round(100 * position)),
        analysed="rating",
        unit=lambda scale: "points, 0-100",
        bounds=lambda scale: (0, 100),
    ),
    "yes_no": QuestionType(
        fields=(),
        widget="yes_no",
        check=_check_yes_no,
        in_words=lambda scale, value: Phrase.of("page", "yes" if value else "no"),
        column=lambda scale: AnswerColumn("bool", "true or false"),
        example=lambda scale, position: position >= 0.5,
        analysed="share",
        unit=lambda scale: "share",
        bounds=lambda scale: (0, 1),
    ),
    "text": QuestionType(
        fields=("max_length",),
        widget="text",
        check=_check_text,
        in_words=lambda scale, value: str(value),
        column=lambda scale: AnswerColumn("text", f"at most {scale.max_length} characters"),
        example=lambda scale, position: "a remark",
        defaults={"max_length": 1000},
    ),
}
