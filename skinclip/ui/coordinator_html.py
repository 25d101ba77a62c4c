"""The coordinator's tab as HTML: progress of the readers, new codes, the check of the log, export and report.

Pure functions of what the coordinator may see; the markup is in `skinclip/ui/templates/coordinator.html`. Files to save
are part of the reply (data URLs): nothing is served as a file.
"""

from __future__ import annotations

import csv
import io
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from markupsafe import Markup

from skinclip.study.coordinator import Coordinator, ReaderProgress
from skinclip.study.session.session_service import EnrolledReader, Study
from skinclip.study.store.audit_log import Audit
from skinclip.ui import study_html
from skinclip.ui.templating import data_url, macro

_desk = partial(macro, "coordinator.html")

SIGN_IN = _desk("sign_in")
SITES = _desk("sites")
LETTERS = _desk("letters")
RENEWAL = _desk("renewal")
SIGNED_OUT = _desk("signed_out")
COLUMNS = ("Reader", "Site", "State", "Steps", "Cases", "Left out", "Minutes", "Seconds per case", "Last answer")


def closing(study: Study) -> Markup:
    """Consequences of closing, and the name to type."""
    return _desk("closing", study.name)


def alert(words: str) -> Markup:
    """A problem in words."""
    return _desk("alert", words)


def note(words: str) -> Markup:
    """A success in words."""
    return _desk("note", words)


def status(rows: Sequence[ReaderProgress], closed: bool, study: Study, site: str | None = None) -> Markup:
    """Progress of the readers, with `site` of that site's; of a study that is open, none of their answers."""
    counts = {name: sum(row.state == name for row in rows) for name in ("enrolled", "in progress", "completed")}
    listed = " · ".join(f"{count} {name}" for name, count in counts.items() if count) or "nobody is enrolled yet"
    rehearsal = study_html.rehearsal() if study.protocol.rehearsal else ""
    needed = study.protocol.completion.min_readers
    title = study.protocol.title
    return _desk("status", title, rehearsal, study.name, len(rows), listed, needed, closed, COLUMNS, rows, site)


def codes_once(enrolled: Sequence[EnrolledReader], letters: Sequence[tuple[str, str]] = ()) -> Markup:
    """The new codes, to be handed on now: only a hash of each is kept. `letters` are invitations, (reader, text)."""
    text = io.StringIO()
    csv.writer(text).writerows([("reader", "code"), *((new.reader, new.code) for new in enrolled)])
    save = link(text.getvalue().encode(), "codes.csv", "Save as CSV", "text/csv")
    if letters:
        files = {f"{reader}-invitation.txt": letter for reader, letter in letters}
        save += link(_archive(files), "invitations.zip", "Save the invitations (zip)")
    return _desk("codes_once", enrolled, save)


def site_code(site: str, code: str) -> Markup:
    """The new code of a site's coordinator, to be handed on now."""
    return _desk("site_code", site, code)


def reminders(archive: bytes) -> Markup:
    """The reminders, to be sent by the coordinator's own mail program."""
    return link(archive, "reminders.zip", "Save the reminders (zip)")


def _archive(files: Mapping[str, str]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return data.getvalue()


def log_check(result: Audit, receipts: int) -> Markup:
    """The result of the check of the log."""
    told = _desk("warnings", result.warnings) if result.warnings else Markup("")
    if result.problems:
        return _desk("problems", result.problems) + told
    against = f", and it fits {'the receipt' if receipts == 1 else f'all {receipts} receipts'}" if receipts else ""
    return note(f"The log is whole: no answer was lost, changed or moved{against}.") + told


def analysis(desk: Coordinator, name: str) -> Markup:
    """The report on the page, and all files of the analysis as one archive."""
    report = ""

    def work(folder: Path) -> None:
        nonlocal report
        report = desk.analyse(folder)["report.html"].read_text(encoding="utf-8")

    archive = zipped(work)
    return _desk("analysis", link(archive, f"{name}-analysis.zip", "Save the report and its figures (zip)"), report)


def zipped(work: Callable[[Path], Any]) -> bytes:
    """Everything that `work` writes into a folder, as a zip in memory; the folder is deleted at once."""
    data = io.BytesIO()
    with tempfile.TemporaryDirectory() as place, zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        work(Path(place))
        for file in sorted(Path(place).rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(place))
    return data.getvalue()


def link(data: bytes, name: str, words: str, kind: str = "application/zip") -> Markup:
    """A link that saves `data` straight from the page."""
    return _desk("link", data_url(data, kind), name, words)
