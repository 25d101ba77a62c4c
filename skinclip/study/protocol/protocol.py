"""A study is one YAML file: the arms shown, the questions asked and the analysis, fixed in advance.

`Protocol.read` checks the file and reports everything that is wrong with it at once. `plan_sha256` identifies what a
reader sees and what is analysed: it is locked before the first reader is enrolled, and a changed plan is a new version.
Ethics fields may stay empty while a study is prepared; `missing_ethics` names those without which nobody is enrolled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from skinclip.study.catalogue.catalogue import ENGLISH
from skinclip.study.errors import AnswerError, ProtocolError
from skinclip.study.protocol.arms import ARMS
from skinclip.study.protocol.checks import contradictions
from skinclip.study.protocol.defaults import default_questions
from skinclip.study.protocol.model import (
    CANNOT_TELL,
    FIRST_OFFERED,
    RATED,
    STRATA,
    CasePlan,
    Completion,
    Contrast,
    Ethics,
    Plan,
    Primary,
    ProtocolModel,
    Safety,
    Texts,
    TimeOutliers,
    Washout,
)
from skinclip.study.protocol.question_types import STRICT, Option, Scale
from skinclip.study.protocol.questions import PHASES, Question
from skinclip.study.protocol.yaml_schema import nearest, problems_of, read_yaml_with_lines, with_lines

__all__ = [
    "ARMS",
    "CANNOT_TELL",
    "PHASES",
    "RATED",
    "STRATA",
    "AnswerError",
    "CasePlan",
    "Completion",
    "Contrast",
    "Ethics",
    "Option",
    "Plan",
    "Primary",
    "Protocol",
    "ProtocolError",
    "Question",
    "Safety",
    "Scale",
    "Texts",
    "TimeOutliers",
    "Washout",
    "default_questions",
]

_P = TypeVar("_P", bound=ProtocolModel)
_SECTIONS = ("cases", "washout", "completion", "plan", "ethics", "texts", "questions")
_PLAN_SECTIONS = ("primary", "safety", "time_outliers")


@dataclass(frozen=True, config=STRICT)
class Protocol(ProtocolModel):
    """A study as it was planned, read from its YAML file and checked."""

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """The protocol in a YAML file. Raises ProtocolError naming everything that is wrong with it, by line."""
        values, lines = read_yaml_with_lines(Path(path))
        try:
            return cls.from_dict(values)
        except ProtocolError as error:
            raise ProtocolError(with_lines(error.problems, lines), str(path)) from error

    @classmethod
    def from_dict(cls, values: Any, source: str = "the protocol") -> Self:
        """The protocol again from `to_dict`, or from the same structure with questions and texts left out.

        Raises ProtocolError (a ValueError), whose `problems` begin with the path of the field each.
        """
        complete = _completed(values)
        problems = _list_problems(complete)
        try:
            protocol = TypeAdapter(cls).validate_python(complete, context={"arms": _arms_of(complete)})
        except ValidationError as error:
            raise ProtocolError([*problems, *problems_of(error, cls)], source) from error
        protocol = _with_known_words(protocol)
        # Contradictions are checked where all fields could be read: stand-ins would only make up more of them.
        problems = problems or contradictions(protocol)
        if problems:
            raise ProtocolError(problems, source)
        return protocol


# --- before Pydantic ------------------------------------------------------------------------------------------------


def _with_known_words(protocol: _P) -> _P:
    """The protocol with the catalogue's translations of default questions, where it offers other languages."""
    if protocol.languages == (ENGLISH,):
        return protocol
    questions = {
        phase: tuple(question.with_known_words(protocol.languages) for question in asked)
        for phase, asked in protocol.questions.items()
    }
    return dataclasses.replace(protocol, questions=questions)


