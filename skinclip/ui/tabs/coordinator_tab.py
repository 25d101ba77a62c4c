"""The tab of a study's coordinator: progress, enrolment, closing, checking the log, export and analysis.

The coordinator of a site sees the part about readers alone, and the site's own.

Handlers are plain functions; each asks the study anew whether the token that the browser sends is the coordinator's. As
with readers, the token lies in the browser tab's own sessionStorage, so that a refresh needs no code. Nothing is served
as a file: new codes, the export and the report are part of the reply to the one who asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from skinclip.study.catalogue.catalogue import ENGLISH, Words, language_name, problem_in
from skinclip.study.coordinator import Coordinator
from skinclip.study.errors import (
    ReceiptError,
    SessionExpiredError,
    SignInError,
    StoreError,
    StudyRequestError,
    TamperedError,
)
from skinclip.study.letters import check_address, invitations, write_reminders
from skinclip.study.session.session_service import Study
from skinclip.ui import coordinator_html
from skinclip.ui.client_address import client_address
from skinclip.ui.coordinator_html import words_of
from skinclip.ui.tabs.study_tab import sentence

# Runs in the browser: the token of the sign-in is kept in this tab alone, and given back once the page is loaded anew.
KEPT = "study-coordinator"
KEEP = f"(token) => token ? sessionStorage.setItem('{KEPT}', token) : sessionStorage.removeItem('{KEPT}')"
# The page's address for letters, where others can reach it.
HERE = "() => /^(localhost|127\\.|\\[::1)/.test(location.host) ? '' : location.origin + location.pathname"
GIVE_BACK = f"() => sessionStorage.getItem('{KEPT}') || ''"
TAB = "coordinator"  # id of the tab that this is built in
Updates = dict[Any, Any]


@dataclass(frozen=True)
class CoordinatorView:
    """The tab's components; `token` carries the sign-in, unseen, from the browser to every handler."""

    sign_in: gr.Column
    code: gr.Textbox
    enter: gr.Button
    refused: gr.HTML
    desk: gr.Column
    status: gr.HTML
    refresh: gr.Button
    leave: gr.Button
    number: gr.Number
    site: gr.Textbox
    address: gr.Textbox
    language: gr.Dropdown
    enrol: gr.Button
    codes: gr.HTML
    remind: gr.Button
    reminded: gr.HTML
    lost: gr.Dropdown
    renew: gr.Button
    renewed: gr.HTML
    lead: gr.Column
    own_site: gr.Textbox
    give: gr.Button
    given: gr.HTML
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
        """Parts that must not stay on the page after the coordinator has left it."""
        shown = [self.status, self.codes, self.reminded, self.renewed, self.given, self.verified]
        return [*shown, self.closed, self.exported, self.report]


def build(study: Study) -> CoordinatorView:
    """Lays out the tab inside the current Blocks and wires its events."""
    t = words_of(study)
    with gr.Column(elem_classes="sk-desk-signin") as sign_in:
        gr.HTML(coordinator_html.sign_in(t))
        code = gr.Textbox(label=t("code"), type="password", max_lines=1, elem_id="coordinator-code")
        enter = gr.Button(t("sign_in"), variant="primary", elem_id="coordinator-enter")
        refused = gr.HTML(elem_id="coordinator-refused")
    with gr.Column(visible=False, elem_classes="sk-room") as desk:
        with gr.Row():
            refresh = gr.Button(t("refresh"), size="md", scale=0, min_width=140, elem_id="study-refresh")
            leave = gr.Button(t("sign_out"), size="md", scale=0, min_width=140, elem_id="coordinator-leave")
        status = gr.HTML(elem_id="study-status")
        readers = _readers_part(study, t)
        with gr.Column() as lead:
            study_part = _study_part(study, t)
    token = gr.Textbox(visible="hidden")
    view = CoordinatorView(
        sign_in=sign_in, code=code, enter=enter, refused=refused, desk=desk, status=status, refresh=refresh,
        leave=leave, lead=lead, token=token, **readers, **study_part,
    )  # fmt: skip
    _wire(study, view)
    return view


