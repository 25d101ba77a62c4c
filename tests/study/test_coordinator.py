"""What the coordinator sees before and after closing, and that export and analysis hold what readers answered."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from skinclip.study.analysis import analysis_plan
from skinclip.study.analysis.tables import REHEARSAL, StudyTables
from skinclip.study.coordinator import Coordinator
from skinclip.study.errors import SessionExpiredError, StudyRequestError
from skinclip.study.protocol.protocol import ARMS, Protocol
from skinclip.study.session.keys import read_study_key
from skinclip.study.session.session_service import Study
from skinclip.study.store.audit_log import audit, read_log, receipt_of
from tests.study import tiny


@pytest.fixture(scope="module")
def conducted(built_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five readers: three finish, one stops at the first block's scales, one withdraws."""
    folder = Path(shutil.copytree(built_study, tmp_path_factory.mktemp("conducted") / "study"))
    with Study.open(folder) as study:
        for i, one in enumerate(study.enrol(5, "Site A")):
            token = study.sign_in(one.code)
            stop = (lambda view: view.kind == "block") if i >= 3 else (lambda view: False)
            for _ in tiny.session(study, token, stop):
                pass
            if i == 4:
                study.withdraw(token)
    return folder


@pytest.fixture
def study(conducted: Path, tmp_path: Path) -> Iterator[Study]:
    with Study.open(shutil.copytree(conducted, tmp_path / "study")) as opened:
        yield opened


@pytest.fixture
def coordinator(study: Study) -> Coordinator:
    return Coordinator(study)


def test_status_before_closing_tells_progress_and_nothing_else(coordinator: Coordinator) -> None:
    rows = coordinator.status()
    assert [row.state for row in rows] == ["completed"] * 3 + ["in progress", "withdrawn"]
    assert (rows[0].steps, rows[0].steps_total, rows[0].cases, rows[0].cases_total) == (34, 34, 8, 8)
    assert rows[0].left_out == 0
    assert rows[3].cases == 2
    assert rows[4].site == ""
    told = json.dumps([dataclasses.asdict(row) for row in rows])
    assert not any(arm in told for arm in ARMS if arm != "none")
    assert "C001" not in told


def test_data_stay_hidden_until_closing(coordinator: Coordinator, tmp_path: Path) -> None:
    for call in (coordinator.tables, lambda: coordinator.export(tmp_path), lambda: coordinator.analyse(tmp_path)):
        with pytest.raises(StudyRequestError, match="once the study is closed"):
            call()


def test_closing_is_an_event_and_happens_once(coordinator: Coordinator, study: Study) -> None:
    coordinator.close()
    coordinator.close()
    closing, closed = study.store.events(study.name)[-2:]
    assert (closing.kind, closed.kind) == ("closing", "closed")
    assert closing.payload == {"completed": 3, "needed": 2, "reason": ""}
    assert not coordinator.verify()


def test_a_closing_that_was_cut_off_the_log_is_told_by_its_own_receipt(coordinator: Coordinator, study: Study) -> None:
    before = study.store.events(study.name)[-1]
    coordinator.close()
    receipts = [receipt_of(before), coordinator.receipt()]
    closed = study.store.events(study.name)[-1]
    assert receipts[1] == receipt_of(closed) and not coordinator.verify(receipts)
    with study.store.database.writing.begin() as connection:
        ids = f"SELECT id FROM events WHERE sequence > {before.sequence}"
        connection.execute(sa.text(f"DELETE FROM payloads WHERE event IN ({ids})"))
        connection.execute(sa.text(f"DELETE FROM events WHERE sequence > {before.sequence}"))
        head = f"sequence = {before.sequence}, digest = '{before.digest}', closed_at = NULL"
        connection.execute(sa.text(f"UPDATE studies SET {head}"))
    assert not coordinator.is_closed and not study.store.verify(study.name, receipts[:1])
    assert [p.kind for p in study.store.verify(study.name, receipts)] == ["cut_tail"]
    assert [p.kind for p in coordinator.verify()] == ["cut_tail"]  # the anchors outside the database know


def test_closing_early_needs_a_reason(built_study: Path, study_folder: Path) -> None:
    with Study.open(study_folder) as study:
        study.enrol(1, "Here")
        with pytest.raises(StudyRequestError, match="0 readers have completed, and the protocol asks for 2"):
            Coordinator(study).close()
        Coordinator(study).close("the grant has ended")
        assert Coordinator(study).is_closed


def test_a_coordinator_needs_the_coordinators_token(study: Study) -> None:
    token = study.sign_in(study.coordinator_code(), coordinator=True)
    assert len(Coordinator.of(study, token).status()) == 5
    study.sign_out(token)
    with pytest.raises(SessionExpiredError):
        Coordinator.of(study, token)


