"""The tab of a study's coordinator: progress, enrolment, closing, checking the log, export and analysis.

Handlers are plain functions; each asks the study anew whether the token that the browser sends is the coordinator's. As
with readers, the token lies in the browser tab's own sessionStorage, so that a refresh needs no code. Nothing is served
as a file: new codes, the export and the report are part of the reply to the one who asked.
"""

from __future__ import annotations

import base64
import csv
import io
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from skinclip.study.coordinator import Coordinator, ReaderProgress
from skinclip.study.errors import ReceiptError, SessionExpiredError, SignInError, StudyRequestError
from skinclip.study.session.session_service import EnrolledReader, Study
from skinclip.study.store.audit_log import Problem
from skinclip.ui import study_html
from skinclip.ui.tabs.study_tab import sentence

# Runs in the browser: the token of the sign-in is kept in this tab alone, and given back once the page is loaded anew.
KEPT = "study-coordinator"
KEEP = f"(token) => token ? sessionStorage.setItem('{KEPT}', token) : sessionStorage.removeItem('{KEPT}')"
GIVE_BACK = f"() => sessionStorage.getItem('{KEPT}') || ''"
WORDS = (  # read by readers too: the program's name would tell them which model it is
    '<div class="sk-empty"><h2>For the coordinator of this study</h2><p>Type the coordinator code. The command '
    "<code>study enrol STUDY --coordinator</code> makes a new one, on the computer that holds the study.</p></div>"
)
RENEWAL = (
    "<p>The new code is shown once; the old one stops working at once, and its sign-in ends. Confirmed answers stay, "
    "and the reader goes on where he or she stopped. The renewal is put on record.</p>"
)
SIGNED_OUT = '<p class="sk-note" role="status">You are signed out.</p>'
TAB = "coordinator"  # id of the tab that this is built in
Updates = dict[Any, Any]


@dataclass(frozen=True)
class CoordinatorView:
    """The tab's components; `token` carries the sign-in, unseen, from the browser to every handler."""

    door: gr.Column
    code: gr.Textbox
    enter: gr.Button
    refused: gr.HTML
    room: gr.Column
    status: gr.HTML
    refresh: gr.Button
    leave: gr.Button
    number: gr.Number
    site: gr.Textbox
    enrol: gr.Button
    codes: gr.HTML
    lost: gr.Dropdown
    renew: gr.Button
    renewed: gr.HTML
    receipts: gr.Textbox
    verify: gr.Button
    verified: gr.HTML
    reason: gr.Textbox
    typed: gr.Textbox
    close: gr.Button
    closed: gr.HTML
    export: gr.Button
    exported: gr.HTML
    analyse: gr.Button
    report: gr.HTML
    token: gr.Textbox

    @property
    def secrets(self) -> list[gr.HTML]:
        """What must not stay on the page after the coordinator has left it."""
        return [self.status, self.codes, self.renewed, self.verified, self.closed, self.exported, self.report]


def build(study: Study) -> CoordinatorView:
    """Lays out the tab inside the current Blocks and wires its events."""
    with gr.Column(elem_classes="sk-door") as door:
        gr.HTML(WORDS)
        code = gr.Textbox(label="Coordinator code", type="password", max_lines=1, elem_id="coordinator-code")
        enter = gr.Button("Sign in", variant="primary", elem_id="coordinator-enter")
        refused = gr.HTML(elem_id="coordinator-refused")
    with gr.Column(visible=False, elem_classes="sk-room") as room:
        with gr.Row():
            refresh = gr.Button("Refresh", size="md", scale=0, min_width=140, elem_id="study-refresh")
            leave = gr.Button("Sign out", size="md", scale=0, min_width=140, elem_id="coordinator-leave")
        status = gr.HTML(elem_id="study-status")
        with gr.Accordion("Enrol readers", open=False):
            with gr.Row():
                number = gr.Number(1, label="How many", precision=0, minimum=1, maximum=200, min_width=120)
                site = gr.Textbox(label="Site", placeholder="hospital or practice", max_lines=1, max_length=120)
            enrol = gr.Button("Enrol and show their codes", elem_id="study-enrol")
            codes = gr.HTML(elem_id="study-codes")
        with gr.Accordion("Renew a lost code", open=False):
            gr.HTML(RENEWAL)
            lost = gr.Dropdown([], label="Reader", interactive=True, elem_id="study-lost")
            renew = gr.Button("Make a new code", elem_id="study-renew")
            renewed = gr.HTML(elem_id="study-renewed")
        with gr.Accordion("Check that no answer was lost or changed", open=False):
            receipts = gr.Textbox(label="Readers' receipts, one a line (optional)", lines=3)
            verify = gr.Button("Check the log", elem_id="study-verify")
            verified = gr.HTML(elem_id="study-verified")
        with gr.Accordion("Close the study", open=False):
            gr.HTML(_closing_words(study))
            reason = gr.Textbox(label="Reason, where it is closed early", max_lines=2, max_length=500)
            typed = gr.Textbox(label="Name of the study, to confirm", max_lines=1, elem_id="study-typed")
            close = gr.Button("Close for good", variant="stop", elem_id="study-close")
            closed = gr.HTML(elem_id="study-closed")
        with gr.Accordion("Export and analyse, once closed", open=False):
            with gr.Row():
                export = gr.Button("Make the export", elem_id="study-export")
                analyse = gr.Button("Analyse as planned", elem_id="study-analyse")
            exported, report = gr.HTML(elem_id="study-exported"), gr.HTML(elem_id="study-report")
    token = gr.Textbox(visible="hidden")
    view = CoordinatorView(
        door, code, enter, refused, room, status, refresh, leave, number, site, enrol, codes, lost, renew, renewed,
        receipts, verify, verified, reason, typed, close, closed, export, exported, analyse, report, token,
    )  # fmt: skip
    _wire(study, view)
    return view