def _readers_part(study: Study, t: Words) -> dict[str, Any]:
    """Enrolment, reminders and lost codes: for the study's coordinator, and for those of sites."""
    offered = [(language_name(code), code) for code in study.protocol.languages]
    with gr.Accordion(t("enrol_heading"), open=False):
        with gr.Row():
            number = gr.Number(1, label=t("number"), precision=0, minimum=1, maximum=200, min_width=120)
            site = gr.Textbox(label=t("site"), placeholder=t("site_example"), max_lines=1, max_length=120)
        gr.HTML(coordinator_html.aside(t("letters_text")))
        with gr.Row():
            address = gr.Textbox(
                label=t("address"), max_lines=1, max_length=500,
                placeholder="https://HOST/", elem_id="study-address",
            )  # fmt: skip
            language = gr.Dropdown(offered, value=offered[0][1], label=t("letter_language"))
        enrol = gr.Button(t("enrol"), elem_id="study-enrol")
        codes = gr.HTML(elem_id="study-codes")
        remind = gr.Button(t("remind"), elem_id="study-remind")
        reminded = gr.HTML(elem_id="study-reminded")
    with gr.Accordion(t("renew_heading"), open=False):
        gr.HTML(coordinator_html.paragraph(t("renewal")))
        lost = gr.Dropdown([], label=t("reader"), interactive=True, elem_id="study-lost")
        renew = gr.Button(t("renew"), elem_id="study-renew")
        renewed = gr.HTML(elem_id="study-renewed")
    return {
        "number": number, "site": site, "address": address, "language": language, "enrol": enrol, "codes": codes,
        "remind": remind, "reminded": reminded, "lost": lost, "renew": renew, "renewed": renewed,
    }  # fmt: skip


def _study_part(study: Study, t: Words) -> dict[str, Any]:
    """Everything that is for the study's coordinator alone."""
    with gr.Accordion(t("sites_heading"), open=False):
        gr.HTML(coordinator_html.paragraph(t("sites_text")))
        own_site = gr.Textbox(label=t("site"), max_lines=1, max_length=120, elem_id="study-own-site")
        give = gr.Button(t("give"), elem_id="study-give")
        given = gr.HTML(elem_id="study-given")
    with gr.Accordion(t("check_heading"), open=False):
        receipts = gr.Textbox(label=t("receipts"), lines=3)
        verify = gr.Button(t("check"), elem_id="study-verify")
        verified = gr.HTML(elem_id="study-verified")
    with gr.Accordion(t("close_heading"), open=False):
        gr.HTML(coordinator_html.paragraph(t("closing", name=study.name)))
        reason = gr.Textbox(label=t("reason"), max_lines=2, max_length=500)
        typed = gr.Textbox(label=t("typed"), max_lines=1, elem_id="study-typed")
        close = gr.Button(t("close"), variant="stop", elem_id="study-close")
        closed = gr.HTML(elem_id="study-closed")
    with gr.Accordion(t("export_heading"), open=False):
        with gr.Row():
            export = gr.Button(t("export"), elem_id="study-export")
            analyse = gr.Button(t("analyse"), elem_id="study-analyse")
        exported, report = gr.HTML(elem_id="study-exported"), gr.HTML(elem_id="study-report")
    return {
        "own_site": own_site, "give": give, "given": given, "receipts": receipts, "verify": verify,
        "verified": verified, "reason": reason, "typed": typed, "close": close, "closed": closed, "export": export,
        "exported": exported, "analyse": analyse, "report": report,
    }  # fmt: skip


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

    def enter(token: str | None, code: str | None, request: gr.Request) -> Updates:
        return on_enter(study, view, token, code, client_address(request.request) if request.request else "")

    for event in (view.enter.click, view.code.submit):
        event(
            enter, [view.token, view.code], every, concurrency_id="coordinator", concurrency_limit=4,
            api_visibility="private", show_progress_on=view.refused,
        )  # fmt: skip
    on(view.refresh, on_refresh, [], view.status)
    on(view.leave, on_leave, [], view.status)
    on(view.enrol, on_enrol, [view.number, view.site, view.address, view.language], view.codes)
    on(view.remind, on_remind, [view.address, view.language], view.reminded)
    on(view.give, on_give, [view.own_site], view.given)
    on(view.renew, on_renew, [view.lost], view.renewed)
    on(view.verify, on_verify, [view.receipts], view.verified)
    on(view.close, on_close, [view.reason, view.typed], view.closed)
    on(view.export, on_export, [], view.exported)
    on(view.analyse, on_analyse, [], view.report)
    view.token.change(None, [view.token], None, js=KEEP)


