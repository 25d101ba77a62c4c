"""The steps of a session, from consent to debrief: a pure function of protocol and allocation.

A step's name tells its position alone ("s017"). Where a reader stands is the first step without an answer; nothing else
is remembered of a session.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Any

from skinclip.study.catalogue.catalogue import Phrase, error_text
from skinclip.study.errors import AnswerError
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.session.allocation import Allocation, Pair, Presentation
from skinclip.study.session.view_models import StepKind

CONSENT = "consent"  # key of the one question that is not the protocol's


@dataclass(frozen=True)
class Step:
    """One step of one reader's session.

    Attributes:
        name: opaque, by position.
        kind: as the store's kinds of events.
        title: what the page calls it, in any language.
        presentation: case and arm of the steps `before`, `after` and `feedback`.
        arm: of a step `block`, whose questions are about it.
        pair: of a step `preference`.
    """

    name: str
    kind: StepKind
    title: Phrase
    presentation: Presentation | None = None
    arm: str | None = None
    pair: Pair | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Subject of an answer to this step; stored with it, so that the log can be read by itself."""
        if self.presentation is not None:
            shown = self.presentation
            named = {"case": shown.case, "arm": shown.arm, "repeat": shown.repeat}
            return named if shown.session == 1 else {**named, "session": shown.session}
        if self.pair is not None:
            return {"case": self.pair.case, "side_a": self.pair.side_a, "side_b": self.pair.side_b}
        return {} if self.arm is None else {"arm": self.arm}


def session_steps(protocol: Protocol, allocation: Allocation) -> tuple[Step, ...]:
    """All steps of the reader whose allocation it is, in order."""
    planned = [
        Step("", "consent", _title("consent")),
        Step("", "instructions", _title("instructions")),
        Step("", "background", _title("background")),
        *_case_steps(protocol, allocation),
        *_pair_steps(allocation.pairs),
        Step("", "debrief", _title("debrief")),
    ]
    return tuple(
        Step(f"s{i:03d}", s.kind, s.title, s.presentation, s.arm, s.pair) for i, s in enumerate(planned, start=1)
    )


def _title(key: str, place: int = 0, total: int = 0) -> Phrase:
    return Phrase.of("steps", key, place=place, total=total)


def _case_steps(protocol: Protocol, allocation: Allocation) -> Iterator[Step]:
    practice = sum(p.practice for p in allocation.presentations)
    repeats = sum(p.repeat for p in allocation.presentations)
    main = len(allocation.presentations) - practice - repeats
    first = main // protocol.sessions  # cases of the first session, which the repeats follow
    for (session, block), presentations in groupby(allocation.presentations, key=lambda p: (p.session, p.block)):
        arm = None
        for p in presentations:
            arm = p.arm
            title = _title("photo", p.position - (repeats if session > 1 else 0), main)
            if p.practice:
                title = _title("practice", p.position, practice)
            elif p.repeat:  # at the end, on top of the study's cases
                title = _title("closing_photo", p.position - first, repeats)
            yield Step("", "before", title, p)
            yield Step("", "after", title, p)
            if p.practice:
                yield Step("", "feedback", title, p)
        if 1 <= block <= len(protocol.arms) and session == 1:  # the scales are asked once of each arm
            yield Step("", "block", _title("block", block, len(protocol.arms)), arm=arm)


def _pair_steps(pairs: Iterable[Pair]) -> Iterator[Step]:
    listed = tuple(pairs)
    for i, pair in enumerate(listed, start=1):
        yield Step("", "preference", _title("pair", i, len(listed)), pair=pair)


def pause_before(protocol: Protocol, steps: Sequence[Step], step: Step) -> timedelta:
    """The pause that the protocol forces before a step: between two parts, or the two sessions; else none."""
    if step.kind != "before" or step.presentation is None or step.presentation.practice:
        return timedelta(0)
    before = steps[steps.index(step) - 1]
    shown = before.presentation
    if protocol.second_session is not None and step.presentation.session == 2 and not _in_second(before):
        return timedelta(days=protocol.second_session.days)
    new_part = before.kind == "block" or (
        shown is not None and shown.session == 2 and shown.block != step.presentation.block
    )
    return timedelta(hours=protocol.washout.hours if new_part else 0)


def _in_second(step: Step) -> bool:
    return step.presentation is not None and step.presentation.session == 2


def check(protocol: Protocol, step: Step, answers: Mapping[str, Any]) -> dict[str, Any]:
    """The answers to a step as they are stored. Raises AnswerError naming what is missing, wrong or not asked."""
    match step.kind:
        case "background" | "before" | "preference":
            return protocol.check_answers(step.kind, answers)
        case "after":
            assert step.presentation is not None
            return protocol.check_answers("after", answers, step.presentation.arm)
        case "block":
            return protocol.check_answers("block", answers, step.arm)
        case "consent":
            return _check_consent(answers)
    if answers:
        raise AnswerError(Phrase.joined(": ", (", ".join(answers), error_text("nothing_asked"))))
    return {}


def _check_consent(answers: Mapping[str, Any]) -> dict[str, Any]:
    """Consent is given or the session does not begin: a refusal leaves nothing behind."""
    others = [key for key in answers if key != CONSENT]
    if others:
        raise AnswerError(Phrase.joined(": ", (", ".join(others), error_text("not_asked"))))
    if answers.get(CONSENT) is not True:
        raise AnswerError(Phrase.joined(": ", (CONSENT, error_text("consent"))))
    return {CONSENT: True}
