"""What the store of a study takes and gives: readers, sign-ins, and the errors that a caller can expect. No SQL.

Every message is for the person in front of the page or the command line: it says what happened to the answer and what
to do next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skinclip.study.store.audit_log import Event

CREATED, ENROLLED, CODE_RENEWED, CLOSED = "created", "enrolled", "code_renewed", "closed"
# Kinds of events that answer a step; each step of a reader has one answer, the first.
ANSWERING = frozenset(
    {"consent", "instructions", "background", "before", "after", "feedback", "block", "preference", "debrief"}
)
AFTER_CLOSING = frozenset({"debrief"})  # the answering kinds that a closed study still takes


class StoreError(RuntimeError):
    """The database failed; the message says why and what to do. Nothing stored before is lost."""


class WrongKeyError(ValueError):
    """The database was written under another key."""


class UnknownStudyError(ValueError):
    """No study of this name was created in the database."""


class UnknownReaderError(ValueError):
    """The study has no such reader."""


class RequestTakenError(ValueError):
    """A request id was used before for something else."""


class StudyClosedError(ValueError):
    """The study is closed and takes no more answers."""


class WithdrawnError(ValueError):
    """The reader has withdrawn."""


class AlreadyAnswered(ValueError):
    """The step has another answer, which stands: `event`."""

    def __init__(self, event: Event) -> None:
        super().__init__("this step was answered before; the first answer stands. Go on with the next step.")
        self.event = event


class WrongCodeError(ValueError):
    """No such code."""

    def __init__(self) -> None:
        super().__init__("this code is not known; check it against your letter, or ask the coordinator for a new one")


class TooManyAttempts(ValueError):
    """Sign-in is refused for `seconds`."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many wrong codes; try again in {seconds} seconds")
        self.seconds = seconds


class SessionExpiredError(ValueError):
    """The sign-in has ended."""

    def __init__(self) -> None:
        super().__init__("your sign-in has ended; type your code again. All answers that you sent are stored.")


@dataclass(frozen=True)
class Reader:
    """An enrolled reader. `site` and `allocation` are None once erased by withdrawal."""

    study: str
    id: str
    number: int
    site: str | None
    allocation: Mapping[str, Any] | None
    enrolled_at: str
    withdrawn_at: str | None


@dataclass(frozen=True)
class Enrolment:
    """A new reader and the personal code, which is shown once and kept nowhere."""

    reader: str
    code: str = field(repr=False)


@dataclass(frozen=True)
class Session:
    """A sign-in. `reader` is None for the coordinator; `token` is what the browser keeps."""

    token: str = field(repr=False)
    study: str
    reader: str | None
    expires_at: str

    @property
    def is_coordinator(self) -> bool:
        return self.reader is None


@dataclass(frozen=True)
class Standing:
    """A sign-in, whether its study is closed, and events of its reader: all of one moment."""

    session: Session
    closed: bool
    events: tuple[Event, ...]
