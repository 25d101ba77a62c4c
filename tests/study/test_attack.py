"""Attacks on a study by somebody who can write to its database, and has neither the key nor the study's folder.

Each attack tries to break in: to sign in as a reader or as the coordinator, to close or reopen the study, to see truth
or another's answers, to make the past look different. None may succeed, and `verify` must tell what was tried.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from skinclip.study.coordinator import Coordinator
from skinclip.study.errors import SessionExpiredError, StudyRequestError, TamperedError
from skinclip.study.session.session_service import EnrolledReader, Study
from tests.study import tiny

FAR = "2099-01-01T00:00:00.000Z"


class Attacker:
    """Somebody with the database's file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "store.sqlite"

    def sql(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(self.path, timeout=5)
        try:
            with connection:
                return connection.execute(statement, values).fetchall()
        finally:
            connection.close()


@pytest.fixture
def study(study_folder: Path) -> Iterator[Study]:
    with Study.open(study_folder) as opened:
        yield opened


@pytest.fixture
def readers(study: Study) -> list[EnrolledReader]:
    return study.enrol(2, "Here")


@pytest.fixture
def attacker(study_folder: Path) -> Attacker:
    return Attacker(study_folder)


def tried(study: Study, *words: str) -> None:
    """Checks that `verify` tells what was done, in these words."""
    told = "\n".join(map(str, Coordinator(study).verify()))
    assert told and all(word in told for word in words), told


@pytest.mark.parametrize("reader", ["R001", None])
def test_a_session_cannot_be_made(study: Study, readers: object, attacker: Attacker, reader: str | None) -> None:
    token = "a token that the attacker made up"
    sha = hashlib.sha256(token.encode()).hexdigest()
    attacker.sql("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", sha, study.name, reader, FAR, sha)
    for guess in (token, sha):
        with pytest.raises(SessionExpiredError):
            study.session(guess, coordinator=reader is None)
        with pytest.raises(SessionExpiredError):
            study.view(guess)
    tried(study, "no event of the log began it")


@pytest.mark.parametrize("column", ["reader = NULL", "reader = 'R002'", f"expires_at = '{FAR}'", "study = 'x'"])
def test_a_session_cannot_be_turned_into_another(
    study: Study, readers: list[EnrolledReader], attacker: Attacker, column: str
) -> None:
    token = study.sign_in(readers[0].code)
    assert study.view(token).kind == "consent"
    attacker.sql(f"UPDATE sessions SET {column}")
    with pytest.raises(SessionExpiredError):
        study.view(token)
    with pytest.raises(SessionExpiredError):
        Coordinator.of(study, token)
    if "study" not in column:
        tried(study, "sign-in of")


@pytest.mark.parametrize("owner", ["NULL", "'R002'"])
def test_a_code_cannot_be_turned_into_anothers(
    study: Study, readers: list[EnrolledReader], attacker: Attacker, owner: str
) -> None:
    study.coordinator_code()
    attacker.sql(f"DELETE FROM codes WHERE reader IS {owner}")
    attacker.sql(f"UPDATE codes SET reader = {owner} WHERE reader = 'R001'")
    for coordinator in (True, False):
        with pytest.raises(TamperedError):
            study.sign_in(readers[0].code, coordinator=coordinator)
    attacker.sql("UPDATE codes SET seal = NULL")
    with pytest.raises(TamperedError):
        study.sign_in(readers[0].code, coordinator=True)
    tried(study, "the code of")


def test_codes_of_earlier_versions_are_sealed_once_and_not_again(
    study: Study, readers: list[EnrolledReader], attacker: Attacker, study_folder: Path
) -> None:
    attacker.sql("UPDATE codes SET reader = NULL, seal = NULL WHERE reader = 'R001'")
    study.close()
    with Study.open(study_folder) as again, pytest.raises(TamperedError):
        again.sign_in(readers[0].code, coordinator=True)


def test_what_had_ended_cannot_be_put_back(study: Study, readers: list[EnrolledReader], attacker: Attacker) -> None:
    token = study.sign_in(readers[0].code)
    (session,) = attacker.sql("SELECT * FROM sessions")
    (code,) = attacker.sql("SELECT * FROM codes WHERE reader = 'R001'")
    study.sign_out(token)
    attacker.sql("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", *session)
    with pytest.raises(SessionExpiredError):
        study.view(token)
    tried(study, "had ended and was put back")
    attacker.sql("DELETE FROM sessions")
    study.renew_code("R001")
    attacker.sql("DELETE FROM codes WHERE reader = 'R001'")
    attacker.sql("INSERT INTO codes VALUES (?, ?, ?, ?, ?, ?, ?)", *code)
    with pytest.raises(TamperedError, match="replaced by another"):
        study.sign_in(readers[0].code)
    tried(study, "not the last that the log gave out")


def test_a_sign_in_of_before_a_renewal_is_told(study: Study, readers: list[EnrolledReader], attacker: Attacker) -> None:
    study.sign_in(readers[0].code)
    (session,) = attacker.sql("SELECT * FROM sessions")
    study.renew_code("R001")
    attacker.sql("INSERT INTO sessions VALUES (?, ?, ?, ?, ?)", *session)
    tried(study, "had ended and was put back")


def test_a_study_is_not_closed_and_so_not_unblinded(
    study: Study, readers: list[EnrolledReader], attacker: Attacker, tmp_path: Path
) -> None:
    desk = Coordinator.of(study, study.sign_in(study.coordinator_code(), coordinator=True))
    attacker.sql("UPDATE studies SET closed_at = '2026-11-24T10:00:00.000Z'")
    for look in (desk.tables, lambda: desk.export(tmp_path / "out"), lambda: desk.analyse(tmp_path / "out")):
        with pytest.raises(TamperedError):
            look()
    tried(study, "no event says so")
    row = attacker.sql("SELECT * FROM events WHERE kind = 'created'")[0]
    fields = list(row)
    fields[0], fields[2], fields[4], fields[5], fields[6] = 999, 999, "closed", "closed", "closed"
    attacker.sql(f"INSERT INTO events VALUES ({', '.join('?' * len(fields))})", *fields)
    attacker.sql("UPDATE studies SET closed_at = ?", fields[8])
    with pytest.raises(TamperedError):
        desk.tables()
    assert not (tmp_path / "out").exists()


def test_a_closed_study_is_not_opened_again(study: Study, readers: list[EnrolledReader], attacker: Attacker) -> None:
    token = study.sign_in(readers[0].code)
    Coordinator(study).close("a test")
    attacker.sql("UPDATE studies SET closed_at = NULL")
    with pytest.raises(TamperedError):
        study.view(token)
    attacker.sql("DELETE FROM payloads WHERE event IN (SELECT id FROM events WHERE kind = 'closed')")
    attacker.sql("DELETE FROM events WHERE kind = 'closed'")
    head = attacker.sql("SELECT sequence, digest FROM events ORDER BY sequence DESC LIMIT 1")[0]
    attacker.sql("UPDATE studies SET sequence = ?, digest = ?", *head)
    with pytest.raises(TamperedError, match="the end of the log"):
        study.submit(token, "s001", {"consent": True}, "q1")
    tried(study, "deleted or rolled back")


def test_an_allocation_cannot_be_changed_so_that_feedback_tells_the_truth(
    study: Study, readers: list[EnrolledReader], attacker: Attacker, study_folder: Path
) -> None:
    allocation = dict(study.store.reader(study.name, "R001").allocation or {})
    allocation["presentations"] = [{**p, "practice": True} for p in allocation["presentations"]]
    body = json.dumps({"number": 1, "site": "Here", "allocation": allocation})
    attacker.sql(
        "UPDATE payloads SET body = ?, salt = ? WHERE event = (SELECT id FROM events WHERE kind = 'enrolled' LIMIT 1)",
        body,
        bytes(16),
    )
    study._steps.clear()
    with pytest.raises(TamperedError):
        study.view(study.sign_in(readers[0].code))
    tried(study, "payload")


def test_an_answer_that_was_put_in_does_not_bring_the_aid(
    study: Study, readers: list[EnrolledReader], attacker: Attacker
) -> None:
    token = study.sign_in(readers[0].code)
    *_, (view, _) = tiny.session(study, token, lambda view: view.kind == "before")
    row = list(attacker.sql("SELECT * FROM events WHERE kind = 'background'")[0])
    row[0], row[2], row[4], row[5], row[6], row[7] = 999, 999, "before", view.step, "made up", view.step
    attacker.sql(f"INSERT INTO events VALUES ({', '.join('?' * len(row))})", *row)
    with pytest.raises(TamperedError):
        study.view(token)


def test_a_deleted_database_is_not_begun_anew(study: Study, readers: object, study_folder: Path) -> None:
    study.close()
    for name in ("store.sqlite", "store.sqlite-wal", "store.sqlite-shm"):
        (study_folder / name).unlink(missing_ok=True)
    with pytest.raises(StudyRequestError, match="does not hold this study at all"):
        Study.open(study_folder)
    assert not (study_folder / "store.sqlite").exists()
    sqlite3.connect(study_folder / "store.sqlite").close()
    for checked in (True, False):
        with pytest.raises(StudyRequestError, match="study restore"):
            Study.open(study_folder, checked=checked)


def test_a_database_that_was_rolled_back_is_not_opened_and_verify_tells(
    study: Study, readers: list[EnrolledReader], study_folder: Path, tmp_path: Path
) -> None:
    study.close()
    shutil.copy(study_folder / "store.sqlite", tmp_path / "earlier")
    with Study.open(study_folder) as later:
        token = later.sign_in(readers[0].code)
        later.submit(token, "s001", {"consent": True}, "q1")
    shutil.copy(tmp_path / "earlier", study_folder / "store.sqlite")
    with pytest.raises(StudyRequestError, match="deleted or rolled back"):
        Study.open(study_folder)
    with Study.open(study_folder, checked=False) as opened:
        tried(opened, "deleted or rolled back")


def test_a_copy_without_the_write_ahead_log_is_not_opened(
    study: Study, readers: list[EnrolledReader], study_folder: Path, tmp_path: Path
) -> None:
    study.submit(study.sign_in(readers[0].code), "s001", {"consent": True}, "q1")
    shutil.copytree(study_folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    with pytest.raises(StudyRequestError, match="copied without store.sqlite-wal"):
        Study.open(tmp_path / "copy")


def test_anchors_cannot_be_edited_to_fit(study: Study, readers: object, study_folder: Path) -> None:
    path = study_folder / "anchors.jsonl"
    lines = path.read_text().splitlines()
    assert all(set(json.loads(line)) == {"study", "sequence", "digest", "at", "note", "mark"} for line in lines)
    path.write_text("\n".join([lines[0].replace('"sequence":1', '"sequence":2'), *lines[1:]]) + '\n{"study":"cut sho')
    tried(study, "line 1 of anchors.jsonl was changed")


def test_nothing_legitimate_is_taken_for_an_attack(study: Study, readers: list[EnrolledReader]) -> None:
    token = study.sign_in(readers[0].code)
    study.sign_in(readers[0].code)
    study.sign_out(token)
    other = study.sign_in(readers[1].code)
    study.submit(other, "s001", {"consent": True}, "q1")
    study.withdraw(other)
    study.coordinator_code()
    study.sign_in(study.renew_code("R001").code)
    Coordinator.of(study, study.sign_in(study.coordinator_code(), coordinator=True)).close("a test")
    assert Coordinator(study).verify() == [] and Coordinator(study).audit().warnings == ()