def resume_on_load(page: gr.Blocks, tabs: gr.Tabs, study: Study, view: CoordinatorView) -> None:
    """After a refresh of `page` the coordinator who is signed in is signed in again, without the code."""
    every = [getattr(view, name) for name in CoordinatorView.__dataclass_fields__]
    page.load(
        partial(on_resume, study, view, tabs), [view.token], [tabs, *every], js=GIVE_BACK, api_visibility="private",
        show_progress="hidden",
    )  # fmt: skip
    page.load(None, None, [view.address], js=HERE)


# --- handlers -----------------------------------------------------------------------------------------------------


def on_enter(study: Study, view: CoordinatorView, token: str | None, code: str | None, address: str = "") -> Updates:
    """The coordinator's code -> the coordinator's desk."""
    if not (code or "").strip():
        return {view.refused: coordinator_html.alert(words_of(study)("type_code"))}
    try:
        token = study.sign_in(code or "", coordinator=True, address=address)
    except (SignInError, TamperedError) as problem:
        return {view.refused: coordinator_html.alert(told(study, problem)), view.code: ""}
    return _inside(study, view, token)


def on_resume(study: Study, view: CoordinatorView, tabs: gr.Tabs, token: str | None) -> Updates:
    """The desk again, and its tab, for a token that the browser kept and that is still good."""
    if not token:
        return {view.token: ""}
    return _asked(
        study, view, token, view.refused, lambda _: {tabs: gr.Tabs(selected=TAB), **_inside(study, view, token)}
    )


def on_leave(study: Study, view: CoordinatorView, token: str | None) -> Updates:
    """Signs the coordinator out and clears the page."""
    if token:
        study.sign_out(token)
    return _outside(view, coordinator_html.signed_out(words_of(study)))


def on_refresh(study: Study, view: CoordinatorView, token: str | None) -> Updates:
    """Reads the readers' progress anew."""
    return _asked(study, view, token, view.status, lambda desk: _progress(desk, study, view))


def on_enrol(
    study: Study, view: CoordinatorView, token: str | None, number: float | None, site: str | None, *letter: str | None
) -> Updates:
    """New readers; their codes are on the page this once, with invitations where `letter` has address and language."""
    address, language = (*letter, None, None)[:2]

    def work(desk: Coordinator) -> Updates:
        if (address or "").strip():
            check_address(address or "")  # before anybody is enrolled whose letter could not be written
        enrolled = desk.enrol(int(number or 0), site or "")
        texts = invitations(study, enrolled, address or "", language or ENGLISH) if (address or "").strip() else ()
        return {
            view.codes: coordinator_html.codes_once(words_of(study), enrolled, texts),
            **_progress(desk, study, view),
        }

    return _asked(study, view, token, view.codes, work)


def on_remind(
    study: Study, view: CoordinatorView, token: str | None, address: str | None, language: str | None
) -> Updates:
    """Reminders to the readers who have not finished, as one archive."""

    def work(desk: Coordinator) -> Updates:
        url, count = check_address(address or ""), 0

        def write(folder: Path) -> None:
            nonlocal count
            count = len(write_reminders(study, folder, url, language or ENGLISH, desk.site))

        archive, t = coordinator_html.zipped(write), words_of(study)
        if not count:
            return {view.reminded: coordinator_html.note(t("no_reminder"))}
        return {view.reminded: coordinator_html.link(archive, "reminders.zip", t("save_reminders"))}

    return _asked(study, view, token, view.reminded, work)


def on_renew(study: Study, view: CoordinatorView, token: str | None, reader: str | None) -> Updates:
    """A new code for one reader; it is on the page this once."""

    def work(desk: Coordinator) -> Updates:
        t = words_of(study)
        if not reader:
            raise StudyRequestError(t("choose_reader"))
        return {view.renewed: coordinator_html.codes_once(t, [desk.renew_code(reader)]), view.lost: None}

    return _asked(study, view, token, view.renewed, work)