def test_tables_hold_what_was_answered(coordinator: Coordinator, study: Study) -> None:
    coordinator.close()
    tables = coordinator.tables()
    cases = tables.cases
    assert len(cases) == 3 * (8 + 1) + 2
    assert set(cases["case"]) == set(study.bundle.cases)
    assert cases["repeat"].sum() == 3
    assert set(cases["reader"]) == {"R001", "R002", "R003", "R004"}
    assert (cases["diagnosis_before"] == "mel").all()
    assert (cases["confidence_after"] == 60).all()
    assert (cases["seconds_before"] == 4.0).all()
    assert (cases["server_seconds_before"] >= 0).all()
    assert cases.loc[cases["arm"] == "none", "grounded"].isna().all()
    assert (cases.loc[cases["arm"] != "none", "grounded"] == 2).all()
    assert (cases["ai_correct"] == (cases["stratum"] == "right"))[cases["stratum"] != "ood"].all()
    assert cases.loc[cases["stratum"] == "ood", "truth"].isna().all()
    truths = study.bundle.truths
    assert all(row.weight == truths[row.case].weight for row in cases.itertuples())


def test_arms_and_blocks_are_those_of_the_allocation(coordinator: Coordinator, study: Study) -> None:
    coordinator.close()
    tables = coordinator.tables()
    for reader in ("R001", "R002"):
        shown = [
            s.presentation
            for s in study.steps(reader)
            if s.kind == "after" and s.presentation and not s.presentation.practice
        ]
        rows = tables.cases[tables.cases["reader"] == reader]
        assert list(rows["arm"]) == [p.arm for p in shown]
        assert list(rows["case"]) == [p.case for p in shown]
        blocks = tables.blocks[tables.blocks["reader"] == reader].drop_duplicates("block")
        order = [p.arm for p in shown if not p.repeat][::2]
        assert list(blocks["arm"]) == order
    assert set(tables.blocks.loc[tables.blocks["arm"] == "none", "item"].str[:3]) == {"tru", "dis"}


def test_items_that_speak_against_the_aid_are_scored_the_other_way_round(coordinator: Coordinator) -> None:
    coordinator.close()
    blocks = coordinator.tables().blocks
    assert (blocks["value"] == 2).all()  # the test's reader always answers 2
    turned = blocks["item"] == "ess_4"
    assert turned.sum() == 9  # three readers, three arms with an explanation
    assert (blocks.loc[turned, "score"] == 4).all() and (blocks.loc[~turned, "score"] == 2).all()


def test_the_chosen_side_is_told_as_its_arm(coordinator: Coordinator) -> None:
    coordinator.close()
    preferences = coordinator.tables().preferences
    assert len(preferences) == 6
    assert (preferences["chosen"] == preferences["side_a"]).all()  # the test's reader always chooses "a"


def test_withdrawn_readers_are_counted_and_their_data_gone(coordinator: Coordinator) -> None:
    coordinator.close()
    readers = coordinator.tables().readers.set_index("reader")
    assert list(readers["withdrawn"]) == [False] * 4 + [True]
    assert list(readers["completed"]) == [True] * 3 + [False] * 2
    assert pd.isna(readers.loc["R005", "site"])
    assert readers.loc["R001", "site"] == "a remark"  # named by the reader
    assert readers.loc["R001", "role"] == "dermatologist"
    assert readers.loc["R001", "years"] == "lt1"


def test_what_a_study_asks_of_its_readers_is_exported(study_folder: Path, tmp_path: Path) -> None:
    asked = {"key": "dermatoscope", "text": "Which one do you use?", "scale": {"kind": "text"}}
    mine = [q for q in tiny.default_questions("background") if q["key"] != "years"]
    tiny.write_protocol(study_folder / "protocol.yaml", questions={"background": [*mine, asked]})
    with Study.open(study_folder) as study:
        token = study.sign_in(study.enrol(1, "Here")[0].code)
        for _ in tiny.session(study, token, lambda view: view.kind == "before"):
            pass
        Coordinator(study).close("test")
        Coordinator(study).export(tmp_path / "out")
    readers = pd.read_csv(tmp_path / "out" / "readers.csv")
    assert readers["dermatoscope"].tolist() == ["a remark"] and readers["years"].isna().all()
    dictionary = pd.read_csv(tmp_path / "out" / "data_dictionary.csv")
    assert "dermatoscope" in set(dictionary.loc[dictionary["table"] == "readers", "column"])


def test_a_rehearsal_is_marked_on_pages_in_data_and_in_the_report(study_folder: Path, tmp_path: Path) -> None:
    with (study_folder / "protocol.yaml").open("a") as protocol:
        protocol.write("\nrehearsal: true\n")
    with Study.open(study_folder) as study:
        (one,) = study.enrol(1, "Site A")
        token = study.sign_in(one.code)
        views = [view for view, _ in tiny.session(study, token)]
        assert all(view.rehearsal for view in [*views, study.view(token)])
        coordinator = Coordinator(study)
        coordinator.close("a rehearsal")
        coordinator.export(tmp_path / "export")
        files = coordinator.analyse(tmp_path / "report")
    assert StudyTables.read(tmp_path / "export").mark == REHEARSAL
    assert set(pd.read_csv(tmp_path / "export" / "cases.csv")["data_kind"]) == {REHEARSAL}
    text = files["report.html"].read_text()
    assert text.index(REHEARSAL) < text.index("<h1>") and "This was a rehearsal" in text
    assert "SIMULATED" not in text