def _closing_words(study: Study) -> str:
    return (
        "<p>A closed study takes no more answers and cannot be opened again. Closing ends the blinding. "
        f"Type <b>{escape(study.name)}</b> to confirm.</p>"
    )


def _wire(study: Study, view: CoordinatorView) -> None:
    every = [getattr(view, name) for name in CoordinatorView.__dataclass_fields__]

    def on(button: gr.Button, handler: Callable[..., Updates], inputs: Sequence[Any], shown_on: gr.HTML) -> None:
        button.click(
            partial(handler, study, view),
            [view.token, *inputs],
            every,
            concurrency_id="coordinator",
            concurrency_limit=4,
            api_visibility="private",
            show_progress_on=shown_on,
        )

    on(view.enter, on_enter, [view.code], view.refused)
    on(view.refresh, on_refresh, [], view.status)
    on(view.leave, on_leave, [], view.status)
    on(view.enrol, on_enrol, [view.number, view.site], view.codes)
    on(view.renew, on_renew, [view.lost], view.renewed)
    on(view.verify, on_verify, [view.receipts], view.verified)
    on(view.close, on_close, [view.reason, view.typed], view.closed)
    on(view.export, on_export, [], view.exported)
    on(view.analyse, on_analyse, [], view.report)
    view.token.change(None, [view.token], None, js=KEEP)
    view.code.submit(
        partial(on_enter, study, view), [view.token, view.code], every, concurrency_id="coordinator",
        api_visibility="private", show_progress_on=view.refused,
    )  # fmt: skip


def resume_on_load(page: gr.Blocks, tabs: gr.Tabs, study: Study, view: CoordinatorView) -> None:
    """After a refresh of `page` the coordinator who is signed in is back in the room, without the code."""
    every = [getattr(view, name) for name in CoordinatorView.__dataclass_fields__]
    page.load(
        partial(on_resume, study, view, tabs), [view.token], [tabs, *every], js=GIVE_BACK, api_visibility="private",
        show_progress="hidden",
    )  # fmt: skip


# --- handlers -----------------------------------------------------------------------------------------------------


def on_enter(study: Study, view: CoordinatorView, token: str | None, code: str | None) -> Updates:
    """The coordinator's code -> the room behind it."""
    if not (code or "").strip():
        return {view.refused: alert("Type the coordinator code.")}
    try:
        token = study.sign_in(code or "", coordinator=True)
    except SignInError as problem:
        return {view.refused: alert(sentence(problem)), view.code: ""}
    return _inside(study, view, token)


def on_resume(study: Study, view: CoordinatorView, tabs: gr.Tabs, token: str | None) -> Updates:
    """The room again, and its tab, for a token that the browser kept and that is still good."""
    if not token:
        return {view.token: ""}
    return _asked(
        study, view, token, view.refused, lambda _: {tabs: gr.Tabs(selected=TAB), **_inside(study, view, token)}
    )


def on_leave(study: Study, view: CoordinatorView, token: str | None) -> Updates:
    if token:
        study.sign_out(token)
    return _outside(view, SIGNED_OUT)


def on_refresh(study: Study, view: CoordinatorView, token: str | None) -> Updates:
    return _asked(study, view, token, view.status, lambda desk: _progress(desk, study, view))


