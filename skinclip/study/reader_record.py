"""Rows of a study's tables, and progress, from what one reader answered: stored events along the allocated steps."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from skinclip.study.analysis.tables import SESSION, TABLES, WASHOUT_DAYS, answer_column
from skinclip.study.errors import StudyRequestError
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.session.bundle import Truth
from skinclip.study.session.session_state import SessionState
from skinclip.study.session.steps import Step
from skinclip.study.store.audit_log import Event
from skinclip.study.store.records import LANGUAGE, Reader
from skinclip.study.store.store import MEASURED


def answered_cases(place: SessionState) -> list[Step]:
    """The steps `after` that were answered, of cases that count."""
    return [
        step
        for step in place.steps
        if step.kind == "after" and step.presentation and not (step.presentation.practice or step.presentation.repeat)
        if step.name in place.answered
    ]


@dataclass(frozen=True)
class ReaderRecord:
    """All that one reader answered. `first_shown` tells when each step was first shown, by the server's clock."""

    reader: Reader
    place: SessionState
    first_shown: Mapping[str, str]
    truths: Mapping[str, Truth]

    def cases(self) -> Iterator[dict[str, Any]]:
        """A row for each presentation whose unaided answer was given, practice left out."""
        for before, after in zip(self.place.steps, self.place.steps[1:], strict=False):
            if (
                before.kind == "before"
                and before.presentation
                and not before.presentation.practice
                and self._event(before)
            ):
                yield self._case(before, after)

    def _case(self, before: Step, after: Step) -> dict[str, Any]:
        presentation = before.presentation
        assert presentation is not None and after.kind == "after"
        truth = self.truths[presentation.case]
        return {
            "reader": self.reader.id,
            "site": self.site,
            "case": presentation.case,
            "stratum": truth.stratum,
            "weight": truth.weight,
            **({"patient": truth.patient} if truth.patient else {}),
            "arm": presentation.arm,
            "block": presentation.block,
            "position": presentation.position,
            **({SESSION: presentation.session} if self.has_two_sessions else {}),
            "repeat": presentation.repeat,
            "truth": truth.truth,
            "ai_leading": truth.ai_leading,
            "ai_correct": None if truth.truth is None else truth.truth == truth.ai_leading,
            **{f"{key}_before": value for key, value in self._answers(before).items()},
            **{answer_column(key): value for key, value in self._answers(after).items()},
            "seconds_before": self.seconds(before),
            "seconds_after": self.seconds(after),
            **self._language(after if self._event(after) else before),
            "server_seconds_before": self.server_seconds(before),
            "server_seconds_after": self.server_seconds(after),
        }

    def blocks(self, protocol: Protocol) -> Iterator[dict[str, Any]]:
        """A row for each item of the scales; remarks are not among them."""
        asked = {q.key: q for q in protocol.questions["block"]}
        numbers = (step for step in self.place.steps if step.kind == "block" and self._event(step))
        for block, step in enumerate(numbers, start=1):
            for item, value in self._answers(step).items():
                if isinstance(value, (bool, int, float)):
                    row = {"reader": self.reader.id, "arm": step.arm, "block": block}
                    yield {**row, "item": item, "value": float(value), "score": asked[item].score(value)}

    def preferences(self) -> Iterator[dict[str, Any]]:
        """A row for each pair of aids."""
        for step in self.place.steps:
            if step.pair is not None and self._event(step):
                answers = self._answers(step)
                chosen = {"a": step.pair.side_a, "b": step.pair.side_b}[answers.pop("prefer")]
                yield {"reader": self.reader.id, **step.identity, "chosen": chosen, **answers}

    def remarks(self, protocol: Protocol) -> Iterator[tuple[str, str, str, str, str, str]]:
        """Free text of all steps after the background: reader, step, case, arm, question, remark."""
        for step in self.place.steps:
            if step.kind in ("before", "after", "block", "preference"):
                asked = {q.key for q in protocol.questions[step.kind] if q.scale.kind == "text"}
                case, arm = (str(step.identity.get(name, "")) for name in ("case", "arm"))
                for key, value in self._answers(step).items():
                    if key in asked and value is not None:
                        yield self.reader.id, step.name, case, arm, key, value

    def seconds(self, step: Step) -> float | None:
        """Time on a step as the browser measured it; by the server's clock where it did not."""
        payload = self._payload(step)
        measured = (payload.get(MEASURED) or {}).get("seconds")
        return self.server_seconds(step) if measured is None else float(measured)

    def server_seconds(self, step: Step) -> float | None:
        """From the first showing to the answer, by the server's clock; None where one is missing."""
        event, opened = self._event(step), self.first_shown.get(step.name)
        if event is None or opened is None:
            return None
        seconds = (datetime.fromisoformat(event.at) - datetime.fromisoformat(opened)).total_seconds()
        return None if seconds < 0 else seconds  # the clock was set back in between: `verify` says where

    def median_case_seconds(self, times: Mapping[str, float | None]) -> float | None:
        both = [
            (times[self.place.before(after).name] or 0.0) + (times[after.name] or 0.0)
            for after in answered_cases(self.place)
        ]
        return statistics.median(both) if both else None

    def _language(self, step: Step) -> dict[str, str]:
        """The language of the page in which a step was answered; nothing where the study offers English alone."""
        language = (self._payload(step).get(MEASURED) or {}).get(LANGUAGE)
        return {LANGUAGE: language} if language else {}

    def language(self) -> dict[str, str]:
        """The language of the page at the reader's first answer."""
        return self._language(self.place.steps[0])

    @property
    def has_two_sessions(self) -> bool:
        """True where the reader was allocated a second session."""
        return any(step.presentation is not None and step.presentation.session == 2 for step in self.place.steps)

    def washout(self) -> dict[str, float | None]:
        """Days from the end of the first session to the first showing of the second; nothing where there is no second.

        By the server's clock: fewer than the protocol asks for tell that it was wrong at one end.
        """
        if not self.has_two_sessions:
            return {}
        shown = {step.name: step.presentation for step in self.place.steps if step.presentation is not None}
        ended = [self.place.answered[n].at for n, p in shown.items() if p.session == 1 and n in self.place.answered]
        begun = [self.first_shown[n] for n, p in shown.items() if p.session == 2 and n in self.first_shown]
        if not ended or not begun:
            return {WASHOUT_DAYS: None}
        apart = datetime.fromisoformat(min(begun)) - datetime.fromisoformat(max(ended))
        return {WASHOUT_DAYS: round(apart.total_seconds() / 86_400, 2)}

    def left_out(self) -> int:
        return sum(value is None for step in self.place.steps for value in self._answers(step).values())

    def _event(self, step: Step) -> Event | None:
        return self.place.answered.get(step.name)

    def _payload(self, step: Step) -> dict[str, Any]:
        """The stored payload of a step; empty where there is none.

        Raises StudyRequestError where it is about something else.
        """
        event = self._event(step)
        if event is None:
            return {}
        payload = event.payload or {}
        if event.kind != step.kind or any(payload.get(name) != value for name, value in step.identity.items()):
            raise StudyRequestError(
                f"{self.reader.id}, {step.name}: the stored answer is about another case or arm than the allocation "
                "says; run `study verify`, and use the program version that the study was conducted with"
            )
        return payload

    def _answers(self, step: Step) -> dict[str, Any]:
        answers: dict[str, Any] = self._payload(step).get("answers", {})
        return answers

    def background(self) -> dict[str, Any]:
        return next((self._answers(step) for step in self.place.steps if step.kind == "background"), {})

    @property
    def site(self) -> str | None:
        """The site that a reader named, else the one that invited."""
        return self.background().get("site") or self.reader.site


def reader_row(
    reader: Reader, place: SessionState | None, first_shown: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Of a reader who has withdrawn only that."""
    if place is None:
        return {"reader": reader.id, "completed": False, "withdrawn": True}
    record = ReaderRecord(reader, place, first_shown.get(reader.id, {}), {})
    background = record.background()
    return {
        **background,  # whatever else a study asks of its readers
        "reader": reader.id,
        "site": record.site,
        "role": background.get("role"),
        "years": background.get("years"),
        "completed": all(step.name in place.answered for step in place.steps[:-1]),  # to the end, but the debrief
        "withdrawn": False,
        **record.language(),
        **record.washout(),
    }


def columns_of(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """The table's own columns, then those of further questions in the order in which they were asked."""
    further = dict.fromkeys(key for row in rows for key in row if key not in TABLES[name])
    return [*TABLES[name], *further]
