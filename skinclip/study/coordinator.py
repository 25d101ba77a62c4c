"""The coordinator's tasks: watch progress, close, verify, export and analyse.

Blinded until the study is closed: before, there is progress and time, and neither arm, truth nor answer. Closing is an
event of the log. The tables that are exported and analysed are read from the events alone.
"""

from __future__ import annotations

import secrets
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import pandas as pd

from skinclip import RESEARCH_USE_ONLY
from skinclip.core.safe_text import plain_text
from skinclip.study import interchange
from skinclip.study.analysis.tables import (
    REHEARSAL,
    REMARKS,
    SESSION,
    TABLES,
    WASHOUT_DAYS,
    StudyTables,
    answer_column,
    further_columns,
    write_csv,
)
from skinclip.study.checksums import CHECKSUMS, write_checksums
from skinclip.study.errors import StudyRequestError
from skinclip.study.protocol.checklists import write_checklists
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.session.bundle import Truth
from skinclip.study.session.session_service import STEP_SHOWN, SessionState, Study
from skinclip.study.session.steps import Step
from skinclip.study.store.audit_log import Audit, Event, Problem, receipt_at
from skinclip.study.store.records import LANGUAGE, Reader
from skinclip.study.store.store import MEASURED

CLOSING = "closing"  # the event that says why, right before the store's own `closed`
EVENT_LOG = "events.jsonl"
REMARKS_FILE = "remarks.csv"
RECEIPT, VERIFICATION = "receipt.txt", "verification.txt"
CHECKLISTS = "checklists"


@dataclass(frozen=True)
class ReaderProgress:
    """Progress of one reader, without any answer.

    Attributes:
        cases, cases_total: cases answered with the aid, repeats and practice left out.
        left_out: optional questions of answered steps that were left without an answer.
        minutes: time between first showing and answer, summed over the steps, by the server's clock.
        seconds_a_case: median of the same over the cases, both answers together; None before the first.
        state: enrolled, in progress, completed or withdrawn.
        opens_at: when the reader's next part or session opens, in a pause; empty otherwise.
    """

    reader: str
    site: str
    state: str
    steps: int
    steps_total: int
    cases: int
    cases_total: int
    left_out: int
    minutes: float
    seconds_a_case: float | None
    enrolled_at: str
    last_answer_at: str
    opens_at: str = ""


