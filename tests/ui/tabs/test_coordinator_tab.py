"""The coordinator's tab without a browser: who may do what, and what is shown of it."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import zipfile
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from skinclip.study.coordinator import Coordinator, ReaderProgress
from skinclip.study.errors import SessionExpiredError, StudyRequestError
from skinclip.study.store.audit_log import Audit, Head, Problem
from skinclip.ui import coordinator_html
from skinclip.ui.tabs import coordinator_tab as tab
from tests.ui.fake_study import CODE, FakeStudy

ROW = ReaderProgress("R001", "Site <A>", "in progress", 12, 30, 4, 8, 1, 7.4, 41.2, "2026-11-24T10:00:00+00:00", "")


class Desk:
    """A coordinator in whose study one reader is half way."""

    is_closed = False
    site: str | None = None
    study: Any = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()

    def status(self) -> list[ReaderProgress]:
        return [ROW]

    def enrol(self, readers: int, site: str) -> Any:
        return Coordinator(self.study, self.site).enrol(readers, site)

    def renew_code(self, reader: str) -> Any:
        return self.study.renew_code(reader)

    def site_coordinator_code(self, site: str) -> str:
        return f"{CODE}-{site}"

    def audit(self, receipts: list[str]) -> Audit:
        return Audit("fake-v1", 9, 0, Head(), self.problems, self.warnings)

    def close(self, reason: str) -> None:
        if not reason:
            raise StudyRequestError("1 readers have completed, and the protocol asks for 20")
        self.is_closed = True

    def receipt(self) -> str:
        return "fake-v1:9:AAAA"

    def export(self, folder: Path) -> None:
        if not self.is_closed:
            raise StudyRequestError("its data can be seen once the study is closed")
        (folder / "cases.csv").write_text("reader,case\n")

    def analyse(self, folder: Path) -> dict[str, Path]:
        (folder / "report.html").write_text('<h1 class="x">Report</h1>')
        return {"report.html": folder / "report.html"}


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    one = Desk()

    def of(study: Any, token: str) -> Desk:
        if token != "token":
            raise SessionExpiredError
        one.study = study
        return one

    monkeypatch.setattr(tab.Coordinator, "of", of)
    return one


@pytest.fixture
def study() -> Any:
    return FakeStudy()


@pytest.fixture
def view(study: Any) -> tab.CoordinatorView:
    async def build() -> tab.CoordinatorView:
        with gr.Blocks():
            return tab.build(study)

    return asyncio.run(build())


def test_the_code_opens_the_room(study: Any, view: tab.CoordinatorView, desk: Desk) -> None:
    assert "not known" in tab.on_enter(study, view, None, "WRONG")[view.refused]
    assert "Type the coordinator code" in tab.on_enter(study, view, None, " ")[view.refused]
    opened = tab.on_enter(study, view, None, CODE)
    assert opened[view.token] == "token" and opened[view.code] == "" and "12 of 30" in opened[view.status]
    assert "Site &lt;A&gt;" in opened[view.status] and "stays blinded" in opened[view.status]


def test_a_rehearsal_is_told(study: Any) -> None:
    assert "Rehearsal" not in coordinator_html.status([], False, study)
    study.protocol = SimpleNamespace(**{**vars(study.protocol), "rehearsal": True})
    assert "Rehearsal, not a study" in coordinator_html.status([], False, study)


def test_without_a_sign_in_nothing_is_shown_or_done(study: Any, view: tab.CoordinatorView, desk: Desk) -> None:
    for handler, given in (
        (tab.on_refresh, ()),
        (tab.on_enrol, (1, "Bern")),
        (tab.on_renew, ("R001",)),
        (tab.on_remind, ("https://host/", "en")),
        (tab.on_give, ("Bern",)),
        (tab.on_verify, ("",)),
        (tab.on_close, ("why", study.name)),
        (tab.on_export, ()),
        (tab.on_analyse, ()),
    ):
        for token in (None, "", "guess"):
            updates = handler(study, view, token, *given)  # type: ignore[operator]
            assert "sign-in has ended" in updates[view.refused] and updates[view.token] == ""
            assert all(updates[place] == "" for place in view.secrets)
    assert not desk.is_closed


def test_new_codes_are_shown_once_and_can_be_saved(study: Any, view: tab.CoordinatorView, desk: Desk) -> None:
    assert "name the site" in tab.on_enrol(study, view, "token", 2, " ")[view.codes].lower()
    html = tab.on_enrol(study, view, "token", 2, "Bern")[view.codes]
    assert "shown once" in html and html.count(CODE) == 2
    saved = base64.b64decode(re.search(r'base64,([^"]+)', html)[1]).decode()  # type: ignore[index]
    assert saved.splitlines() == ["reader,code", f"R001,{CODE}", f"R002,{CODE}"]
    assert tab.on_leave(study, view, "token")[view.codes] == ""


def test_refusals_are_in_the_language_of_the_study(study: Any, view: tab.CoordinatorView, desk: Desk) -> None:
    study.protocol = SimpleNamespace(**{**vars(study.protocol), "languages": ("de", "en")})
    assert "Nennen Sie den Standort" in tab.on_enrol(study, view, "token", 2, " ")[view.codes]
    assert "Ihre Anmeldung ist abgelaufen" in tab.on_enrol(study, view, "guess", 2, "Bern")[view.refused]
    # what the catalogue does not have is told in full, in English
    assert "1 readers have completed" in tab.on_close(study, view, "token", "", study.name)[view.closed]


def test_invitations_and_reminders_are_archives_on_the_page(
    study: Any, view: tab.CoordinatorView, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        tab, "invitations", lambda study, new, url, language: [(o.reader, f"{url} {o.code}") for o in new]
    )
    html = tab.on_enrol(study, view, "token", 2, "Bern", "https://host/", "de")[view.codes]
    archive = base64.b64decode(re.findall(r'base64,([^"]+)', html)[1])
    assert zipfile.ZipFile(io.BytesIO(archive)).read("R002-invitation.txt").decode() == f"https://host/ {CODE}"
    enrolled: list[int] = []
    study.enrol = lambda number, site: enrolled.append(number) or []
    assert "no address of a page" in tab.on_enrol(study, view, "token", 2, "Bern", "host", "de")[view.codes]
    assert not enrolled, "nobody is enrolled whose letter could not be written"

    def write(study: Any, folder: Path, url: str, language: str, site: str | None) -> list[Path]:
        (folder / "R001-reminder.txt").write_text(f"{url} {language} {site}")
        return [folder / "R001-reminder.txt"]

    monkeypatch.setattr(tab, "write_reminders", write)
    desk.site = "Bern"
    html = tab.on_remind(study, view, "token", "https://host", "es")[view.reminded]
    archive = base64.b64decode(re.findall(r'base64,([^"]+)', html)[0])
    assert zipfile.ZipFile(io.BytesIO(archive)).read("R001-reminder.txt") == b"https://host/ es Bern"
    assert "no address" in tab.on_remind(study, view, "token", "", "es")[view.reminded]


def test_a_site_s_coordinator_sees_the_part_about_readers_alone(
    study: Any, view: tab.CoordinatorView, desk: Desk
) -> None:
    opened = tab.on_enter(study, view, None, CODE)
    assert (
        opened[view.lead]["visible"] and "site" not in opened[view.status].lower().split("<table>")[0].split("</h2>")[1]
    )
    given = tab.on_give(study, view, "token", "<Bern>")
    assert f"{CODE}-&lt;Bern&gt;" in given[view.given] and given[view.own_site] == ""
    desk.site = "<Bern>"
    opened = tab.on_enter(study, view, None, CODE)
    assert not opened[view.lead]["visible"] and "You coordinate the site &lt;Bern&gt;" in opened[view.status]
    assert opened[view.site] == {"value": "<Bern>", "interactive": False, "__type__": "update"}
    left = tab.on_leave(study, view, "token")
    assert left[view.site] == {"value": "", "interactive": True, "__type__": "update"}


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("de", ("Code der Koordination", "Offen.", "1 unterwegs")),
        ("es", ("Código de coordinación", "Abierto.", "1 en curso")),
    ],
)
def test_the_tab_is_in_the_study_s_first_language(desk: Desk, language: str, words: tuple[str, ...]) -> None:
    study: Any = FakeStudy()
    spoken = SimpleNamespace(title="Titel")
    study.protocol = SimpleNamespace(
        **{**vars(study.protocol), "languages": (language, "en"), "in_language": lambda code: spoken}
    )

    async def build() -> tab.CoordinatorView:
        with gr.Blocks():
            return tab.build(study)

    view = asyncio.run(build())
    html = tab.on_enter(study, view, None, CODE)[view.status]
    assert view.code.label == words[0] and words[1] in html and words[2] in html and "Titel" in html
    assert "fake-v1" in tab.on_close(study, view, "token", "", "")[view.closed]


def test_a_lost_code_is_renewed(study: Any, view: tab.CoordinatorView, desk: Desk) -> None:
    opened = tab.on_enter(study, view, None, CODE)
    assert opened[view.lost]["choices"] == ["R001"]
    assert "choose the reader" in tab.on_renew(study, view, "token", None)[view.renewed].lower()
    assert "no reader R009" in tab.on_renew(study, view, "token", "R009")[view.renewed]
    updates = tab.on_renew(study, view, "token", "R001")
    assert "0000-1111-2222" in updates[view.renewed] and "This code is shown once" in updates[view.renewed]
    assert updates[view.lost] is None and tab.on_leave(study, view, "token")[view.renewed] == ""


def test_a_kept_token_opens_the_room_and_its_tab_again(study: Any, view: tab.CoordinatorView, desk: Desk) -> None:
    tabs = gr.Tabs(render=False)
    opened = tab.on_resume(study, view, tabs, "token")
    assert "12 of 30" in opened[view.status] and opened[view.token] == "token" and opened[tabs].selected == tab.TAB
    assert view.status not in tab.on_resume(study, view, tabs, "")
    ended = tab.on_resume(study, view, tabs, "ended")
    assert ended[view.status] == "" and tabs not in ended and "sign-in has ended" in ended[view.refused]


def test_closing_needs_the_study_s_name(study: Any, view: tab.CoordinatorView, desk: Desk) -> None:
    assert "type fake-v1" in tab.on_close(study, view, "token", "why", "fake")[view.closed].lower()
    assert "protocol asks for 20" in tab.on_close(study, view, "token", "", "fake-v1")[view.closed]
    assert not desk.is_closed
    updates = tab.on_close(study, view, "token", "why", "fake-v1")
    assert (
        desk.is_closed
        and "is closed" in updates[view.closed]
        and "fake-v1:9:AAAA" in updates[view.closed]
        and "Closed." in updates[view.status]
    )


def test_the_log_s_problems_are_listed(study: Any, view: tab.CoordinatorView, desk: Desk) -> None:
    assert "fits the receipt" in tab.on_verify(study, view, "token", "a receipt\n\n")[view.verified]
    desk.problems = (Problem("edited", 3, "event 3 was <edited>"),)
    html = tab.on_verify(study, view, "token", "")[view.verified]
    assert "event 3 was &lt;edited&gt;" in html and "not as it was written" in html
    desk.problems, desk.warnings = (), (Problem("clock", 4, "the clock was <set> back"),)
    html = tab.on_verify(study, view, "token", "")[view.verified]
    assert "The log is whole" in html and "the clock was &lt;set&gt; back" in html


def test_export_and_report_are_made_in_memory(study: Any, view: tab.CoordinatorView, desk: Desk) -> None:
    assert "once the study is closed" in tab.on_export(study, view, "token")[view.exported]
    desk.is_closed = True
    html = tab.on_export(study, view, "token")[view.exported]
    data = base64.b64decode(re.search(r'base64,([^"]+)', html)[1])  # type: ignore[index]
    assert zipfile.ZipFile(io.BytesIO(data)).read("cases.csv") == b"reader,case\n"
    report = tab.on_analyse(study, view, "token")[view.report]
    assert 'sandbox=""' in report and "&lt;h1 class=&#34;x&#34;&gt;" in report


def test_every_component_of_the_view_is_named_once(view: tab.CoordinatorView) -> None:
    assert len({id(getattr(view, f.name)) for f in fields(view)}) == len(fields(view))