def test_an_export_can_be_read_back_and_verified(coordinator: Coordinator, study: Study, tmp_path: Path) -> None:
    coordinator.close()
    out = tmp_path / "export"
    written = coordinator.export(out)
    assert all(path.is_file() for path in written)
    back, tables = StudyTables.read(out), coordinator.tables()
    pd.testing.assert_frame_equal(back.cases, tables.cases)
    pd.testing.assert_frame_equal(back.readers, tables.readers)
    assert back.study == "tiny-study-v1"
    assert back.plan_sha256 == study.locked_plan()
    assert back.mark == ""
    dictionary = pd.read_csv(out / "data_dictionary.csv")
    assert set(dictionary.loc[dictionary["table"] == "cases", "column"]) == set(tables.cases.columns)
    assert "BEGIN DATA:" in (out / "scores.imrmc").read_text()
    with open(out / "events.jsonl") as lines:
        events = read_log(lines)
    assert not audit(study.name, events, read_study_key(study.bundle.folder, study.bundle.record)).problems


def test_remarks_are_exported_with_their_place(study_folder: Path, tmp_path: Path) -> None:
    remark = {"key": "remark", "text": "Anything else?", "scale": {"kind": "text"}, "required": False}
    questions = tiny.default_questions("after")
    tiny.write_protocol(study_folder / "protocol.yaml", questions={"after": [*questions, remark]})
    with Study.open(study_folder) as study:
        token = study.sign_in(study.enrol(1, "Here")[0].code)
        for _ in tiny.session(study, token):
            pass
        Coordinator(study).close("test")
        Coordinator(study).export(tmp_path / "out")
        tables = Coordinator(study).tables()
    remarks = pd.read_csv(tmp_path / "out" / "remarks.csv")
    assert len(remarks) == 2 + 8 + 1
    assert set(remarks["remark"]) == {"a remark"}
    assert (tables.cases["remark"] == "a remark").all()


def test_the_plan_goes_into_the_analysis(trust_study: Protocol) -> None:
    plan = analysis_plan.from_protocol(trust_study)
    assert plan.primary.text == "regions - grad_cam"
    assert plan.safety_margin == 0.1
    assert plan.time_limits == (3, 600)
    assert plan.secondary == trust_study.plan.secondary
    assert plan.secondary_contrasts[0].text == "regions - none"
    # The defaults of simulated studies are the default study's.
    assert dataclasses.replace(plan, seed=0, resamples=1000, cases=None) == analysis_plan.DEFAULT_PLAN


def test_a_closed_study_is_analysed(coordinator: Coordinator, tmp_path: Path) -> None:
    coordinator.close()
    written = coordinator.analyse(tmp_path / "report")
    assert "SIMULATED" not in written["report.html"].read_text()
    analysis = json.loads(written["analysis.json"].read_text())
    assert analysis["study"] == "tiny-study-v1"
    lists = sorted(path.name for path in (tmp_path / "report" / "checklists").iterdir())
    assert lists == ["clear_derm.md", "decide_ai.md"]


NASTY = '=SUM(A1)\rsecond\x00 line, with "quotes"\r\nand café'


def test_remarks_keep_their_rows_and_run_no_formula(
    study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lone CR split rows in R and pandas, NUL passed, and a spreadsheet ran what began with =."""
    after = [*tiny.default_questions("after"), {"key": "why", "text": "Why?", "scale": {"kind": "text"}}]
    always = tiny.answer
    monkeypatch.setattr(tiny, "answer", lambda q: NASTY if q.key == "why" else always(q))
    tiny.write_protocol(study_folder / "protocol.yaml", questions={"after": after}, rehearsal=True)
    with Study.open(study_folder) as study:
        token = study.sign_in(study.enrol(1, "here")[0].code)
        list(tiny.session(study, token))
        coordinator = Coordinator(study)
        coordinator.close("a test")
        coordinator.export(tmp_path / "out")
    for name, rows in (("remarks", 11), ("cases", 9)):
        raw = (tmp_path / "out" / f"{name}.csv").read_bytes()
        assert b"\r" not in raw and b"\0" not in raw, name
        frame = pd.read_csv(tmp_path / "out" / f"{name}.csv")
        assert len(frame) == rows and set(frame["data_kind"]) == {"REHEARSAL, NOT A STUDY"}
        texts = set(frame["remark" if name == "remarks" else "why"])
        assert texts == {'\'=SUM(A1)\nsecond line, with "quotes"\nand café'}
    dictionary = pd.read_csv(tmp_path / "out" / "data_dictionary.csv")
    assert set(dictionary.loc[dictionary["table"] == "remarks", "column"]) >= {"reader", "question", "remark"}


def test_an_export_on_a_full_disk_leaves_nothing_half_behind(
    study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with Study.open(study_folder) as study:
        Coordinator(study).close("test")
        monkeypatch.setattr("skinclip.study.coordinator.interchange.write", full)
        with pytest.raises(OSError, match="No space left"):
            Coordinator(study).export(tmp_path / "export")
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".csv"]
