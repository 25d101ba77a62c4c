"""Sites with a coordinator of their own: own readers alone, no data ever, and nothing that a forger could use."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from skinclip.study.coordinator import Coordinator
from skinclip.study.errors import SessionExpiredError, SignInError, StudyRequestError
from skinclip.study.letters import write_reminders
from skinclip.study.session.session_service import Study


@pytest.fixture
def study(study_folder: Path) -> Iterator[Study]:
    with Study.open(study_folder) as opened:
        opened.enrol(2, "Bern")
        opened.enrol(1, "Basel")
        yield opened


@pytest.fixture
def bern(study: Study) -> Coordinator:
    return Coordinator.of(study, study.sign_in(study.site_coordinator_code("Bern"), coordinator=True))


def test_a_site_s_coordinator_sees_and_enrols_the_own_readers_alone(study: Study, bern: Coordinator) -> None:
    assert bern.site == "Bern" and [row.reader for row in bern.status()] == ["R001", "R002"]
    assert [one.reader for one in bern.enrol(1)] == ["R004"] and study.store.reader(study.name, "R004").site == "Bern"
    assert bern.enrol(1, " BERN ")[0].reader == "R005"
    with pytest.raises(StudyRequestError, match="Bern alone"):
        bern.enrol(1, "Basel")
    assert bern.renew_code("R001").reader == "R001"
    with pytest.raises(StudyRequestError, match="no reader of Bern"):
        bern.renew_code("R003")
    assert len(study.store.readers(study.name)) == 5
    assert [row.reader for row in Coordinator(study).status()] == [f"R00{i}" for i in range(1, 6)]


def test_nothing_else_is_theirs_open_or_closed(study: Study, bern: Coordinator, tmp_path: Path) -> None:
    def refused() -> None:
        for work in (
            bern.tables, bern.audit, bern.verify, bern.close, lambda: bern.export(tmp_path / "x"),
            lambda: bern.analyse(tmp_path / "x"), lambda: bern.site_coordinator_code("Basel"),
        ):  # fmt: skip
            with pytest.raises(StudyRequestError, match="for the study's coordinator"):
                work()

    refused()
    assert not Coordinator(study).is_closed
    Coordinator(study).close("rehearsal over")
    refused()
    assert not (tmp_path / "x").exists()


def test_the_code_is_a_coordinator_s_and_no_reader_s(study: Study) -> None:
    code = study.site_coordinator_code("Bern")
    with pytest.raises(SignInError, match="coordinator's"):
        study.sign_in(code)
    token = study.sign_in(code, coordinator=True)
    with pytest.raises(SessionExpiredError):
        study.view(token)
    with pytest.raises(SessionExpiredError):
        study.withdraw(token)
    reader = study.sign_in(study.renew_code("R001").code)
    with pytest.raises(SessionExpiredError):
        Coordinator.of(study, reader)


def test_a_new_code_of_a_site_takes_the_place_of_the_one_before(study: Study) -> None:
    first = study.site_coordinator_code("Bern")
    token = study.sign_in(first, coordinator=True)
    other = study.sign_in(study.site_coordinator_code("Basel"), coordinator=True)
    second = study.site_coordinator_code(" bern ")
    with pytest.raises(SessionExpiredError):
        Coordinator.of(study, token)
    with pytest.raises(SignInError):
        study.sign_in(first, coordinator=True)
    assert Coordinator.of(study, study.sign_in(second, coordinator=True)).site == "Bern"
    assert Coordinator.of(study, other).site == "Basel", "another site's stays"
    lead = study.sign_in(study.coordinator_code(), coordinator=True)
    assert Coordinator.of(study, lead).site is None
    assert Coordinator(study).verify() == []
    for site, words in (("", "name the site"), ("  ", "name the site"), ("x" * 300, "300 characters")):
        with pytest.raises(StudyRequestError, match=words):
            study.site_coordinator_code(site)


def test_reminders_are_for_the_own_readers(study: Study, bern: Coordinator, tmp_path: Path) -> None:
    written = write_reminders(study, tmp_path, "https://host/", site=bern.site)
    assert [path.name for path in written] == ["R001-reminder.txt", "R002-reminder.txt"]


@pytest.mark.parametrize("owner", [None, "K002", "R001"])
def test_a_session_turned_into_another_coordinator_s_opens_nothing(study: Study, owner: str | None) -> None:
    token = study.sign_in(study.site_coordinator_code("Bern"), coordinator=True)
    study.site_coordinator_code("Basel")
    with sqlite3.connect(study.bundle.folder / "store.sqlite") as database:
        database.execute("UPDATE sessions SET reader = ? WHERE reader = 'K001'", (owner,))
    with pytest.raises(SessionExpiredError):
        Coordinator.of(study, token)
    assert any(problem.kind == "access" for problem in Coordinator(study).verify())


def test_seats_go_round_within_a_site_whoever_enrols(study: Study, bern: Coordinator) -> None:
    study.enrol(1, "Basel")
    bern.enrol(2)
    study.enrol(2, "Basel")
    rows = [study.store.reader(study.name, f"R00{i}") for i in range(1, 9)]
    seats = [(r.site, r.allocation["seat"]["site"], r.allocation["seat"]["place"]) for r in rows if r.allocation]
    assert [place for site, _, place in seats if site == "Bern"] == [1, 2, 3, 4]
    assert [place for site, _, place in seats if site == "Basel"] == [1, 2, 3, 4]
    assert {number for site, number, _ in seats if site == "Bern"} == {0}
