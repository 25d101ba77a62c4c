"""`python -m skinclip study`: a study from build to analysis, and bad input told in one line with status 2."""

from __future__ import annotations

import csv
import dataclasses
import sqlite3
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from skinclip.cli import main as cli
from skinclip.study import build as study_build
from skinclip.study.build import BuildResult
from skinclip.study.session.session_service import Study
from tests.study import tiny


def run(*words: object) -> int:
    return cli.main(["study", *map(str, words)])


def test_a_study_from_enrolment_to_analysis(
    study_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = tmp_path / "codes.csv"
    assert run("enrol", study_folder, "--readers", 4, "--site", "Site A", "--codes", codes) == 0
    assert stat.S_IMODE(codes.stat().st_mode) == 0o600
    with open(codes, newline="") as file:
        readers = list(csv.DictReader(file))
    assert [row["reader"] for row in readers] == ["R001", "R002", "R003", "R004"]
    receipts = []
    with Study.open(study_folder) as study:
        for row in readers[:2]:
            token = study.sign_in(row["code"])
            for _ in tiny.session(study, token):
                pass
            receipts.append(study.receipt(token))
    (tmp_path / "receipts.txt").write_text("\n".join(receipts))
    capsys.readouterr()
    assert run("status", study_folder) == 0
    told = capsys.readouterr().out
    lines = [line.split() for line in told.splitlines()]
    assert lines[2][:6] == ["R001", "Site", "A", "completed", "34/34", "8/8"]
    assert lines[4][:6] == ["R003", "Site", "A", "enrolled", "0/34", "0/8"]
    assert "grad_cam" not in told
    assert run("close", study_folder) == 0
    assert run("verify", study_folder, "--receipts", tmp_path / "receipts.txt") == 0
    assert "and 2 receipts: nothing was changed" in capsys.readouterr().out
    assert run("export", study_folder, "--out", tmp_path / "export") == 0
    assert (tmp_path / "export" / "cases.csv").is_file()
    assert run("analyse", study_folder, "--out", tmp_path / "report") == 0
    assert (tmp_path / "report" / "report.html").is_file()


def test_verify_finds_what_was_changed(study_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("enrol", study_folder) == 0
    with sqlite3.connect(study_folder / "store.sqlite") as connection:
        connection.execute("UPDATE payloads SET body = (SELECT body FROM payloads ORDER BY event LIMIT 1)")
    connection.close()
    capsys.readouterr()
    assert run("verify", study_folder) == 1
    assert "was changed after it was stored" in capsys.readouterr().out


def test_codes_are_shown_once_and_renewed(study_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("enrol", study_folder, "--readers", 1) == 0
    told = capsys.readouterr().out
    assert "multiple of 4" in told
    old = told.split("R001")[1].split()[0]
    assert run("enrol", study_folder, "--renew", "R001") == 0
    new = capsys.readouterr().out.split("R001")[1].split()[0]
    assert run("enrol", study_folder, "--coordinator") == 0
    theirs = capsys.readouterr().out.split()[-1]
    with Study.open(study_folder) as study:
        assert len(study.store.readers(study.name)) == 1
        assert study.sign_in(new)
        assert study.sign_in(theirs, coordinator=True)
        with pytest.raises(ValueError, match="not known"):
            study.sign_in(old)


def test_a_protocol_stands_for_the_study_built_from_it(
    study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ethics fields that were filled in after the build come with it at enrolment."""
    tiny.write_protocol(study_folder / "protocol.yaml", ethics={})
    (tmp_path / "studies").mkdir()
    study_folder.rename(tmp_path / "studies" / tiny.KEY)
    monkeypatch.chdir(tmp_path)
    assert run("enrol", Path("studies") / tiny.KEY) == 2
    refused = capsys.readouterr().err
    assert "ethics.approval" in refused and f"studies/{tiny.KEY}/protocol.yaml" in refused
    empty = tiny.write_protocol(tmp_path / "empty.yaml", ethics={})
    assert run("enrol", empty) == 2
    refused = capsys.readouterr().err
    assert str(empty) in refused and "protocol.yaml" not in refused
    plan = tiny.write_protocol(tmp_path / "plan.yaml")
    assert run("enrol", plan) == 0
    assert run("status", plan) == 0


def test_build_tells_what_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built = BuildResult(tmp_path / "study", {"wrong": 4, "right": 9}, ("a.jpg: the model abstains on it",))
    monkeypatch.setattr("skinclip.cli.study.load_assessor", lambda args: SimpleNamespace())
    monkeypatch.setattr(study_build, "build", lambda *args, **options: built)
    plan, photos = tiny.write_protocol(tmp_path / "plan.yaml", ethics={}), tiny.write_photos(tmp_path / "photos")
    assert run("build", plan, "--photos", photos, "--out", tmp_path / "study") == 0
    told = capsys.readouterr().out
    assert "9 right, 4 wrong" in told and "not enriched" not in told
    assert "a.jpg: the model abstains" in told
    assert "fill in ethics.approval" in told
    monkeypatch.setattr(study_build, "build", lambda *args, **options: dataclasses.replace(built, enriched=False))
    assert (tmp_path / "study-left-out.txt").read_text() == "a.jpg: the model abstains on it\n"
    assert run("build", plan, "--photos", photos, "--out", tmp_path / "study") == 0
    assert "its errors are not enriched" in capsys.readouterr().out


def test_build_by_the_command_line_refuses_before_the_model_is_loaded(
    study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("skinclip.cli.study.load_assessor", lambda args: pytest.fail("the model was loaded"))
    assert run("enrol", study_folder) == 0
    plan = tiny.write_protocol(tmp_path / "plan.yaml")
    assert run("build", plan, "--photos", tmp_path, "--out", study_folder) == 2
    assert "has readers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("status", "nowhere"), "nowhere does not exist"),
        (("status", "{tmp}"), "study build"),
        (("enrol", "{study}", "--readers", "0"), "enrol 1 to 1000"),
        (("enrol", "{study}", "--renew", "R009"), "no reader 'R009'"),
        (("enrol", "{study}", "--codes", "{study}/protocol.yaml"), "is there already"),
        (("close", "{study}"), "0 readers have completed"),
        (("export", "{study}", "--out", "{tmp}/out"), "once the study is closed"),
        (("analyse", "{study}", "--out", "{tmp}/out"), "once the study is closed"),
        (("verify", "{study}", "--receipts", "{tmp}/none.txt"), "none.txt"),
        (("verify", "{study}", "--receipts", "{tmp}/bad.txt"), "no receipt, or a character of it is wrong"),
        (("status", "{tmp}/bad.yaml"), "bad.yaml"),
        (("build", "{tmp}/bad.yaml", "--photos", "{tmp}"), "bad.yaml"),
        (("conduct", "{study}"), "invalid choice"),
    ],
)
def test_bad_input_is_told_in_one_line(
    study_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    told: str,
) -> None:
    (tmp_path / "bad.txt").write_text("tiny-study-v1:1:AAAA-BBBB-CCCC-DDDD-EEEE\n")
    (tmp_path / "bad.yaml").write_text("key: [")
    assert run(*(word.format(study=study_folder, tmp=tmp_path) for word in words)) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_a_key_that_is_lost_is_told(
    study_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("enrol", study_folder) == 0
    monkeypatch.setenv("SKINCLIP_STUDY_KEYS", str(study_folder / "elsewhere"))
    assert run("status", study_folder) == 2
    assert "from its backup, or say with SKINCLIP_STUDY_KEY=FILE where it is" in capsys.readouterr().err
