"""The coordinator's tab as HTML: progress of the readers, new codes, the check of the log, export and report.

Pure functions of what the coordinator may see; the markup is in `skinclip/ui/templates/coordinator.html`. Files to save
are part of the reply (data URLs): nothing is served as a file. All words are the catalogue's, in the study's first
language.
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

from skinclip.study.catalogue.catalogue import ENGLISH, Words
from skinclip.study.coordinator import Coordinator, ReaderProgress
from skinclip.study.session.session_service import EnrolledReader, Study
from skinclip.study.store.audit_log import Audit
from skinclip.ui import study_html
from skinclip.ui.templating import data_url, macro, moment

_desk = partial(macro, "coordinator.html")

STATES = {"enrolled": "enrolled", "in progress": "in_progress", "completed": "completed", "withdrawn": "withdrawn"}
_COLUMNS = ("state", "steps", "cases", "left_out", "minutes", "pace", "last")


def words_of(study: Study) -> Words:
    """The words of the tab, in the first language of the study's page; called `t` in templates."""
    return Words(study.protocol.languages[0], "coordinator")


def sign_in(t: Words) -> Markup:
    """The words above the code."""
    return _desk("sign_in", t)


def signed_out(t: Words) -> Markup:
    """The words after signing out."""
    return _desk("signed_out", t)


def paragraph(words: str) -> Markup:
    """A paragraph above a form."""
    return _desk("paragraph", words)


def aside(words: str) -> Markup:
    """A paragraph of small print."""
    return _desk("aside", words)


def alert(words: str) -> Markup:
    """A problem in words."""
    return _desk("alert", words)


def note(words: str) -> Markup:
    """A success in words."""
    return _desk("note", words)


def status(rows: Sequence[ReaderProgress], closed: bool, study: Study, site: str | None = None) -> Markup:
    """Progress of the readers, with `site` of that site's; of a study that is open, none of their answers."""
    t, language = words_of(study), study.protocol.languages[0]
    counts = {key: sum(row.state == name for row in rows) for name, key in STATES.items() if name != "withdrawn"}
    listed = " · ".join(t(key, count=count) for key, count in counts.items() if count) or t("nobody")
    needed = study.protocol.completion.min_readers
    summary = t("summary", name=study.name, readers=len(rows), counts=listed, needed=needed)
    standing = [t("is_open") if not closed else t("is_closed" if site is None else "site_closed")]
    if site is not None:
        standing.insert(0, t("your_site", site=site))
    columns = (t("reader"), t("site"), *(t(f"column_{name}") for name in _COLUMNS))
    rehearsal = study_html.rehearsal(language) if study.protocol.rehearsal else ""
    title = study.protocol.title if language == ENGLISH else study.protocol.in_language(language).title
    return _desk("status", t, title, rehearsal, summary, standing, columns, [(row, _state(t, row)) for row in rows])


def _state(t: Words, row: ReaderProgress) -> str:
    state = t(f"state_{STATES[row.state]}")
    return f"{state}, {t('opens', when=moment(row.opens_at))}" if row.opens_at else state


def codes_once(t: Words, enrolled: Sequence[EnrolledReader], letters: Sequence[tuple[str, str]] = ()) -> Markup:
    """The new codes, to be handed on now: only a hash of each is kept. `letters` are invitations, (reader, text)."""
    text = io.StringIO()
    csv.writer(text).writerows([("reader", "code"), *((new.reader, new.code) for new in enrolled)])
    save = link(text.getvalue().encode(), "codes.csv", t("save_codes"), "text/csv")
    if letters:
        files = {f"{reader}-invitation.txt": letter for reader, letter in letters}
        save += link(_archive(files), "invitations.zip", t("save_invitations"))
    return _desk("codes_once", t, enrolled, save)


def site_code(t: Words, site: str, code: str) -> Markup:
    """The new code of a site's coordinator, to be handed on now."""
    return _desk("site_code", t, site, code)


def _archive(files: Mapping[str, str]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return data.getvalue()


def log_check(t: Words, result: Audit, receipts: int) -> Markup:
    """The result of the check of the log; its problems are worded in English."""
    told = _desk("warnings", t, result.warnings) if result.warnings else Markup("")
    if result.problems:
        return _desk("problems", t, result.problems) + told
    key = "whole_more" if receipts > 1 else "whole_one" if receipts else "whole"
    return note(t(key, receipts=receipts)) + told


def analysis(t: Words, desk: Coordinator, name: str) -> Markup:
    """The report on the page, and all files of the analysis as one archive."""
    report = ""

    def work(folder: Path) -> None:
        nonlocal report
        report = desk.analyse(folder)["report.html"].read_text(encoding="utf-8")

    archive = zipped(work)
    return _desk("analysis", t, link(archive, f"{name}-analysis.zip", t("save_analysis")), report)


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
