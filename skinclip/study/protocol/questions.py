"""Questions, the scales they are answered on, and the check that every answer passes before it is stored.

The default questions are in `questions.yaml`, the instruments with their sources; a study may replace a phase.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from skinclip.study.errors import AnswerError
from skinclip.study.protocol.yaml_schema import Fields, shown

PHASES: tuple[str, ...] = ("background", "before", "after", "block", "preference")
KINDS: dict[str, tuple[str, ...]] = {  # the fields that a scale of each kind has besides its kind
    "choice": ("options",),
    "likert": ("points", "anchors"),
    "percent": ("anchors",),
    "yes_no": (),
    "text": ("max_length",),
}


@dataclass(frozen=True)
class Option:
    """`value` is stored, `label` is read."""

    value: str
    label: str


@dataclass(frozen=True)
class Scale:
    """How a question is answered; fields that its kind does not have are empty.

    choice: one of `options`. likert: a whole number 1..`points`; `anchors` name the ends, or every point.
    percent: 0-100; `anchors` name the ends. yes_no: true or false. text: at most `max_length` characters.
    """

    kind: str
    options: tuple[Option, ...] = ()
    points: int = 0
    anchors: tuple[str, ...] = ()
    max_length: int = 0

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = {
            "options": [{"value": o.value, "label": o.label} for o in self.options],
            "points": self.points,
            "anchors": list(self.anchors),
            "max_length": self.max_length,
        }
        return {"kind": self.kind} | {name: values[name] for name in KINDS[self.kind]}


@dataclass(frozen=True)
class Question:
    """`arms` are those whose readers are asked (None: all); `reverse`: a high answer speaks against, see `score`."""

    key: str
    text: str
    scale: Scale
    arms: tuple[str, ...] | None = None
    required: bool = True
    reverse: bool = False

    def asked_in(self, arm: str) -> bool:
        return self.arms is None or arm in self.arms

    def check(self, value: Any) -> Any:
        """The answer as it is stored: text, int, float, bool, or None where it was left out and may be.

        Raises AnswerError saying what is wrong with it.
        """
        if value is None or (isinstance(value, str) and not value.strip()):
            if self.required:
                raise AnswerError(f"{self.key}: an answer is needed")
            return None
        return _CHECKS[self.scale.kind](self, value)

    def score(self, value: bool | int | float) -> float:
        """A stored answer as it enters a scale's mean: turned round on its scale where a high one speaks against."""
        low, high = {"likert": (1, self.scale.points), "percent": (0, 100), "yes_no": (0, 1)}[self.scale.kind]
        return float(low + high - value if self.reverse else value)

    def to_dict(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "text": self.text,
            "scale": self.scale.to_dict(),
            "arms": None if self.arms is None else list(self.arms),
            "required": self.required,
            "reverse": self.reverse,
        }


def _check_choice(question: Question, value: Any) -> str:
    values = [o.value for o in question.scale.options]
    if value not in values:
        raise AnswerError(f"{question.key}: choose one of {', '.join(values)}, not {shown(value)}")
    return str(value)


def _check_likert(question: Question, value: Any) -> int:
    points = question.scale.points
    if not _is_number(value) or value != int(value) or not 1 <= value <= points:
        raise AnswerError(f"{question.key}: choose a whole number from 1 to {points}, not {shown(value)}")
    return int(value)


def _check_percent(question: Question, value: Any) -> float:
    if not _is_number(value) or not 0 <= value <= 100:
        raise AnswerError(f"{question.key}: give a number from 0 to 100, not {shown(value)}")
    return float(value)


def _check_yes_no(question: Question, value: Any) -> bool:
    if not isinstance(value, bool):
        raise AnswerError(f"{question.key}: answer yes or no (true or false), not {shown(value)}")
    return value


