"""Hostile text through a study: what readers, coordinators and plans write comes out of every export as text."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from eval_study.trust_study import sessions
from skinclip.cli import main as cli
from skinclip.core.paths import TRUST_STUDY
from skinclip.core.safe_text import plain_text, safe_cell
from skinclip.study import interchange, letters
from skinclip.study.analysis import analysis_report
from skinclip.study.analysis.tables import StudyTables
from skinclip.study.coordinator import REMARKS_FILE, Coordinator
from skinclip.study.errors import ProtocolError, StudyRequestError
from skinclip.study.personal_data import reader_data
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.session.session_service import Study
from skinclip.study.session.steps import CONSENT
from skinclip.ui import coordinator_html
from tests.hostile_texts import TEXTS
from tests.study import studies
from tests.study.tiny import answer

NAMESPACE = {"odm": interchange.ODM_NAMESPACE}
RUNS = re.compile(r"<(script|img src=x|svg/)", re.IGNORECASE)
CONTROL = set("\r\0\x07\x0b\x0c\x1b\x85")


def cells(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def check_csv(path: Path, rows: int) -> None:
    """A table of so many rows and one width, without control characters, of which no text cell is a formula."""
    assert not CONTROL & set(path.read_bytes().decode()), path.name
    found = cells(path)
    assert len(found) == rows + 1 and {len(row) for row in found} == {len(found[0])}, path.name
    for cell in (cell for row in found for cell in row):
        number = re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", cell)
        assert number or not cell.lstrip(" \n\t\u200b\ufeff").startswith(("=", "+", "-", "@")), (path.name, cell)


@pytest.fixture
def tables() -> StudyTables:
    made = studies.study()
    kept = [text for text in TEXTS if "\ud800" not in text]  # which no table of pandas can hold; answers lose it
    remarks = [kept[i % len(kept)] for i in range(len(made.cases))]
    assert len(remarks) >= len(kept)
    return dataclasses.replace(made, cases=made.cases.assign(remark=remarks))


def test_tables_redcap_odm_and_parquet_keep_it_as_text(tables: StudyTables, tmp_path: Path) -> None:
    tables.write(tmp_path)
    interchange.write(tables, tmp_path)
    n = {name: len(getattr(tables, name)) for name in ("cases", "blocks", "preferences", "readers")}
    for name, rows in n.items():
        check_csv(tmp_path / f"{name}.csv", rows)
    check_csv(tmp_path / interchange.REDCAP_DATA, sum(n.values()))
    kept = pd.read_parquet(tmp_path / "cases.parquet")["remark"]
    assert list(kept) == list(tables.cases["remark"])
    tree = ET.parse(tmp_path / interchange.ODM_FILE)
    remarks = [one.get("Value") for one in tree.iterfind(".//odm:ItemData[@ItemOID='I.cases_remark']", NAMESPACE)]
    assert sorted(map(str, remarks)) == sorted(map(plain_text, tables.cases["remark"]))
    assert not any(text in (tmp_path / "scores.imrmc").read_text() for text in TEXTS)  # numbers and ids alone


def test_the_report_of_the_analysis_keeps_it_as_text(tables: StudyTables, tmp_path: Path) -> None:
    """What coordinators and protocols name: the study, its sites and cases, and the command that ran."""
    kept = [text for text in TEXTS if "\ud800" not in text and len(text) < 2000]

    def hostile(column: pd.Series) -> pd.Series:
        names = {name: f"{kept[i % len(kept)]}{i}" for i, name in enumerate(sorted(column.unique()))}
        return column.map(names)

    readers = tables.readers.assign(site=hostile(tables.readers["site"]))
    cases = tables.cases.assign(**{name: hostile(tables.cases[name]) for name in ("site", "case")})
    for i, text in enumerate(kept):
        changed = dataclasses.replace(tables, readers=readers, cases=cases, study=text)
        if i % 6 == 0:  # the whole analysis for a few, for it takes seconds
            written = analysis_report.write(changed, tmp_path / str(i), studies.PLAN, f"analyse {text}")
            for page in (path for path in written.values() if path.suffix in (".html", ".md", ".svg")):
                read = page.read_text(encoding="utf-8")
                assert not RUNS.search(read) and not CONTROL & set(read), page.name
            for script in (tmp_path / str(i) / "R").iterdir():
                assert not re.search("^(WARNING|=|[+]1|@SUM)", script.read_text(), re.MULTILINE), script.name


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of drawn photos that asks for a remark beside each unaided answer."""
    usual = sessions._protocol

    def with_remarks(cases: int) -> dict[str, Any]:
        values = usual(cases)
        asked = [question.to_dict() for question in Protocol.from_dict(values).questions["before"]]
        remark = {"key": "remark", "text": "Remarks", "scale": {"kind": "text", "max_length": 2000}, "required": False}
        return values | {"questions": {"before": [*asked, remark]}}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "_protocol", with_remarks)
        return sessions.made_up_study(tmp_path_factory.mktemp("drawn"), 12)


