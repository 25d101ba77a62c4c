"""The coordinator's tasks: watch progress, close, verify, export and analyse.

Blinded until the study is closed: before, there is progress and time, and neither arm, truth nor answer. Closing is an
event of the log. The tables that are exported and analysed are read from the events alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pandas as pd

from skinclip import RESEARCH_USE_ONLY
from skinclip.core.safe_text import plain_text
from skinclip.core.whole_files import whole_folder
from skinclip.study import interchange
from skinclip.study.analysis.tables import (
    REHEARSAL,
    REMARKS,
    StudyTables,
    further_columns,
    write_csv,
)
from skinclip.study.catalogue.catalogue import error_text
from skinclip.study.checksums import CHECKSUMS, write_checksums
from skinclip.study.errors import StudyRequestError
from skinclip.study.protocol.checklists import write_checklists
from skinclip.study.reader_record import ReaderRecord, answered_cases, columns_of, reader_row
from skinclip.study.session.allocation import same_site
from skinclip.study.session.session_service import STEP_SHOWN, EnrolledReader, SessionState, Study
from skinclip.study.store.audit_log import Audit, Problem, receipt_at
from skinclip.study.store.records import Reader

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
    """The coordinator's view of an open study. Who holds the study's folder needs no code.

    With a `site` it is that of the site's own coordinator: readers of the site alone, and no data, even when the study
    is closed.
    """

    def __init__(self, study: Study, site: str | None = None) -> None:
        self.study, self.site = study, site

    @classmethod
    def of(cls, study: Study, token: str) -> Self:
        """By the token of a sign-in with a coordinator's code. Raises SessionExpiredError."""
        session = study.session(token, coordinator=True)
        return cls(study, None if session.reader is None else study.site_of(session.reader))

    @property
    def is_closed(self) -> bool:
        return self.study.store.is_closed(self.study.name)

    def status(self) -> list[ReaderProgress]:
        """One row per reader, in order of enrolment."""
        return [self._progress(reader) for reader in self.study.store.readers(self.study.name) if self._sees(reader)]

    def enrol(self, readers: int, site: str = "") -> list[EnrolledReader]:
        """Enrols readers of a site; a site's coordinator those of the own one alone.

        Raises StudyRequestError where no site is named, or another one, and what `Study.enrol` raises.
        """
        if self.site is not None and site.strip() and not same_site(site, self.site):
            raise StudyRequestError(error_text("own_site_only", site=self.site))
        site = self.site or site
        if not site.strip():
            raise StudyRequestError(error_text("name_site"))
        return self.study.enrol(readers, site)

    def renew_code(self, reader: str) -> EnrolledReader:
        """A new personal code for a reader whom this coordinator sees. Raises StudyRequestError for another one."""
        if not self._sees(self.study.store.reader(self.study.name, reader)):
            raise StudyRequestError(error_text("not_of_site", reader=reader, site=self.site))
        return self.study.renew_code(reader)

    def site_coordinator_code(self, site: str) -> str:
        """A new code for the coordinator of a site. Raises StudyRequestError for who is one."""
        self._only_lead()
        return self.study.site_coordinator_code(site)

    def close(self, reason: str = "") -> None:
        """Take no more answers; from now on arms and truth may be seen. A second call changes nothing.

        Raises StudyRequestError where fewer readers have completed than the protocol asks and no reason is given.
        """
        self._only_lead()
        if self.is_closed:
            return
        reason = plain_text(reason).strip()
        completed, needed = self._completed(), self.study.protocol.completion.min_readers
        if completed < needed and not reason:
            raise StudyRequestError(error_text("close_early", completed=completed, needed=needed))
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
        self._only_lead()
        result = self.study.store.audit(self.study.name, receipts)
        problems, warnings = self.study.anchors.check(self.study.store.events(self.study.name))
        known = {(problem.kind, problem.sequence) for problem in result.problems}
        problems = [problem for problem in problems if (problem.kind, problem.sequence) not in known]
        if self.study.anchors.fault:
            warnings.append(Problem("anchor", None, self.study.anchors.fault))
        return replace(result, problems=(*result.problems, *problems), warnings=(*result.warnings, *warnings))

    def tables(self) -> StudyTables:
        """The study's data. Raises StudyRequestError before the study is closed."""
        self._only_closed()
        records, first_shown = list(self._records()), self._first_shown()
        frames = {
            "cases": [row for record in records for row in record.cases()],
            "blocks": [row for record in records for row in record.blocks(self.study.protocol)],
            "preferences": [row for record in records for row in record.preferences()],
            "readers": [reader_row(reader, self._place(reader), first_shown) for reader in self._readers()],
        }
        return StudyTables(
            **{name: pd.DataFrame(rows, columns=columns_of(name, rows)) for name, rows in frames.items()},
            mark=REHEARSAL if self.study.protocol.rehearsal else "",
            study=self.study.name,
            plan_sha256=self.study.protocol.plan_sha256,
            further=further_columns(self.study.protocol),
        )

    def export(self, folder: Path) -> list[Path]:
        """Tables with their dictionary, files for iMRMC, REDCap and ODM, remarks, the event log with the receipt of its
        end and the result of its check, and checksums of all, written into `folder`: all of them, or none.

        Raises StudyRequestError before the study is closed, OSError where they cannot be written.
        """
        tables = self.tables()
        with whole_folder(folder) as part:
            written = tables.write(part)
            remarks = [row for record in self._records() for row in record.remarks(self.study.protocol)]
            write_csv(pd.DataFrame(remarks, columns=list(REMARKS)), part / REMARKS_FILE, tables.mark)
            self.study.store.export_log(self.study.name, part / EVENT_LOG)
            (part / RECEIPT).write_text(self.receipt() + "\n", encoding="utf-8")
            (part / VERIFICATION).write_text(verification(self.audit()), encoding="utf-8")
            written += [*interchange.write(tables, part), part / REMARKS_FILE]
            written += [part / EVENT_LOG, part / RECEIPT, part / VERIFICATION, write_checksums(part)]
        return [folder / path.relative_to(part) for path in written]

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

        with whole_folder(folder) as part:
            write_checklists(self.study.protocol, part / CHECKLISTS)
            plan = analysis_plan.from_protocol(self.study.protocol)
            written = analysis_report.write(tables, part, plan, command)
            written = {**written, CHECKSUMS: write_checksums(part)}
        return {name: folder / path.relative_to(part) for name, path in written.items()}

    # -- readers ----------------------------------------------------------------------------------------------------

    def _readers(self) -> list[Reader]:
        return self.study.store.readers(self.study.name)

    def _place(self, reader: Reader) -> SessionState | None:
        """Where the reader stands; None after a withdrawal."""
        return None if reader.withdrawn_at else self.study.session_state(reader.id)

    def _records(self) -> Iterator[ReaderRecord]:
        """What each reader answered who has not withdrawn."""
        first_shown = self._first_shown()
        for reader in self._readers():
            place = self._place(reader)
            if place is not None:
                yield ReaderRecord(reader, place, first_shown.get(reader.id, {}), self.study.bundle.truths)

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
        record = ReaderRecord(reader, place, first_shown, {})
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
            cases=len(answered_cases(place)),
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

    def _sees(self, reader: Reader) -> bool:
        """True for every reader, for a site's coordinator for those of the site."""
        return self.site is None or (reader.site is not None and same_site(reader.site, self.site))

    def _only_lead(self) -> None:
        if self.site is not None:
            raise StudyRequestError(error_text("lead_only"))

    def _only_closed(self) -> None:
        self._only_lead()
        if not self.is_closed:
            raise StudyRequestError(error_text("after_closing"))


def verification(result: Audit) -> str:
    """The result of a check of the log as a text that goes with an export."""
    whole = f"{result.events} events: nothing was changed, removed or added"
    lines = [*map(str, result.problems)] or [whole]
    return "\n".join([f"{result.study}, {RESEARCH_USE_ONLY}", *lines, *(f"NOTE: {w}" for w in result.warnings)]) + "\n"


def is_completer(place: SessionState, study: Study) -> bool:
    """Tells whether the reader has answered the share of cases that the protocol asks for."""
    shown = study.protocol.cases.n * study.protocol.sessions
    return len(answered_cases(place)) >= study.protocol.completion.min_cases_share * shown
