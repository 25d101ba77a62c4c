"""Errors of the reader study. All derive from `StudyError`, so that a command can report any of them in one line.

A caller should distinguish two families: a `StudyRequestError` refuses what was asked and has changed nothing;
a `StoreError` is a failure of the database, after which the same request may be sent again. Every message is written
for the person at the page or the command line: it says what became of the answer and what to do next. What readers may
see is worded by the catalogue, so that the page can say it in their language (`catalogue.problem_in`).
"""

from __future__ import annotations

from collections.abc import Sequence

from skinclip.study.catalogue.catalogue import Phrase, error_text


class StudyError(Exception):
    """Base class of everything that the study raises on purpose."""


class StoreError(StudyError, RuntimeError):
    """The database failed; the message says why and what to do. Nothing stored before is lost."""


# --- requests that are refused --------------------------------------------------------------------------------------


class StudyRequestError(StudyError, ValueError):
    """A request that the study refuses: to build, open, enrol, answer or export. Nothing was changed."""


class SignInError(StudyRequestError):
    """Nobody was signed in."""


class WrongCodeError(SignInError):
    """No such code."""

    def __init__(self) -> None:
        super().__init__(error_text("wrong_code"))


class TooManyAttempts(SignInError):
    """Sign-in is refused for `seconds`."""

    def __init__(self, seconds: int) -> None:
        super().__init__(error_text("too_many", seconds=seconds))
        self.seconds = seconds


class SessionExpiredError(StudyRequestError):
    """The sign-in has ended; signing in again goes on where the reader stopped."""

    def __init__(self) -> None:
        super().__init__(error_text("expired"))


class AlreadyAnsweredError(StudyRequestError):
    """The step has another answer, the first, which stands: the event at `sequence` of the log."""

    def __init__(self, sequence: int) -> None:
        super().__init__(error_text("answered_before"))
        self.sequence = sequence


class RequestIdReusedError(StudyRequestError):
    """A request id was used before for something else."""


class StudyClosedError(StudyRequestError):
    """The study is closed and takes no more answers."""


class UnknownStudyError(StudyRequestError):
    """No study of this name was created in the database."""


class UnknownReaderError(StudyRequestError):
    """The study has no such reader."""


class WithdrawnError(StudyRequestError):
    """The reader has withdrawn."""


class TamperedError(StudyRequestError):
    """The database was changed outside the program: `what` says which part of it."""

    def __init__(self, what: str) -> None:
        super().__init__(error_text("tampered", what=Phrase.detailed(what, "errors", "tampered_part")))


# --- contents that cannot be read or used ---------------------------------------------------------------------------


class ProtocolError(StudyError, ValueError):
    """Faults of a protocol; `problems` holds one sentence each, beginning with the line and the path of the field."""

    def __init__(self, problems: Sequence[str], source: str = "the protocol") -> None:
        self.problems = tuple(problems)
        count = "one problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join((f"{source} has {count}:", *(f"  {p}" for p in self.problems))))


class AnswerError(StudyError, ValueError):
    """An answer that does not fit its question, in words for the reader who gave it."""


class AllocationError(StudyError, ValueError):
    """Cases that do not fit the protocol, or a stored allocation that is none."""


class PayloadError(StudyError, ValueError):
    """A payload that is not plain JSON."""


class LogError(StudyError, ValueError):
    """A line of an exported log, or a stored payload, that cannot be read."""


class ReceiptError(StudyError, ValueError):
    """A text that is no receipt, or was copied wrongly."""


class CodeError(StudyError, ValueError):
    """A typed text that has not the form of a code."""


class KeyFileError(StudyError, ValueError):
    """A key file that cannot be used; the message says why and what to do."""


class WrongKeyError(StudyError, ValueError):
    """The database was written under another key."""


class TablesError(StudyError, ValueError):
    """A table that lacks a column or holds a value that cannot be; the message names the table, column and rows."""


class NotEstimable(StudyError, ValueError):
    """Data that cannot answer a question of the analysis; the message is the reason, in words for a report."""
