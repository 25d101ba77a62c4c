"""Records of the study store: kinds of events, readers, enrolments and sign-ins. No SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skinclip.study.store.audit_log import Event

CREATED, ENROLLED, CODE_RENEWED, CLOSED = "created", "enrolled", "code_renewed", "closed"
SIGNED_IN, SIGNED_OUT = "signed_in", "signed_out"
SITE_COORDINATOR = "site_coordinator"  # a site got a coordinator of its own, under a name such as K001
CODES_SEALED = "codes_sealed"  # codes of before codes were sealed, listed once
RESTORED = "restored"  # the database was replaced by a backup
SITE = "site"  # entry of the payloads of enrolments and of sites' coordinators
CODE = "code"  # entry of an event's payload: the seal of the code that was given out with it
LANGUAGE = "language"  # entry of a payload: the language of the page at a sign-in, or of an answer
# Kinds of events that answer a step; each step of a reader has one answer, the first.
ANSWERING = frozenset(
    {"consent", "instructions", "background", "before", "after", "feedback", "block", "preference", "debrief"}
)
AFTER_CLOSING = frozenset({"debrief"})  # the answering kinds that a closed study still takes


def is_site_coordinator(name: str) -> bool:
    """True for the name of a site's coordinator; readers' names begin with R."""
    return name.startswith("K")


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
    """A sign-in; `token` is what the browser keeps.

    `reader` is None for the study's coordinator, and a name such as K001 for the coordinator of a site.

    `language` is that of the reader's page; empty where the study offers English alone.
    """

    token: str = field(repr=False)
    study: str
    reader: str | None
    expires_at: str
    language: str = ""

    @property
    def is_coordinator(self) -> bool:
        """True for the coordinator of the study, or of one of its sites."""
        return self.reader is None or is_site_coordinator(self.reader)


@dataclass(frozen=True)
class SessionSnapshot:
    """A sign-in, whether its study is closed, and events of its reader: all of one moment."""

    session: Session
    closed: bool
    events: tuple[Event, ...]
