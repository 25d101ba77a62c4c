"""Questions, and the check that every answer passes before it is stored.

The default questions are in `questions.yaml`, the instruments with their sources; a study may replace a phase. Types of
questions are in `question_types`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError, core_schema

from skinclip.study.catalogue.catalogue import ENGLISH, Phrase, error_text
from skinclip.study.errors import AnswerError
from skinclip.study.protocol.arms import explaining
from skinclip.study.protocol.field_types import Flag, Slug, Text, quoted
from skinclip.study.protocol.question_types import STRICT, Option, Scale
from skinclip.study.protocol.translations import QuestionWords

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
        translations: Its words in other languages than English.
    """

    key: Annotated[str, Slug(hyphen=False)]
    text: Annotated[str, Text(500)]
    scale: Scale
    arms: Annotated[tuple[str, ...] | None, _QuestionArms()] = None
    required: Annotated[bool, Flag()] = True
    reverse: Annotated[bool, Flag()] = False
    translations: dict[str, QuestionWords] = field(default_factory=dict)

    def asked_in(self, arm: str) -> bool:
        """True where readers of this arm are asked."""
        return self.arms is None or arm in self.arms

    def check(self, value: Any) -> Any:
        """The answer as it is stored, or None where it was left out and may be.

        Raises AnswerError saying what is wrong with it.
        """
        if value is None or (isinstance(value, str) and not value.strip()):
            if self.required:
                raise AnswerError(self._problem(error_text("needed")))
            return None
        try:
            return self.scale.type.check(self.scale, value)
        except AnswerError as error:
            raise AnswerError(self._problem(error.args[0])) from error

    def _problem(self, words: str) -> Phrase:
        return Phrase.joined(": ", (self.key, words))

    def in_words(self, answer: Any) -> str:
        """A stored answer as the reader gave it; `within` puts it into the reader's language."""
        return self.scale.type.in_words(self.scale, answer)

    def with_known_words(self, languages: Sequence[str]) -> Question:
        """The question with the catalogue's words where it has none of its own in one of the languages."""
        known = {
            language: self.translations.get(language, QuestionWords()).completed(self.text, self.scale, language)
            for language in languages
            if language != ENGLISH
        }
        return dataclasses.replace(self, translations={**self.translations, **known})

    def in_language(self, language: str) -> Question:
        """The question as readers of a language are asked; in English where there is no translation."""
        words = self.translations.get(language)
        if words is None:
            return self
        scale: dict[str, Any] = {"points": self.scale.points, "max_length": self.scale.max_length}
        scale["anchors"] = words.anchors or self.scale.anchors
        scale["options"] = tuple(Option(o.value, words.options.get(o.value, o.label)) for o in self.scale.options)
        given = {name: value for name, value in scale.items() if value}  # an empty field is refused where it is named
        return dataclasses.replace(self, text=words.text or self.text, scale=Scale(self.scale.kind, **given))

    def score(self, value: bool | int | float) -> float:
        """A stored answer as it enters a scale's mean: turned round on its scale where a high one speaks against."""
        bounds = self.scale.type.bounds
        if bounds is None:
            raise ValueError(f"{self.key}: answers of the kind {self.scale.kind} have no score")
        low, high = bounds(self.scale)
        return float(low + high - value if self.reverse else value)

    def to_dict(self) -> dict[str, Any]:
        """The question as a protocol file lists it."""
        translations = {language: words.to_dict() for language, words in self.translations.items()}
        return {
            "key": self.key,
            "text": self.text,
            "scale": self.scale.to_dict(),
            "arms": None if self.arms is None else list(self.arms),
            "required": self.required,
            "reverse": self.reverse,
            **({"translations": translations} if translations else {}),
        }