class Coordinator:
    """The coordinator's view of an open study. Who holds the study's folder needs no code."""

    def __init__(self, study: Study) -> None:
        self.study = study

    @classmethod
    def of(cls, study: Study, token: str) -> Self:
        """By the token of a sign-in with the coordinator's code. Raises SessionExpiredError."""
        study.session(token, coordinator=True)
        return cls(study)

    @property
    def is_closed(self) -> bool:
        return self.study.store.is_closed(self.study.name)

    def status(self) -> list[ReaderProgress]:
        """One row per reader, in order of enrolment."""
        return [self._progress(reader) for reader in self.study.store.readers(self.study.name)]

    def close(self, reason: str = "") -> None:
        """Take no more answers; from now on arms and truth may be seen. A second call changes nothing.

        Raises StudyRequestError where fewer readers have completed than the protocol asks and no reason is given.
        """
        if self.is_closed:
            return
        reason = plain_text(reason).strip()
        completed, needed = self._completed(), self.study.protocol.completion.min_readers
        if completed < needed and not reason:
            raise StudyRequestError(
                f"{completed} readers have completed, and the protocol asks for {needed}; wait for them, or give the "
                "reason for closing early, which is put on record"
            )
        payload = {"completed": completed, "needed": needed, "reason": reason}
        self.study.store.append(self.study.name, None, CLOSING, CLOSING, payload, f"{CLOSING}-{secrets.token_hex(8)}")
        self.study.store.close_study(self.study.name)

    def receipt(self) -> str:
        """A short text that proves the newest event, the closing itself once the study is closed.

        Readers' receipts end before it: without this one, a log that was cut there and opened again would verify.
        """
        head = self.study.store.head(self.study.name)
        return receipt_at(self.study.name, head.sequence, head.digest)

    def verify(self, receipts: Iterable[str] = ()) -> list[Problem]:
        """Problems of the log; none where it is whole. Raises ReceiptError for a receipt copied wrongly."""
        return list(self.audit(receipts).problems)

    def audit(self, receipts: Iterable[str] = ()) -> Audit:
        """Checks the log against the key, the database beside it, receipts, and the anchors outside the database.

        Raises ReceiptError for a receipt copied wrongly.
        """
        result = self.study.store.audit(self.study.name, receipts)
        problems, warnings = self.study.anchors.check(self.study.store.events(self.study.name))
        known = {(problem.kind, problem.sequence) for problem in result.problems}
        problems = [problem for problem in problems if (problem.kind, problem.sequence) not in known]
        if self.study.anchors.fault:
            warnings.append(Problem("anchor", None, self.study.anchors.fault))
        return replace(result, problems=(*result.problems, *problems), warnings=(*result.warnings, *warnings))

    def tables(self) -> StudyTables:
        """The study's data. Raises StudyRequestError before the study is closed."""
        self._only_closed("its data")
        records, first_shown = list(self._records()), self._first_shown()
        frames = {
            "cases": [row for record in records for row in record.cases()],
            "blocks": [row for record in records for row in record.blocks(self.study.protocol)],
            "preferences": [row for record in records for row in record.preferences()],
            "readers": [_reader_row(reader, self._place(reader), first_shown) for reader in self._readers()],
        }
        return StudyTables(
            **{name: pd.DataFrame(rows, columns=_columns(name, rows)) for name, rows in frames.items()},
            mark=REHEARSAL if self.study.protocol.rehearsal else "",
            study=self.study.name,
            plan_sha256=self.study.protocol.plan_sha256,
            further=further_columns(self.study.protocol),
        )

    def export(self, folder: Path) -> list[Path]:
        """Tables with their dictionary, files for iMRMC, REDCap and ODM, remarks, the event log with the receipt of its
        end and the result of its check, and checksums of all, written into `folder`.

        Raises StudyRequestError before the study is closed.
        """
        tables = self.tables()
        written = tables.write(folder)
        remarks = [row for record in self._records() for row in record.remarks(self.study.protocol)]
        write_csv(pd.DataFrame(remarks, columns=list(REMARKS)), folder / REMARKS_FILE, tables.mark)
        self.study.store.export_log(self.study.name, folder / EVENT_LOG)
        (folder / RECEIPT).write_text(self.receipt() + "\n", encoding="utf-8")
        (folder / VERIFICATION).write_text(verification(self.audit()), encoding="utf-8")
        written += [*interchange.write(tables, folder), folder / REMARKS_FILE]
        written += [folder / EVENT_LOG, folder / RECEIPT, folder / VERIFICATION]
        return [*written, write_checksums(folder)]

    def analyse(self, folder: Path, command: str = "") -> dict[str, Path]:
        """The analysis that the plan fixed in advance, as a report with its data and figures; its main files by name.
        The reporting checklists, filled from the protocol, lie beside it in `checklists/`.

        Raises StudyRequestError before the study is closed.
        """
        tables = self.tables()
        from skinclip.study.analysis import (
            analysis_plan,
            analysis_report,  # statistics and plots are loaded for this alone
        )

        write_checklists(self.study.protocol, folder / CHECKLISTS)
        written = analysis_report.write(tables, folder, analysis_plan.from_protocol(self.study.protocol), command)
        return {**written, CHECKSUMS: write_checksums(folder)}

    # -- readers ----------------------------------------------------------------------------------------------------

    def _readers(self) -> list[Reader]:
        return self.study.store.readers(self.study.name)

    def _place(self, reader: Reader) -> SessionState | None:
        """Where the reader stands; None after a withdrawal."""
        return None if reader.withdrawn_at else self.study.session_state(reader.id)

    def _records(self) -> Iterator[_Record]:
        """What each reader answered who has not withdrawn."""
        first_shown = self._first_shown()
        for reader in self._readers():
            place = self._place(reader)
            if place is not None:
                yield _Record(reader, place, first_shown.get(reader.id, {}), self.study.bundle.truths)

    def _first_shown(self) -> dict[str, dict[str, str]]:
        """Reader -> step -> when it was first shown."""
        found: dict[str, dict[str, str]] = {}
        for event in self.study.store.events(self.study.name, kinds=[STEP_SHOWN]):
            found.setdefault(str(event.reader), {})[event.step] = event.at
        return found

    def _progress(self, reader: Reader) -> ReaderProgress:
        place = self._place(reader)
        if place is None:
            return ReaderProgress(reader.id, "", "withdrawn", 0, 0, 0, 0, 0, 0.0, None, reader.enrolled_at, "")
        first_shown = {e.step: e.at for e in self.study.store.events(self.study.name, reader.id, [STEP_SHOWN])}
        record = _Record(reader, place, first_shown, {})
        times = {step.name: record.server_seconds(step) for step in place.steps}
        done = [time for time in times.values() if time is not None]
        last = max((event.at for event in place.answered.values()), default="")
        opens = None if place.closed else self.study.opens_at(place)
        return ReaderProgress(
            reader=reader.id,
            site=reader.site or "",
            state="completed" if place.finished else "in progress" if place.answered else "enrolled",
            steps=len(place.answered),
            steps_total=len(place.steps),
            cases=len(_answered_cases(place)),
            cases_total=self.study.protocol.cases.n * self.study.protocol.sessions,
            left_out=record.left_out(),
            minutes=sum(done) / 60,
            seconds_a_case=record.median_case_seconds(times),
            enrolled_at=reader.enrolled_at,
            last_answer_at=last,
            opens_at="" if opens is None else opens.isoformat(timespec="seconds"),
        )

    def _completed(self) -> int:
        places = [self._place(reader) for reader in self._readers()]
        return sum(place is not None and is_completer(place, self.study) for place in places)

    def _only_closed(self, what: str) -> None:
        if not self.is_closed:
            raise StudyRequestError(f"{what} can be seen once the study is closed; until then everyone stays blinded")


