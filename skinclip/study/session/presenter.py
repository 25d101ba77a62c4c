"""A step as the reader sees it: Step + study bundle -> StepView, in the reader's language.

Words are the same in every arm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from skinclip.core.vocabulary import DIAGNOSIS_BY_CODE
from skinclip.study.catalogue.catalogue import ENGLISH, Words, diagnosis_name, section, within
from skinclip.study.protocol.arms import arm_named
from skinclip.study.protocol.model import Texts
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.protocol.question_types import Scale
from skinclip.study.protocol.questions import Question
from skinclip.study.session.bundle import StudyBundle
from skinclip.study.session.steps import CONSENT, Step
from skinclip.study.session.texts import texts_of
from skinclip.study.session.view_models import QuestionView, StepView


@dataclass(frozen=True)
class Wording:
    """The words of a study in one language: its protocol's, already translated, and the catalogue's."""

    protocol: Protocol
    language: str = ENGLISH

    @cached_property
    def steps(self) -> Words:
        """The catalogue's words for steps."""
        return Words(self.language, "steps")

    @cached_property
    def texts(self) -> Texts:
        """Instructions, feedback and debrief."""
        return texts_of(self.protocol, self.language)

    def moment(self, when: datetime) -> str:
        """A moment by the server's clock, as it is written in this language."""
        month = section(self.language, "steps")["months"][when.month - 1]
        return self.steps("moment", day=f"{when:%d}", month=month, year=when.year, time=f"{when:%H:%M}")


def step_view(
    bundle: StudyBundle, wording: Wording, step: Step, own: Mapping[str, Any], done: int, total: int
) -> StepView:
    """The view of a step. `own` is the reader's locked unaided answer, for the step `after`."""
    case = step.presentation.case if step.presentation else step.pair.case if step.pair else None
    protocol, language = wording.protocol, wording.language
    return StepView(
        step=step.name,
        kind=step.kind,
        title=step.title.within(language),
        text=_text(bundle, wording, step),
        done=done,
        total=total,
        photo=None if case is None else bundle.photo(case),
        questions=tuple(map(question_view, questions_of(protocol, step, language))),
        aid=bundle.aid(step.presentation.case, step.presentation.arm, language)
        if step.kind == "after" and step.presentation
        else None,
        aids=(
            (
                bundle.aid(step.pair.case, step.pair.side_a, language),
                bundle.aid(step.pair.case, step.pair.side_b, language),
            )
            if step.pair
            else None
        ),
        own=in_words(protocol.asked("before"), own, language) if step.kind == "after" else (),
    )


def _text(bundle: StudyBundle, wording: Wording, step: Step) -> str:
    match step.kind:
        case "consent":
            return _consent(wording)
        case "instructions":
            return "\n\n".join(filter(None, (wording.texts.instructions, _aid_language(wording))))
        case "feedback":
            assert step.presentation is not None
            code = bundle.truths[step.presentation.case].truth
            assert code is not None  # practice cases are drawn from those whose truth is known
            truth = diagnosis_name(DIAGNOSIS_BY_CODE[code].in_text.lower(), code, wording.language, in_text=True)
            return wording.texts.practice_feedback.replace("{truth}", truth)
        case "debrief":
            return wording.texts.debrief
    return wording.steps(f"text_{step.kind}")


def _aid_language(wording: Wording) -> str:
    """A sentence on the language of the aid's rationales, where there are any and the page has another one."""
    rationales = any(arm_named(arm).text != "none" for arm in wording.protocol.arms)
    return wording.steps("aid_language") if rationales else ""


def _consent(wording: Wording) -> str:
    """What a reader agrees to, with whom to turn to and what becomes of the answers."""
    ethics, steps, protocol = wording.protocol.ethics, wording.steps, wording.protocol
    about = steps(
        "about",
        controller=ethics.controller,
        contact=ethics.contact,
        approval=ethics.approval,
        retention=ethics.retention,
    )
    version = steps("consent_version", version=ethics.consent_version)
    withdrawal = steps("withdrawal_practice" if protocol.cases.practice else "withdrawal")
    return "\n\n".join((f"**{protocol.title}**", ethics.consent_text, withdrawal, about, version))


def questions_of(protocol: Protocol, step: Step, language: str = ENGLISH) -> tuple[Question, ...]:
    """The questions of a step, in order, of a protocol that is in this language."""
    match step.kind:
        case "consent":
            return (Question(CONSENT, Words(language, "steps")("agreement"), Scale("yes_no")),)
        case "background" | "before" | "preference":
            return protocol.asked(step.kind)
        case "after":
            return protocol.asked("after", step.presentation.arm if step.presentation else None)
        case "block":
            return protocol.asked("block", step.arm)
    return ()


def question_view(question: Question) -> QuestionView:
    """The view of one question."""
    scale = question.scale
    return QuestionView(
        key=question.key,
        text=question.text,
        kind=scale.kind,
        widget=scale.type.widget,
        required=question.required,
        options=tuple((option.value, option.label) for option in scale.options),
        points=scale.points or None,
        anchors=scale.anchors,
        max_length=scale.max_length or None,
    )


def in_words(
    questions: Iterable[Question], answers: Mapping[str, Any], language: str = ENGLISH
) -> tuple[tuple[str, str], ...]:
    """(question, answer) as the reader gave it; what was left out stays out."""
    given = [(q, answers[q.key]) for q in questions if answers.get(q.key) is not None]
    return tuple((q.text, str(within(q.in_words(answer), language))) for q, answer in given)