def _completed(values: Any) -> Any:
    """The file's values with everything that may be left out: empty sections, default questions and texts."""
    if not isinstance(values, Mapping):
        return values
    complete = {str(name): value for name, value in values.items()}
    _fill(complete, _SECTIONS)
    if isinstance(complete["questions"], Mapping):
        complete["questions"] = {**_offering(complete.get("diagnoses")), **complete["questions"]}
    if isinstance(complete["texts"], Mapping):
        own = {str(name): text for name, text in complete["texts"].items() if text not in (None, "")}
        complete["texts"] = {**default_questions()["texts"], **own}
    if isinstance(complete["plan"], Mapping):
        plan = complete["plan"] = {str(name): value for name, value in complete["plan"].items()}
        _fill(plan, _PLAN_SECTIONS)
        for name, endpoint in (("primary", "trust"), ("safety", "switch_to_wrong")):
            if isinstance(plan[name], Mapping) and plan[name].get("endpoint") in (None, ""):
                plan[name] = {**plan[name], "endpoint": endpoint}
    return complete


def _offering(diagnoses: Any) -> dict[str, Any]:
    """The default questions, those for a diagnosis with the options that the study offers, in its order."""
    named = diagnoses if isinstance(diagnoses, list | tuple) else FIRST_OFFERED
    order = [*(code for code in named if isinstance(code, str)), CANNOT_TELL]  # what is no code is refused elsewhere

    def with_options(question: Any) -> Any:
        if question["key"] != "diagnosis":
            return question
        options = {option["value"]: option for option in question["scale"]["options"]}
        return question | {"scale": question["scale"] | {"options": [options[c] for c in order if c in options]}}

    asked = default_questions()["questions"]
    return {phase: [with_options(question) for question in questions] for phase, questions in asked.items()}


def _fill(values: dict[str, Any], names: tuple[str, ...]) -> None:
    """A section that is left out is an empty one, so that its own fields say what they miss."""
    for name in names:
        if values.get(name) is None:
            values[name] = {}


def _arms_of(values: Any) -> tuple[str, ...]:
    """The arms that other fields may name; all there are where the list is faulty, so that none is blamed for it."""
    arms = values.get("arms") if isinstance(values, Mapping) else None
    if not isinstance(arms, list | tuple) or any(not isinstance(a, str) or a not in ARMS for a in arms):
        return tuple(ARMS)
    return tuple(arms) if len(set(arms)) >= max(2, len(arms)) else tuple(ARMS)


def _list_problems(values: Any) -> list[str]:
    """Problems of lists as wholes: entries given twice, phases that there are not."""
    if not isinstance(values, Mapping):
        return []
    problems, arms, questions = [], values.get("arms"), values["questions"]
    if isinstance(arms, list | tuple):
        known = [arm for arm in arms if isinstance(arm, str) and arm in ARMS]
        problems += [f"arms[{i}]: {a} is already an arm" for i, a in enumerate(known) if a in known[:i]]
        if len(arms) == 1:
            problems.append(f"arms: must be at least two of {', '.join(ARMS)}: there is nothing to compare otherwise")
    if isinstance(questions, Mapping):
        unknown = [phase for phase in questions if phase not in PHASES]
        problems += [f"questions.{p}: is not a field here{nearest(str(p), PHASES)}" for p in unknown]
        for phase in unknown:
            del values["questions"][phase]
        problems += [problem for phase in PHASES for problem in _doubled_keys(phase, questions.get(phase))]
    texts = values["texts"]
    feedback = texts.get("practice_feedback") if isinstance(texts, Mapping) else None
    if isinstance(feedback, str) and (feedback.count("{truth}") != 1 or feedback.count("{") != 1):
        problems.append("texts.practice_feedback: must say {truth} once, where the confirmed diagnosis is to stand")
    return problems


def _doubled_keys(phase: str, questions: Any) -> list[str]:
    keys = [q.get("key") if isinstance(q, Mapping) else None for q in questions] if isinstance(questions, list) else []
    return [
        f"questions.{phase}[{i}].key: {key} is already the key of a question above"
        for i, key in enumerate(keys)
        if isinstance(key, str) and key in keys[:i]
    ]