def verification(result: Audit) -> str:
    """The result of a check of the log as a text that goes with an export."""
    whole = f"{result.events} events: nothing was changed, removed or added"
    lines = [*map(str, result.problems)] or [whole]
    return "\n".join([f"{result.study}, {RESEARCH_USE_ONLY}", *lines, *(f"NOTE: {w}" for w in result.warnings)]) + "\n"


def is_completer(place: SessionState, study: Study) -> bool:
    """Tells whether the reader has answered the share of cases that the protocol asks for."""
    shown = study.protocol.cases.n * study.protocol.sessions
    return len(_answered_cases(place)) >= study.protocol.completion.min_cases_share * shown


def _answered_cases(place: SessionState) -> list[Step]:
    """The steps `after` that were answered, of cases that count."""
    return [
        step
        for step in place.steps
        if step.kind == "after" and step.presentation and not (step.presentation.practice or step.presentation.repeat)
        if step.name in place.answered
    ]


# -- rows of the tables ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Record:
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
            for after in _answered_cases(self.place)
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


def _reader_row(
    reader: Reader, place: SessionState | None, first_shown: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """Of a reader who has withdrawn only that."""
    if place is None:
        return {"reader": reader.id, "completed": False, "withdrawn": True}
    record = _Record(reader, place, first_shown.get(reader.id, {}), {})
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


def _columns(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """The table's own columns, then those of further questions in the order in which they were asked."""
    further = dict.fromkeys(key for row in rows for key in row if key not in TABLES[name])
    return [*TABLES[name], *further]