def on_enrol(study: Study, view: CoordinatorView, token: str | None, number: float | None, site: str | None) -> Updates:
    """New readers; their codes are on the page this once."""

    def work(desk: Coordinator) -> Updates:
        if not (site or "").strip():
            raise StudyRequestError("name the site of the readers, such as the hospital")
        enrolled = study.enrol(int(number or 0), site or "")
        return {view.codes: codes_once(enrolled), **_progress(desk, study, view)}

    return _asked(study, view, token, view.codes, work)


def on_renew(study: Study, view: CoordinatorView, token: str | None, reader: str | None) -> Updates:
    """A new code for one reader; it is on the page this once."""

    def work(desk: Coordinator) -> Updates:
        if not reader:
            raise StudyRequestError("choose the reader whose code was lost")
        return {view.renewed: codes_once([study.renew_code(reader)]), view.lost: None}

    return _asked(study, view, token, view.renewed, work)


def on_verify(study: Study, view: CoordinatorView, token: str | None, receipts: str | None) -> Updates:
    given = [line.strip() for line in (receipts or "").splitlines() if line.strip()]
    return _asked(
        study, view, token, view.verified, lambda desk: {view.verified: found(desk.verify(given), len(given))}
    )


def on_close(study: Study, view: CoordinatorView, token: str | None, reason: str | None, typed: str | None) -> Updates:
    """Closes the study, where its name was typed."""

    def work(desk: Coordinator) -> Updates:
        if (typed or "").strip() != study.name:
            raise StudyRequestError(f"type {study.name} to confirm that the study is to be closed for good")
        desk.close(reason or "")
        said = f"The study is closed. Keep the receipt of it, for verifying: {desk.receipt()}"
        return {view.closed: note(said), view.typed: "", **_progress(desk, study, view)}

    return _asked(study, view, token, view.closed, work)


def on_export(study: Study, view: CoordinatorView, token: str | None) -> Updates:
    def work(desk: Coordinator) -> Updates:
        archive = zipped(lambda folder: desk.export(folder))
        return {view.exported: link(archive, f"{study.name}.zip", "Save the export (zip)")}

    return _asked(study, view, token, view.exported, work)


def on_analyse(study: Study, view: CoordinatorView, token: str | None) -> Updates:
    """The analysis that the plan fixed: its report on the page, and everything as one archive."""

    def work(desk: Coordinator) -> Updates:
        return {view.report: analysed(desk, study.name)}

    return _asked(study, view, token, view.report, work)


def _asked(
    study: Study, view: CoordinatorView, token: str | None, place: gr.HTML, work: Callable[[Coordinator], Updates]
) -> Updates:
    """What `work` gives, if it is the coordinator who asks; problems are told at `place`."""
    try:
        return work(Coordinator.of(study, token or ""))
    except SessionExpiredError as problem:
        return _outside(view, alert(sentence(problem)))
    except (StudyRequestError, ReceiptError) as problem:
        return {place: alert(sentence(problem))}


def _inside(study: Study, view: CoordinatorView, token: str) -> Updates:
    shown = {view.door: gr.update(visible=False), view.room: gr.update(visible=True), view.refused: "", view.code: ""}
    return {**shown, view.token: token, **_progress(Coordinator.of(study, token), study, view)}


def _progress(desk: Coordinator, study: Study, view: CoordinatorView) -> Updates:
    """How far the readers are, and who of them can be given a new code."""
    rows = desk.status()
    return {
        view.status: status(rows, desk.is_closed, study),
        view.lost: gr.update(choices=[row.reader for row in rows if row.state != "withdrawn"]),
    }


def _outside(view: CoordinatorView, words: str) -> Updates:
    """Back to the door; nothing stays on the page."""
    shown = {view.door: gr.update(visible=True), view.room: gr.update(visible=False), view.refused: words}
    return {**shown, view.token: "", **dict.fromkeys(view.secrets, "")}


# --- what is shown ------------------------------------------------------------------------------------------------


def alert(words: str) -> str:
    return f'<section class="sk-card sk-alert" role="alert"><p>{escape(words)}</p></section>'


def note(words: str) -> str:
    return f'<p class="sk-ok" role="status">{escape(words)}</p>'


