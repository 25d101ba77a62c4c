"""The set-up page as HTML: pure functions of what the study's own functions gave; markup in `templates/setup.html`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial

from markupsafe import Markup

from skinclip.core.vocabulary import DIAGNOSES
from skinclip.study import build_report
from skinclip.study.build import BuildResult
from skinclip.study.photo_archive import MAX_ARCHIVE_BYTES
from skinclip.study.power import EndpointPower, power_table
from skinclip.study.protocol.form import label_of
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.supply import PHOTOS_HELP, Outlook, Supply, outlook_table
from skinclip.study.workspace import PhotoSource, StudyDraft
from skinclip.ui.coordinator_html import link
from skinclip.ui.readers_page import command
from skinclip.ui.study_jobs import JobState
from skinclip.ui.templating import macro

_setup = partial(macro, "setup.html")

HEADING = _setup("heading")
_NAMES = {diagnosis.code: f"{diagnosis.name} ({diagnosis.code})" for diagnosis in DIAGNOSES}
UPLOAD = _setup("upload", MAX_ARCHIVE_BYTES // 10**9)


def intro(local: bool) -> Markup:
    """The words before the sign-in."""
    return _setup("intro", local)


def group(words: str) -> Markup:
    """The explanation of a group of fields."""
    return _setup("group", words)


def alert(words: str) -> Markup:
    """A problem in words."""
    return _setup("alert", words)


def saved(problems: Sequence[str], missing: Sequence[str]) -> Markup:
    """The state of a draft that was kept."""
    return _setup("saved", problems, [label_of(path) for path in missing])


def photos_help(local: bool) -> Markup:
    """The form in which photos are given."""
    return _setup("photos_help", _code(PHOTOS_HELP.replace("`--photos`", "What is needed")), local)


def _code(words: str) -> Markup:
    """A text whose parts between back quotes are names of files and columns."""
    parts = words.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def photos(source: PhotoSource, supply: Supply, left_out: Sequence[str] = ()) -> Markup:
    """The photos that were given, counted."""
    where = "From the uploaded archive." if source.uploaded else f"From {source.folder}."
    lesions = {_NAMES.get(code, code): n for code, n in supply.labelled.items()}
    return _setup("photos", where, lesions, supply, left_out)


def outlook(protocol: Protocol, found: Outlook, supply: Supply | None) -> Markup:
    """Photos needed and there."""
    kinds = [(_code(kind), n, found.available.get(kind)) for kind, n in found.needed.items()]
    return _setup("outlook", kinds, found, outlook_table(protocol, found, supply))


def power(protocol: Protocol, rows: Sequence[EndpointPower], studies: int) -> Markup:
    """The power of each endpoint."""
    return _setup("power", power_table(protocol, list(rows), studies))


def progress(state: JobState) -> Markup:
    """Progress of a job."""
    return _setup("progress", state.words, state.done, state.total)


def built(result: BuildResult, missing_ethics: Sequence[str]) -> Markup:
    """The outcome of a build, with every photo that could not be used."""
    save = Markup("")
    if result.left_out:
        listed = "\n".join(result.left_out) + "\n"
        save = link(listed.encode(), f"{result.folder.name}-left-out.txt", "Save this list", "text/plain")
    notes = build_report.notes(result, missing_ethics)
    return _setup("built", build_report.eligible(result), result.left_out, notes, save)


def conduct(draft: StudyDraft, url: str | None, missing: Sequence[str]) -> Markup:
    """The readers' page: where it is served, and the command that serves it."""
    labels = [label_of(path) for path in missing]
    return _setup("conduct", str(draft.out), shlex.join(command(draft.out)), url, labels)


def code(value: str) -> Markup:
    """The coordinator's new code."""
    return _setup("code", value)
