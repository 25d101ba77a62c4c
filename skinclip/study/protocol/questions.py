"""Questions, and the check that every answer passes before it is stored.

The default questions are in `questions.yaml`, the instruments with their sources; a study may replace a phase. Types of
questions are in `question_types`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError, core_schema

from skinclip.study.errors import AnswerError
from skinclip.study.protocol.arms import explaining
from skinclip.study.protocol.field_types import Flag, Slug, Text, quoted
from skinclip.study.protocol.question_types import STRICT, Scale

PHASES: tuple[str, ...] = ("background", "before", "after", "block", "preference")


class _QuestionArms:
    """Check of a question's `arms`: all, aid or a list of arms; `aid` stands for all arms with an explanation."""

    expected = "all, aid or a list of arms of this study"

    def check(self, value: Any, info: ValidationInfo) -> tuple[str, ...] | None:
        """The arms as a tuple, None for all."""
        if value is None or value == "all":
            return None
        arms: tuple[str, ...] = tuple((info.context or {}).get("arms", ()))
        if value == "aid" and arms:
            return explaining(arms)
        listed = isinstance(value, (list, tuple)) and value
        if not listed or (arms and any(arm not in arms for arm in value)):
            message = f"must be {self.expected} ({', '.join(arms)}), not {quoted(value)}"
            raise PydanticCustomError("study", "{message}", {"message": message})
        return tuple(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_plain_validator_function(self.check)


@dataclass(frozen=True, config=STRICT)
class Question:
    """One question of a protocol.

    Attributes:
        key: Column of its answers.
        text: As readers are asked.
        scale: How it is answered.
        arms: Those whose readers are asked; None for all.
        required: Whether a step cannot be confirmed without an answer.
        reverse: Whether a high answer speaks against: turned round where items are averaged, see `score`.
    """

    key: Annotated[str, Slug(hyphen=False)]
    text: Annotated[str, Text(500)]
    scale: Scale
    arms: Annotated[tuple[str, ...] | None, _QuestionArms()] = None
    required: Annotated[bool, Flag()] = True
    reverse: Annotated[bool, Flag()] = False

    def asked_in(self, arm: str) -> bool:
        """True where readers of this arm are asked."""
        return self.arms is None or arm in self.arms

    def check(self, value: Any) -> Any:
        """The answer as it is stored, or None where it was left out and may be.

        Raises AnswerError saying what is wrong with it.
        """
        if value is None or (isinstance(value, str) and not value.strip()):
            if self.required:
                raise AnswerError(f"{self.key}: an answer is needed")
            return None
        try:
            return self.scale.type.check(self.scale, value)
        except AnswerError as error:
            raise AnswerError(f"{self.key}: {error}") from error

    def score(self, value: bool | int | float) -> float:
        """A stored answer as it enters a scale's mean: turned round on its scale where a high one speaks against."""
        bounds = self.scale.type.bounds
        if bounds is None:
            raise ValueError(f"{self.key}: answers of the kind {self.scale.kind} have no score")
        low, high = bounds(self.scale)
        return float(low + high - value if self.reverse else value)

    def to_dict(self) -> dict[str, Any]:
        """The question as a protocol file lists it."""
        return {
            "key": self.key,
            "text": self.text,
            "scale": self.scale.to_dict(),
            "arms": None if self.arms is None else list(self.arms),
            "required": self.required,
            "reverse": self.reverse,
        }
