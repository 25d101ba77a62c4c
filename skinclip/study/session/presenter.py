"""A step as the reader sees it: Step + study bundle -> StepView. Words are the same in every arm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from skinclip.core.vocabulary import DIAGNOSIS_BY_CODE
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.protocol.question_types import Scale
from skinclip.study.protocol.questions import Question
from skinclip.study.session.bundle import StudyBundle
from skinclip.study.session.steps import CONSENT, Step
from skinclip.study.session.texts import texts_of
from skinclip.study.session.view_models import QuestionView, StepView

WITHDRAWAL = (
    "Taking part is voluntary. You may stop at any time, without giving a reason, by choosing **Withdraw**: all your "
    "answers are then erased, and your code stops working. **The computer aid may be wrong**, and it is wrong on some "
    "of the photos. You are not told which diagnoses were right until the study is closed"
)
EXCEPT_PRACTICE = ", except for practice cases"
AGREEMENT = "I have read this, I know that the aid may be wrong, and I agree to take part."
TEXTS: dict[str, str] = {
    "background": "A few words about you. They are kept under a number, not under your name.",
    "before": "Look at the photo and answer without the aid. When you confirm, your answer is locked.",
    "after": "This is the aid's answer. Please answer again, and rate it. When you confirm, your answers are locked.",
    "block": "These questions are about the aid as it was shown in the part that you have just finished.",
    "preference": "The same photo with the aid shown in two ways, A on the left and B on the right.",
}
DONE = "You have finished. All your answers are stored. Please keep the receipt: it proves that they were not changed."
CLOSED = "The study is closed and takes no more answers. Those that you confirmed are kept."
WITHDRAWN = "You have withdrawn. Your answers are erased, and your code no longer works. Thank you for your time."


def step_view(
    bundle: StudyBundle, protocol: Protocol, step: Step, done: int, total: int, own: Mapping[str, Any]
) -> StepView:
    """The view of a step. `own` is the reader's locked unaided answer, for the step `after`."""
    case = step.presentation.case if step.presentation else step.pair.case if step.pair else None
    return StepView(
        step=step.name,
        kind=step.kind,
        title=step.title,
        text=_text(bundle, protocol, step),
        done=done,
        total=total,
        photo=None if case is None else bundle.photo(case),
        questions=questions(protocol, step),
        aid=bundle.aid(step.presentation.case, step.presentation.arm)
        if step.kind == "after" and step.presentation
        else None,
        aids=(
            (bundle.aid(step.pair.case, step.pair.side_a), bundle.aid(step.pair.case, step.pair.side_b))
            if step.pair
            else None
        ),
        own=in_words(protocol.asked("before"), own) if step.kind == "after" else (),
    )


def _text(bundle: StudyBundle, protocol: Protocol, step: Step) -> str:
    match step.kind:
        case "consent":
            return _consent(protocol)
        case "instructions":
            return texts_of(protocol).instructions
        case "feedback":
            assert step.presentation is not None
            code = bundle.truths[step.presentation.case].truth
            assert code is not None  # practice cases are drawn from those whose truth is known
            return protocol.texts.practice_feedback.replace("{truth}", DIAGNOSIS_BY_CODE[code].in_text.lower())
        case "debrief":
            return texts_of(protocol).debrief
    return TEXTS[step.kind]


def _consent(protocol: Protocol) -> str:
    """What a reader agrees to, with whom to turn to and what becomes of the answers."""
    ethics = protocol.ethics
    about = (
        f"Responsible for the data: {ethics.controller}. Questions and complaints: {ethics.contact}. Ethics approval: "
        f"{ethics.approval}. How long answers are kept: {ethics.retention}."
    )
    version = f"Version of this text: {ethics.consent_version}"
    withdrawal = f"{WITHDRAWAL}{EXCEPT_PRACTICE if protocol.cases.practice else ''}."
    return "\n\n".join((f"**{protocol.title}**", ethics.consent_text, withdrawal, about, version))


def questions(protocol: Protocol, step: Step) -> tuple[QuestionView, ...]:
    """The questions of a step as they are shown, in order."""
    return tuple(map(question_view, questions_of(protocol, step)))


def questions_of(protocol: Protocol, step: Step) -> tuple[Question, ...]:
    """The questions of a step, in order."""
    match step.kind:
        case "consent":
            return (Question(CONSENT, AGREEMENT, Scale("yes_no")),)
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


def in_words(questions: Iterable[Question], answers: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """(question, answer) as the reader gave it; what was left out stays out."""
    given = [(q, answers[q.key]) for q in questions if answers.get(q.key) is not None]
    return tuple((q.text, q.scale.type.in_words(q.scale, answer)) for q, answer in given)