@pytest.fixture
def study(drawn: Path, tmp_path: Path) -> Iterator[Study]:
    with Study.open(shutil.copytree(drawn, tmp_path / "study")) as opened:
        yield opened


@pytest.fixture(scope="module")
def open_study(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    with Study.open(shutil.copytree(drawn, tmp_path_factory.mktemp("open") / "study")) as opened:
        yield opened


def answer_until_text(study: Study, token: str, text: str) -> tuple[str, str]:
    """Answers steps until one takes free text, which gets `text`; returns that step and question."""
    while True:
        view = study.view(token)
        given: dict[str, Any] = {}
        taken = ""
        for question in view.questions:
            if question.key == CONSENT:
                given[question.key] = True
            elif question.field in ("text", "textarea"):
                given[question.key], taken = text, question.key
            else:
                given[question.key] = answer(question)
        study.submit(token, view.step, given, f"request-{view.step}", 1.0)
        if taken and view.kind == "before":
            return view.step, taken


def test_answers_go_through_a_session_into_every_export(study: Study, tmp_path: Path) -> None:
    """The reader's own words, from the form to REDCap, and the data of one person."""
    texts = [text for text in TEXTS if len(text) < 2000]
    given: dict[str, str] = {}
    for text, one in zip(texts, study.enrol(len(texts), "site"), strict=True):
        answer_until_text(study, study.sign_in(one.code), text)
        given[one.reader] = plain_text(text).strip()
        assert given[one.reader] in json.dumps(reader_data(study, one.reader), ensure_ascii=False) or "\\" in repr(text)
    desk = Coordinator(study)
    desk.close("=1+1\r\nforged <script>alert(1)</script>")
    tmp_path = tmp_path / "export"
    tmp_path.mkdir()
    written = desk.export(tmp_path)
    assert study.store.verify(study.name) == []
    header, *remarks = cells(tmp_path / REMARKS_FILE)
    found = {row[header.index("reader")]: row[header.index("remark")] for row in remarks}
    assert found == {reader: safe_cell(text) for reader, text in given.items() if text}
    check_csv(tmp_path / REMARKS_FILE, len(found))
    for path in written:
        if path.suffix == ".csv":
            check_csv(path, len(cells(path)) - 1)
        if path.suffix == ".xml":
            ET.parse(path)


@pytest.mark.parametrize("text", ["\x1b]0;title\x07", "a\nb", *TEXTS])
def test_the_name_of_a_site_is_one_line_of_text(open_study: Study, text: str) -> None:
    try:
        (one,) = open_study.enrol(1, text)
    except StudyRequestError as refusal:
        assert len(text) > 200 and "at most 200" in str(refusal)
        return
    site = open_study.store.reader(open_study.name, one.reader).site or ""
    assert site == " ".join(plain_text(text).split())
    html = str(coordinator_html.status(Coordinator(open_study).status(), False, open_study))
    assert not RUNS.search(html)
    json.dumps(reader_data(open_study, one.reader)).encode()
    assert open_study.readers_at(text) >= 1


def test_the_terminal_gets_no_control_character(open_study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(open_study.bundle.folder)
    open_study.enrol(1, "\x1b[2Jcleared\r\nforged line")
    assert cli.main(["study", "status", folder]) == 0
    printed = capsys.readouterr().out
    assert not CONTROL & set(printed) and "cleared forged" in printed


@pytest.mark.parametrize("text", [text for text in TEXTS if len(text) < 200])
def test_a_plan_s_words_are_text_in_letters_or_refused(tmp_path: Path, text: str) -> None:
    plan = yaml.safe_load(TRUST_STUDY.read_text(encoding="utf-8"))
    plan["title"] = text
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(plan), encoding="utf-8")
    try:
        protocol = Protocol.read(path)
    except ProtocolError as refusal:
        assert "title" in str(refusal) and "cannot be shown" in str(refusal)
        assert CONTROL & set(text) or "\ud800" in text
        return
    assert protocol.title == text.strip()
    stub = type("Stub", (), {"protocol": protocol})()
    letter = letters._letter(stub, "reminder", "en", "R001", link="https://example.org/", left=3)
    assert " ".join(text.split()) in letter.splitlines()[0] or " ".join(text.split()) in " ".join(letter.split())