def _check_text(question: Question, value: Any) -> str:
    if not isinstance(value, str):
        raise AnswerError(f"{question.key}: write text, not {shown(value)}")
    text, most = value.strip(), question.scale.max_length
    if len(text) > most:
        raise AnswerError(f"{question.key}: {len(text)} characters are too many; at most {most} are kept")
    return text


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_CHECKS: dict[str, Callable[[Question, Any], Any]] = {
    "choice": _check_choice,
    "likert": _check_likert,
    "percent": _check_percent,
    "yes_no": _check_yes_no,
    "text": _check_text,
}


def read_questions(phase: Fields, name: str, arms: Sequence[str]) -> tuple[Question, ...]:
    """The questions listed under `name`, those of the arms at hand; problems are noted in `phase`."""
    questions = [_read_question(path, value, phase.problems, arms) for path, value in phase.each(name, "questions")]
    for i, question in enumerate(questions):
        if question.key in {q.key for q in questions[:i]}:
            phase.note(f"{name}[{i}].key", f"{question.key} is already the key of a question above")
    return tuple(questions)


def _read_question(path: str, value: Any, problems: list[str], arms: Sequence[str]) -> Question:
    fields = Fields(value, path, problems, ("key", "text", "scale", "arms", "required", "reverse"))
    key = fields.slug("key")
    if "-" in key:
        fields.note("key", f"must not have -, since it names a column of the export, not {shown(key)}")
    text, scale = fields.text("text", max_length=500), _read_scale(fields)
    return Question(
        key, text, scale, _read_arms(fields, arms), fields.boolean("required", True), fields.boolean("reverse", False)
    )


def _read_arms(fields: Fields, arms: Sequence[str]) -> tuple[str, ...] | None:
    """`aid` stands for all arms but `none`: those in which a reader is shown an explanation."""
    value = fields.values.get("arms")
    if value is None or value == "all":
        return None
    if value == "aid":
        return tuple(arm for arm in arms if arm != "none")
    if not isinstance(value, (list, tuple)) or not value or any(arm not in arms for arm in value):
        fields.note("arms", f"must be all, aid or a list of arms of this study ({', '.join(arms)}), not {shown(value)}")
        return None
    return tuple(value)


def _read_scale(question: Fields) -> Scale:
    every = ("kind", *dict.fromkeys(name for names in KINDS.values() for name in names))
    fields = question.nested("scale", every)
    kind = fields.one_of("kind", tuple(KINDS))
    if kind != fields.values.get("kind"):
        return Scale("yes_no")  # a stand-in: which fields a scale of no known kind should have cannot be told
    for name in fields.values:
        if name in every and name not in ("kind", *KINDS[kind]):
            fields.note(name, f"is not a field of a scale of kind {kind}")
    match kind:
        case "choice":
            return Scale(kind, options=_read_options(fields))
        case "likert":
            points = fields.integer("points", 2, 11)
            return Scale(kind, points=points, anchors=_read_anchors(fields, points))
        case "percent":
            return Scale(kind, anchors=_read_anchors(fields, 2))
        case "text":
            return Scale(kind, max_length=fields.integer("max_length", 1, 5000, default=1000))
    return Scale(kind)


def _read_options(fields: Fields) -> tuple[Option, ...]:
    options = []
    for path, value in fields.each("options", "options, each with a value and a label"):
        entry = Fields(value, path, fields.problems, ("value", "label"))
        options.append(Option(entry.text("value", max_length=60), entry.text("label", max_length=200)))
    if len({o.value for o in options}) < len(options):
        fields.note("options", "has the same value twice; each option needs its own")
    return tuple(options)


def _read_anchors(fields: Fields, points: int) -> tuple[str, ...]:
    anchors = tuple(value for _, value in fields.each("anchors", "words, those of the lowest point first"))
    if anchors and (len(anchors) not in (2, points) or not all(isinstance(a, str) and a.strip() for a in anchors)):
        wanted = "two texts (the lowest and the highest point)" + (f" or {points}, one a point" if points > 2 else "")
        fields.note("anchors", f"must be {wanted}, not {shown(list(anchors))}")
        return ()
    return tuple(a.strip() for a in anchors)
