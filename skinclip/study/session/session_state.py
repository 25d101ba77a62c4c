"""The state of a reader's session: a pure function of its steps and of what was answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from skinclip.study.catalogue.catalogue import ENGLISH, error_text
from skinclip.study.errors import AnswerError
from skinclip.study.session.steps import Step
from skinclip.study.store.audit_log import Event


@dataclass(frozen=True)
class SessionState:
    """State of a reader's session: all steps, the answers given, and the language of the page."""

    reader: str
    steps: tuple[Step, ...]
    answered: Mapping[str, Event]
    closed: bool
    language: str = ENGLISH

    @cached_property
    def current(self) -> Step | None:
        """The first step without an answer; of a closed study the debrief is all that is left."""
        if not self.closed:
            return next((step for step in self.steps if step.name not in self.answered), None)
        last = self.steps[-1]
        consented = self.steps[0].name in self.answered
        return last if consented and last.name not in self.answered else None

    @property
    def finished(self) -> bool:
        return len(self.answered) == len(self.steps)

    def step(self, name: str) -> Step:
        """Raises AnswerError where the session has no such step."""
        for step in self.steps:
            if step.name == name:
                return step
        raise AnswerError(error_text("no_step"))

    def before(self, step: Step) -> Step:
        """The step before `step`; the first has none before it."""
        return self.steps[self.steps.index(step) - 1]

    def after(self, step: Step) -> Step | None:
        """The step after `step`; None after the last."""
        following = self.steps.index(step) + 1
        return self.steps[following] if following < len(self.steps) else None