def status(rows: Sequence[ReaderProgress], closed: bool, study: Study) -> str:
    """How far the readers are; of a study that is open, nothing of what they answered."""
    state = (
        "Closed. Arms and truth may be seen: export or analyse below."
        if closed
        else "Open. Until it is closed everyone stays blinded: there is progress and time here, and no answer."
    )
    counts = {name: sum(row.state == name for row in rows) for name in ("enrolled", "in progress", "completed")}
    listed = " · ".join(f"{count} {name}" for name, count in counts.items() if count) or "nobody is enrolled yet"
    needed = study.protocol.completion.min_readers
    rehearsal = f"<p>{study_html.REHEARSAL}</p>" if study.protocol.rehearsal else ""
    return (
        f'<section class="sk-card sk-status"><h2>{escape(study.protocol.title)}</h2>{rehearsal}'
        f'<p class="sk-note">{escape(study.name)} · {len(rows)} readers: {listed}; the protocol asks for {needed} to '
        f"complete</p><p>{state}</p>{_table(rows)}"
        "</section>"
    )


COLUMNS = ("Reader", "Site", "State", "Steps", "Cases", "Left out", "Minutes", "Seconds a case", "Last answer")


def _table(rows: Sequence[ReaderProgress]) -> str:
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
    body = "".join(_row(row) for row in rows)
    return (
        '<div class="sk-scroll" tabindex="0" role="group" aria-label="Progress of the readers"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(row: ReaderProgress) -> str:
    pace = "" if row.seconds_a_case is None else f"{row.seconds_a_case:.0f}"
    bar = (
        f'<progress max="{row.steps_total or 1}" value="{row.steps}" aria-hidden="true"></progress> '
        f"{row.steps} of {row.steps_total}"
    )
    cells = (escape(row.site), row.state, bar, f"{row.cases} of {row.cases_total}", str(row.left_out),
             f"{row.minutes:.0f}", pace, _when(row.last_answer_at))  # fmt: skip
    return f'<tr><th scope="row">{escape(row.reader)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _when(moment: str) -> str:
    return datetime.fromisoformat(moment).strftime("%d %b %Y, %H:%M UTC") if moment else ""


def codes_once(enrolled: Sequence[EnrolledReader]) -> str:
    """The new codes, to be handed on now: only a hash of each is kept."""
    one = len(enrolled) == 1
    rows = "".join(
        f'<tr><th scope="row">{escape(new.reader)}</th><td><code>{escape(new.code)}</code></td></tr>'
        for new in enrolled
    )
    text = io.StringIO()
    csv.writer(text).writerows([("reader", "code"), *((new.reader, new.code) for new in enrolled)])
    return (
        f'<section class="sk-card sk-caution"><h2>{"This code is" if one else "These codes are"} shown once</h2>'
        f"<p>Give {'it to the reader' if one else 'each reader one'}, now. A lost code cannot be shown again, but it "
        'can be renewed.</p><table class="sk-codes"><thead><tr><th scope="col">Reader</th><th scope="col">Code</th>'
        f"</tr></thead><tbody>{rows}</tbody></table>"
        f"{link(text.getvalue().encode(), 'codes.csv', 'Save as CSV', 'text/csv')}</section>"
    )


def found(problems: Sequence[Problem], receipts: int) -> str:
    """What the check of the log found."""
    if not problems:
        against = f", and it fits {'the receipt' if receipts == 1 else f'all {receipts} receipts'}" if receipts else ""
        return note(f"The log is whole: no answer was lost, changed or moved{against}.")
    listed = "".join(f"<li>{escape(str(problem))}</li>" for problem in problems)
    return (
        '<section class="sk-card sk-alert" role="alert"><h2>The log is not as it was written</h2>'
        f"<ul>{listed}</ul></section>"
    )


def analysed(desk: Coordinator, name: str) -> str:
    """The report in a frame of its own, which runs no script, and all files of the analysis as one archive."""
    report = ""

    def work(folder: Path) -> None:
        nonlocal report
        report = desk.analyse(folder)["report.html"].read_text(encoding="utf-8")

    archive = zipped(work)
    frame = f'<iframe class="sk-report" title="Report" sandbox="" srcdoc="{escape(report)}"></iframe>'
    return link(archive, f"{name}-analysis.zip", "Save the report and its figures (zip)") + frame


def zipped(work: Callable[[Path], Any]) -> bytes:
    """Everything that `work` writes into a folder, as a zip in memory; the folder goes at once."""
    data = io.BytesIO()
    with tempfile.TemporaryDirectory() as place, zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        work(Path(place))
        for file in sorted(Path(place).rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(place))
    return data.getvalue()


def link(data: bytes, name: str, words: str, kind: str = "application/zip") -> str:
    """A link that saves `data` straight from the page."""
    address = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return f'<a class="sk-download" download="{escape(name)}" href="{address}">{escape(words)}</a>'
