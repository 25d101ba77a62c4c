"""A protocol's own words in other languages: those of a question beside it, the others under `translations`.

The fields themselves are English. What the catalogue has already, the default questions and texts, needs no translation
here; what is missing then is named when the protocol is read.
"""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Annotated, Any

from pydantic.dataclasses import dataclass

from skinclip.study.catalogue.catalogue import section
from skinclip.study.protocol.field_types import Listed, Text
from skinclip.study.protocol.question_types import STRICT, Scale


@dataclass(frozen=True, config=STRICT)
class QuestionWords:
    """A question's words in one language.

    Attributes:
        text: As readers are asked.
        anchors: Words for the scale, as many as in English, those of the lowest point first.
        options: Value of an option -> its label.
    """

    text: Annotated[str, Text(500, optional=True)] = ""
    anchors: Annotated[
        tuple[Annotated[str, Text(200)], ...], Listed("words, those of the lowest point first", may_be_empty=True)
    ] = ()
    options: dict[str, Annotated[str, Text(200)]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The words that there are, as a protocol file lists them."""
        values = {"text": self.text, "anchors": list(self.anchors), "options": dict(self.options)}
        return {name: value for name, value in values.items() if value}

    def completed(self, text: str, scale: Scale, language: str) -> QuestionWords:
        """With the catalogue's words for what is not given and is worded as in the default questions."""
        phrases = section(language, "phrases")
        anchors = tuple(phrases.get(anchor, "") for anchor in scale.anchors)
        labels = {option.value: phrases.get(option.label, "") for option in scale.options} | self.options
        return QuestionWords(
            self.text or phrases.get(text, ""),
            self.anchors or (anchors if all(anchors) else ()),
            {value: label for value, label in labels.items() if label},
        )

    def lacks(self, scale: Scale) -> list[str]:
        """Parts that are missing, or fit no part of the English question, in words."""
        problems = [] if self.text else ["the text is missing"]
        if len(self.anchors) != len(scale.anchors):
            problems.append(f"{len(scale.anchors)} anchors are needed, not {len(self.anchors)}")
        values = [option.value for option in scale.options]
        if missing := [value for value in values if value not in self.options]:
            problems.append(f"the options {', '.join(missing)} are missing")
        if unknown := [value for value in self.options if value not in values]:
            problems.append(f"there are no options {', '.join(unknown)}")
        return problems


@dataclass(frozen=True, config=STRICT)
class Translation:
    """Words of a protocol in one language, of the title, the ethics fields that readers see and the texts."""

    title: Annotated[str, Text(200, optional=True)] = ""
    approval: Annotated[str, Text(optional=True)] = ""
    controller: Annotated[str, Text(optional=True)] = ""
    contact: Annotated[str, Text(optional=True)] = ""
    consent_version: Annotated[str, Text(optional=True)] = ""
    consent_text: Annotated[str, Text(optional=True)] = ""
    retention: Annotated[str, Text(optional=True)] = ""
    instructions: Annotated[str, Text(optional=True)] = ""
    practice_feedback: Annotated[str, Text(optional=True)] = ""
    debrief: Annotated[str, Text(optional=True)] = ""

    def given(self) -> dict[str, str]:
        """The fields that are not empty."""
        return {f.name: text for f in dataclasses.fields(self) if (text := getattr(self, f.name))}
