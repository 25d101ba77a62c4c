"""A study as it is conducted: readers enrolled and signed in, steps shown, answers locked. No page, no SQL, no model.

`view` shows the first step without an answer and nothing beyond it; `submit` stores the answer to it, once, and shows
the next. The state of a session is the store's events alone, so a reader can stop anywhere and go on at another
computer. What a step shows is decided by `steps` and `presenter`; errors are worded for the reader.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from skinclip.core.safe_text import one_line
from skinclip.core.whole_files import whole_file
from skinclip.study.catalogue.catalogue import ENGLISH, error_text
from skinclip.study.errors import (
    AlreadyAnsweredError,
    AnswerError,
    SessionExpiredError,
    SignInError,
    StudyRequestError,
    TooManyAttempts,
)
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.session.allocation import Allocation, allocate, next_seat, same_site
from skinclip.study.session.bundle import ANCHORS, DATABASE, PROTOCOL, StudyBundle, check_fits
from skinclip.study.session.keys import read_study_key
from skinclip.study.session.presenter import Wording, step_view
from skinclip.study.session.session_state import SessionState
from skinclip.study.session.steps import Step, check, pause_before, session_steps
from skinclip.study.session.view_models import StepView
from skinclip.study.store.anchors import BEGUN, AnchorFile, missing
from skinclip.study.store.audit_log import Event, Head, receipt_of
from skinclip.study.store.records import ANSWERING, LANGUAGE, SITE, SITE_COORDINATOR, Session
from skinclip.study.store.store import MEASURED, Entry, Store, utc_now, where_from_environment
from skinclip.study.store.study_key import StudyKey

__all__ = [
    "AlreadyAnsweredError",
    "AnswerError",
    "EnrolledReader",
    "SessionExpiredError",
    "SessionState",
    "SignInError",
    "Study",
    "StudyRequestError",
    "TooManyAttempts",
]

PLAN_LOCKED, STEP_SHOWN = "plan_locked", "shown"  # kinds of events beside those of the steps
RESTORE = (
    "Put a backup in its place with `study restore`, or see with `study verify` what is missing; nothing was changed"
)
END = "end"  # the name of the view after the last step
LONGEST_STEP = 86_400.0  # seconds: what a browser tells beyond a day is no time on task
MOST_READERS = 1000  # enrolled in one go
MOST_OF_SITE = 200  # characters
KEPT_READERS = 1000  # of whom it is kept in memory which steps they have answered


@dataclass(frozen=True)
class EnrolledReader:
    """A new reader and the personal code, which can be shown now and never again."""

    reader: str
    code: str = field(repr=False)


class Study:
    """A study's bundle with its store. Safe for threads."""

    def __init__(self, bundle: StudyBundle, store: Store, clock: Callable[[], datetime], anchors: AnchorFile) -> None:
        self.bundle = bundle
        self.anchors = anchors
        self.protocol_file = bundle.folder / PROTOCOL  # the file that a coordinator edits
        self.store = store
        self._clock = clock
        self._steps: dict[str, tuple[Step, ...]] = {}  # an allocation never changes once it is stored
        self._recorded: set[tuple[str, str]] = set()  # (reader, step) whose first showing this process has recorded
        self._answered: dict[str, Mapping[str, Event]] = {}  # reader -> step -> its answer without payload

    @classmethod
    def open(cls, folder: str | Path, *, clock: Callable[[], datetime] = utc_now, checked: bool = True) -> Self:
        """The study in `folder`.

        Where the database is gone, or ends before the study's anchors, it is not opened: readers would answer anew what
        they have answered. With `checked` false such a database is opened all the same, to be verified.

        Raises StudyRequestError for that, and where a file of the bundle, or the plan once it was locked, has changed;
        ProtocolError, KeyFileError, WrongKeyError, StoreError.
        """
        folder = Path(folder)
        bundle = StudyBundle.open(folder)
        key = read_study_key(folder, bundle.record)
        anchors = AnchorFile(folder / ANCHORS, bundle.name, StudyKey(key), clock)
        last, where = anchors.last(), where_from_environment(folder / DATABASE)
        if last is not None and isinstance(where, Path) and not where.exists():
            raise StudyRequestError(f"{missing(last, 0)}. {RESTORE}")
        store = Store.open(where, key, clock=clock, on_heads=anchors.note)
        try:
            study = cls(bundle, store, clock, anchors)
            study._begin_or_go_on(last is None, checked)
            if checked:
                study._check_plan(bundle.protocol)
        except BaseException:
            store.close()
            raise
        return study

    def _begin_or_go_on(self, unknown: bool, checked: bool) -> None:
        """Begins the log of a study that is `unknown` outside its database, or finds that of one that was begun."""
        last = self.anchors.last()
        if last is not None and self.name not in self.store.studies():
            raise StudyRequestError(f"{missing(last, 0)}. {RESTORE}")
        self.store.create(self.name, {"frozen_sha256": self.bundle.sha256})
        if not checked:
            return
        created = self.store.log.genuine_events(self.name, None, ["created"])[0].payload or {}
        if created["frozen_sha256"] != self.bundle.sha256:
            raise StudyRequestError(
                f"the database already holds another study named {self.name}; raise the protocol's version, build "
                "it again, or give it a database of its own"
            )
        if unknown:
            self.store.sign_ins.seal_earlier_codes(self.name)
            self.anchors.append(self.store.head(self.name), BEGUN)
        elif last is not None:
            problem = self.store.log.unlike(self.name, Head(last.sequence, last.digest))
            if problem is not None:
                raise StudyRequestError(f"{missing(last, problem)}. {RESTORE}")

    def close(self) -> None:
        """Let go of the database. (Closing a study to further answers is `Coordinator.close`.)"""
        self.store.close()

    def check_database(self) -> None:
        """Reads from the database. Raises StoreError where it does not answer."""
        self.store.studies()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        return self.bundle.name

    @property
    def protocol(self) -> Protocol:
        return self.bundle.protocol

    # -- the plan and who takes part --------------------------------------------------------------------------------

    def locked_plan(self) -> str | None:
        """The hash of the plan that was locked before the first reader was enrolled; None before."""
        locked = self.store.log.genuine_events(self.name, None, [PLAN_LOCKED])
        return (locked[0].payload or {})["plan_sha256"] if locked else None

    def adopt(self, path: Path) -> None:
        """Take over a protocol that was edited since the study was built, such as its ethics fields.

        Raises StudyRequestError where the cases were drawn for another protocol, or the plan is locked and differs.
        """
        protocol = Protocol.read(path)
        check_fits(protocol, self.bundle.record)
        self._check_plan(protocol)
        with whole_file(self.bundle.folder / PROTOCOL) as part:
            part.write_bytes(path.read_bytes())
        self.protocol_file = path
        self.bundle = StudyBundle.open(self.bundle.folder)

    def enrol(self, readers: int, site: str) -> list[EnrolledReader]:
        """Enrol readers of one site. The first enrolment locks the plan.

        Raises StudyRequestError where ethics fields are empty or the study is closed.
        """
        if not 1 <= readers <= MOST_READERS:
            raise StudyRequestError(error_text("enrol_count", most=MOST_READERS, readers=readers))
        site = one_line(site)
        if len(site) > MOST_OF_SITE:
            raise StudyRequestError(error_text("site_length", length=len(site), most=MOST_OF_SITE))
        missing = self.protocol.missing_ethics()
        if missing:
            fields = ", ".join(missing)
            raise StudyRequestError(error_text("ethics_empty", fields=fields, file=self.protocol_file))
        if self.store.is_closed(self.name):
            raise StudyRequestError(error_text("closed_to_readers", study=self.name))
        self._allocation(1, site, [])  # a protocol that does not fit its cases is reported before anything is stored
        self._lock_plan()
        enrolled = [self.store.enrol(self.name, self._allocation, site) for _ in range(readers)]
        return [EnrolledReader(one.reader, one.code) for one in enrolled]

    def renew_code(self, reader: str) -> EnrolledReader:
        """A new personal code in place of a lost one, an event of the log; the old one and its sign-ins end.

        Raises StudyRequestError where there is no such reader, or the reader has withdrawn.
        """
        if self.store.reader(self.name, reader).withdrawn_at:
            raise StudyRequestError(error_text("no_code_after_withdrawal", reader=reader))
        return EnrolledReader(reader, self.store.renew_code(self.name, reader))

    def readers_at(self, site: str) -> int:
        """Number of readers of a site who have not withdrawn."""
        site = one_line(site)
        return sum(reader.site is not None and same_site(reader.site, site) for reader in self.store.readers(self.name))

    def _allocation(self, number: int, site: str, enrolled: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The allocation of the next reader, after those whose enrolments are stored in `enrolled`."""
        seat = next_seat(site, ((one["site"], one["allocation"]) for one in enrolled))
        return allocate(self.protocol, self.bundle.strata, self.bundle.practice, number, seat).to_dict()

    def _lock_plan(self) -> None:
        if self.locked_plan() is None:
            plan = {"plan_sha256": self.protocol.plan_sha256, "protocol": self.protocol.to_dict()}
            self.store.append(self.name, None, PLAN_LOCKED, PLAN_LOCKED, plan, PLAN_LOCKED)

    def _check_plan(self, protocol: Protocol) -> None:
        if self.locked_plan() not in (None, protocol.plan_sha256):
            raise StudyRequestError(
                f"the plan of {self.name} was locked when its first reader was enrolled, and this protocol has "
                "another. Take the changes back; a changed plan needs a higher version and a build of its own"
            )

    def _follow_locked_plan(self) -> None:
        """Read the protocol again where another process has adopted and locked a later text of it."""
        if self.locked_plan() not in (None, self.protocol.plan_sha256):
            self.bundle = StudyBundle.open(self.bundle.folder)
            self._check_plan(self.protocol)

    # -- sign-in ----------------------------------------------------------------------------------------------------

    def sign_in(self, code: str, *, coordinator: bool = False, address: str = "", language: str = "") -> str:
        """A token for the browser of a reader, or of the coordinator, who sends from `address`.

        `language` is that of the reader's page; where the study does not offer it, the first that it offers is taken.

        Raises SignInError, TooManyAttempts or TamperedError.
        """
        chosen = self.offered(language) if self._speaks_others and not coordinator else ""
        session = self.store.sign_in(code, address, chosen)
        if session.study == self.name and session.is_coordinator == coordinator:
            self._follow_locked_plan()
            return session.token
        self.store.sign_out(session.token)
        if session.study != self.name:
            raise SignInError(error_text("other_study"))
        raise SignInError(error_text("coordinators_code" if session.is_coordinator else "readers_code"))

    def offered(self, language: str) -> str:
        """A language of the page as it was asked for; where the study does not offer it, the first that it offers."""
        return language if language in self.protocol.languages else self.protocol.languages[0]

    @property
    def _speaks_others(self) -> bool:
        """True where the study offers more than English, so that the language of a session is kept."""
        return self.protocol.languages != (ENGLISH,)

    def sign_out(self, token: str) -> None:
        self.store.sign_out(token)

    def coordinator_code(self) -> str:
        """A new code for the coordinator; the one before ends."""
        return self.store.coordinator_code(self.name)

    def site_coordinator_code(self, site: str) -> str:
        """A new code for the coordinator of a site, who sees and enrols its readers alone; the one before ends.

        Raises StudyRequestError for a site without a name.
        """
        site = one_line(site)
        if not site:
            raise StudyRequestError(error_text("name_site"))
        if len(site) > MOST_OF_SITE:
            raise StudyRequestError(error_text("site_length", length=len(site), most=MOST_OF_SITE))
        return self.store.site_coordinator_code(self.name, site, same_site)

    def site_of(self, coordinator: str) -> str:
        """The site of a coordinator such as K001. Raises SessionExpiredError where there is none such."""
        given = self.store.log.genuine_events(self.name, coordinator, [SITE_COORDINATOR])
        if not given:
            raise SessionExpiredError
        return str((given[0].payload or {})[SITE])

    def session(self, token: str, *, coordinator: bool = False) -> Session:
        """Raises SessionExpiredError where the sign-in has ended, or is not of this study or kind."""
        session = self.store.session_reader(token)
        if session.study != self.name or session.is_coordinator != coordinator:
            raise SessionExpiredError
        return session

    # -- steps ------------------------------------------------------------------------------------------------------

    def view(self, token: str) -> StepView:
        """The view of the step that is due. Raises SessionExpiredError."""
        return self._view(self._place(token))

    def submit(
        self, token: str, step: str, answers: Mapping[str, Any], request_id: str, seconds: float | None = None
    ) -> StepView:
        """Store and lock the answers to a step and show the next one. Sending the same again stores nothing new.

        Args:
            request_id: made by the page for each submit, the same when it is sent again.
            seconds: time on the step as the browser measured it.

        Raises AnswerError (an answer is missing, wrong or not asked for), AlreadyAnsweredError (the first answer
        stands), StudyRequestError (not this step's turn, a pause, a closed study) or SessionExpiredError; nothing is
        stored then.
        """
        place = self._place(token)
        asked = place.step(step)
        if step not in place.answered:
            self._check_turn(place, asked)
        payload = {
            "answers": self._checked(place, asked, answers),
            **asked.identity,
            MEASURED: {"seconds": _bounded(seconds), **({LANGUAGE: place.language} if self._speaks_others else {})},
        }
        entries: list[Entry] = [(asked.kind, step, payload, f"{place.reader}:{request_id}")]
        following = self._step_opened_by(place, asked)
        if following is not None:  # in the same transaction: a submit waits for the disk once
            entries.append(_showing(place.reader, following))
        event = self.store.append_all(self.name, place.reader, entries)[0]
        if following is not None:
            self._recorded.add((place.reader, following.name))
        return self._view(replace(place, answered={**place.answered, step: event}))

    def withdraw(self, token: str) -> StepView:
        """Erase all answers of the reader, end the code and the sign-ins, and say so."""
        place = self._place(token)
        self.store.withdraw(self.name, place.reader)
        self._steps.pop(place.reader, None)
        self._answered.pop(place.reader, None)
        wording = self._wording(place.language)
        text = wording.steps("text_withdrawn")
        if place.steps[0].name in place.answered:  # who has begun is shown the debrief
            text = f"{text}\n\n{wording.texts.debrief}"
        return self._marked(StepView(END, "withdrawn", wording.steps("withdrawn"), text, 0, len(place.steps)), place)

    def receipt(self, token: str) -> str:
        """A short text that proves what was stored up to the reader's last answer.

        Raises StudyRequestError before the first.
        """
        answered = self._place(token).answered
        if not answered:
            raise StudyRequestError(error_text("no_receipt"))
        return receipt_of(max(answered.values(), key=lambda event: event.sequence))

    def session_state(self, reader: str) -> SessionState:
        """The state of a reader's session."""
        answered = {e.step: e for e in self.store.events(self.name, reader, ANSWERING)}
        return SessionState(reader, self.steps(reader), answered, self.store.is_closed(self.name))

    def steps(self, reader: str) -> tuple[Step, ...]:
        """All steps of a reader's session. Raises StudyRequestError where a withdrawal has erased the allocation."""
        if reader not in self._steps:
            allocation = self.store.reader(self.name, reader).allocation
            if allocation is None:
                raise StudyRequestError(error_text("erased", reader=reader))
            self._steps[reader] = session_steps(self.protocol, Allocation.from_dict(allocation))
        return self._steps[reader]

    def _place(self, token: str) -> SessionState:
        """Where the reader of a token stands. An answer never changes: only what is new since the last time is read.

        Raises SessionExpiredError where the sign-in has ended, or is not of this study or of no reader.
        """
        known: dict[str, Event] = {}

        def since(reader: str) -> int:
            known.update(self._answered.get(reader, {}))
            return max((event.sequence for event in known.values()), default=0)

        standing = self.store.session_snapshot(token, ANSWERING, since)
        session = standing.session
        if session.study != self.name or session.reader is None or session.is_coordinator:
            raise SessionExpiredError
        fresh = {event.step: event for event in standing.events}
        # That a step was answered is kept, not what: memory holds nothing that a withdrawal would have to erase.
        self._answered[session.reader] = {**known, **{s: replace(e, body=None, salt=None) for s, e in fresh.items()}}
        while len(self._answered) > KEPT_READERS:
            self._answered.pop(next(iter(self._answered)), None)
        language = self.offered(session.language)
        return SessionState(session.reader, self.steps(session.reader), {**known, **fresh}, standing.closed, language)

    def _wording(self, language: str) -> Wording:
        """The study's words in a language."""
        return Wording(self.bundle.protocol_in(language), language)

    def _view(self, place: SessionState) -> StepView:
        return self._marked(self._view_of(place), place)

    def _marked(self, view: StepView, place: SessionState) -> StepView:
        return replace(view, rehearsal=self.protocol.rehearsal, language=place.language)

    def _view_of(self, place: SessionState) -> StepView:
        step, done, total = place.current, len(place.answered), len(place.steps)
        if step is None:
            kind, steps = "closed" if place.closed else "done", self._wording(place.language).steps
            return StepView(END, "done", steps(kind), steps(f"text_{kind}"), done, total)
        opens = self._opens_at(place, step)
        if opens is not None:
            wording, wait = self._wording(place.language), (opens - self._clock()).total_seconds()
            text = wording.steps("text_pause", when=wording.moment(opens))
            return StepView(step.name, "pause", wording.steps("pause"), text, done, total, wait=wait)
        if (place.reader, step.name) not in self._recorded:
            self.store.append_all(self.name, place.reader, [_showing(place.reader, step)])
            self._recorded.add((place.reader, step.name))
        wording, own = self._wording(place.language), self._own(place, step)
        return step_view(self.bundle, wording, step, own, done, total)

    def _own(self, place: SessionState, step: Step) -> Mapping[str, Any]:
        """The locked unaided answer to the case of a step `after`."""
        if step.kind != "after":
            return {}
        before = place.before(step).name
        payload = place.answered[before].payload
        if payload is None:  # answered a while ago
            stored = self.store.events(self.name, place.reader, ["before"])
            payload = next(event.payload for event in stored if event.step == before)
        answers: dict[str, Any] = (payload or {})["answers"]
        return answers

    def opens_at(self, place: SessionState) -> datetime | None:
        """The moment at which the step that a reader is at opens; None where no pause is before it, or it is over."""
        return None if place.current is None else self._opens_at(place, place.current)

    def _step_opened_by(self, place: SessionState, step: Step) -> Step | None:
        """The step that an answer to `step` opens at once; None where a pause or the end comes first."""
        following = place.after(step)
        if following is None or place.closed or pause_before(self.protocol, place.steps, following):
            return None
        return following

    def _checked(self, place: SessionState, step: Step, answers: Mapping[str, Any]) -> dict[str, Any]:
        """The answers as they are stored; for a locked step, whatever comes, the first ones stand."""
        try:
            return check(self.protocol, step, answers)
        except AnswerError:
            if step.name in place.answered:
                raise AlreadyAnsweredError(place.answered[step.name].sequence) from None
            raise

    def _check_turn(self, place: SessionState, step: Step) -> None:
        if place.closed and step.kind != "debrief":
            raise StudyRequestError(error_text("too_late"))
        if step != place.current:
            raise StudyRequestError(error_text("not_open"))
        if self._opens_at(place, step) is not None:
            raise StudyRequestError(error_text("part_not_open"))

    def _opens_at(self, place: SessionState, step: Step) -> datetime | None:
        """When the pause before `step` ends; None where there is none or it is over."""
        pause = pause_before(self.protocol, place.steps, step)
        if not pause:
            return None
        opens = self._answered_at(place.answered[place.before(step).name]) + pause
        return opens if opens > self._clock() else None

    def _answered_at(self, answer: Event) -> datetime:
        """When an answer was stored; where the clock was ahead then, the first later event under one that was not.

        Else a reader would wait for that wrong hour, and then for the whole pause.
        """
        at, now = datetime.fromisoformat(answer.at), self._clock()
        if at <= now:
            return at
        later = [e.at for e in self.store.events(self.name) if e.sequence > answer.sequence]
        return min((moment for moment in map(datetime.fromisoformat, later) if moment <= now), default=at)


def _showing(reader: str, step: Step) -> Entry:
    """The event that notes, by the server's clock, when a step was first shown, whatever computers it is shown on."""
    return STEP_SHOWN, step.name, {}, f"{STEP_SHOWN}:{reader}:{step.name}"


def _bounded(seconds: float | None) -> float | None:
    """A browser's time as it is kept: 0 to `LONGEST_STEP`, None for what is no time, such as a negative one."""
    if seconds is None or isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return None
    return None if math.isnan(seconds) or seconds < 0 else min(float(seconds), LONGEST_STEP)