def on_give(study: Study, view: CoordinatorView, token: str | None, site: str | None) -> Updates:
    """A new code for a site's own coordinator; it is on the page this once."""

    def work(desk: Coordinator) -> Updates:
        code = desk.site_coordinator_code(site or "")
        return {
            view.given: coordinator_html.site_code(words_of(study), (site or "").strip(), code),
            view.own_site: "",
        }

    return _asked(study, view, token, view.given, work)


def on_verify(study: Study, view: CoordinatorView, token: str | None, receipts: str | None) -> Updates:
    """Checks the log, and that the receipts given are of it."""
    given = [line.strip() for line in (receipts or "").splitlines() if line.strip()]

    def work(desk: Coordinator) -> Updates:
        return {view.verified: coordinator_html.log_check(words_of(study), desk.audit(given), len(given))}

    return _asked(study, view, token, view.verified, work)


def on_close(study: Study, view: CoordinatorView, token: str | None, reason: str | None, typed: str | None) -> Updates:
    """Closes the study, where its name was typed."""

    def work(desk: Coordinator) -> Updates:
        t = words_of(study)
        if (typed or "").strip() != study.name:
            raise StudyRequestError(t("type_name", name=study.name))
        desk.close(reason or "")
        message = coordinator_html.note(t("closed_receipt", receipt=desk.receipt()))
        return {view.closed: message, view.typed: "", **_progress(desk, study, view)}

    return _asked(study, view, token, view.closed, work)


def on_export(study: Study, view: CoordinatorView, token: str | None) -> Updates:
    """Makes the export of a closed study, as one archive."""

    def work(desk: Coordinator) -> Updates:
        archive = coordinator_html.zipped(lambda folder: desk.export(folder))
        return {view.exported: coordinator_html.link(archive, f"{study.name}.zip", words_of(study)("save_export"))}

    return _asked(study, view, token, view.exported, work)


def on_analyse(study: Study, view: CoordinatorView, token: str | None) -> Updates:
    """The analysis that the plan fixed: its report on the page, and everything as one archive."""

    def work(desk: Coordinator) -> Updates:
        return {view.report: coordinator_html.analysis(words_of(study), desk, study.name)}

    return _asked(study, view, token, view.report, work)


def _asked(
    study: Study, view: CoordinatorView, token: str | None, place: gr.HTML, work: Callable[[Coordinator], Updates]
) -> Updates:
    """Runs `work` if it is the coordinator who asks; problems are shown at `place`."""
    try:
        return work(Coordinator.of(study, token or ""))
    except SessionExpiredError as problem:
        return _outside(view, coordinator_html.alert(told(study, problem)))
    except (StudyRequestError, ReceiptError, StoreError) as problem:
        return {place: coordinator_html.alert(told(study, problem))}


def told(study: Study, problem: Exception) -> str:
    """A refusal in the tab's language where the catalogue has it; else in English, which says what to do in full."""
    return sentence(problem_in(problem, words_of(study).language, str(problem)))


def _inside(study: Study, view: CoordinatorView, token: str) -> Updates:
    updates = {
        view.sign_in: gr.update(visible=False),
        view.desk: gr.update(visible=True),
        view.refused: "",
        view.code: "",
    }
    return {**updates, view.token: token, **_progress(Coordinator.of(study, token), study, view)}


def _progress(desk: Coordinator, study: Study, view: CoordinatorView) -> Updates:
    """How far the readers are, and who of them can be given a new code."""
    rows = desk.status()
    own = gr.update() if desk.site is None else gr.update(value=desk.site, interactive=False)
    return {
        view.status: coordinator_html.status(rows, desk.is_closed, study, desk.site),
        view.lead: gr.update(visible=desk.site is None),
        view.site: own,
        view.lost: gr.update(choices=[row.reader for row in rows if row.state != "withdrawn"]),
    }


def _outside(view: CoordinatorView, words: str) -> Updates:
    """Back to the sign-in; nothing stays on the page."""
    updates: Updates = {view.sign_in: gr.update(visible=True), view.desk: gr.update(visible=False), view.refused: words}
    updates[view.site] = gr.update(value="", interactive=True)
    return {**updates, view.token: "", **dict.fromkeys(view.secrets, "")}
