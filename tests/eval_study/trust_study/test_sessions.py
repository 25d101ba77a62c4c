"""The measurement of whole sessions, in a short form, and that a submit asks the database little."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from eval_study.trust_study import load as study_load
from eval_study.trust_study import sessions as study_sessions
from skinclip.study.coordinator import Coordinator
from skinclip.study.session.session_service import Study
from skinclip.study.store.store import URL_VARIABLE
from tests.study import tiny

RESULTS = Path(study_load.__file__).parents[1] / "results" / "study"
NOTHING_LOST = {"lost": 0, "doubled": 0, "misplaced": 0, "problems": []}


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study_sessions.made_up_study(tmp_path_factory.mktemp("made-up"), 8)


def test_whole_sessions_at_once_lose_nothing(
    study_folder: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL_VARIABLE, database)
    result = study_sessions.sessions(study_folder, readers=5, think=0.01)
    assert {name: result[name] for name in NOTHING_LOST} == NOTHING_LOST
    assert result["submits"] == 5 * 34 and result["cpu_ms_a_submit"] > 0
    with Study.open(study_folder) as study:
        assert [row.state for row in Coordinator(study).status()] == ["completed"] * 5


def test_sessions_over_http_are_those_of_the_page(made_up: Path) -> None:
    result = study_sessions.served(made_up, readers=2)
    assert {name: result[name] for name in NOTHING_LOST} == NOTHING_LOST
    # Consent, instructions, background; practice with feedback; cases and a repeat, twice each; blocks; pairs; debrief.
    assert result["submits"] == 2 * (3 + 4 * 3 + (8 + 1) * 2 + 4 + 2 + 1)
    photos = [path.stat().st_size for path in made_up.glob("cases/*/photo.jpg")]
    assert photos and 1000 * result["reply_kb"] > min(photos)  # photos are part of the page


@pytest.fixture
def study(study_folder: Path) -> Iterator[Study]:
    with Study.open(study_folder) as opened:
        yield opened


def test_a_submit_asks_the_database_little_and_less_than_all_that_was_answered(study: Study) -> None:
    token = study.sign_in(study.enrol(1, "Here")[0].code)
    statements: list[str] = []
    sa.event.listen(study.store.database.engine, "before_cursor_execute", lambda *call: statements.append(str(call[2])))
    counts = []
    for _ in tiny.session(study, token):
        counts.append(len(statements))
        statements.clear()
    assert max(counts[1:]) <= 10, counts  # BEGIN twice; the first submit also asks for the allocation


def test_what_was_answered_is_not_kept_in_memory(study: Study) -> None:
    token = study.sign_in(study.enrol(1, "Here")[0].code)
    for _ in tiny.session(study, token):
        pass
    kept = study._answered["R001"]
    assert len(kept) >= 33 and all(event.payload is None for event in kept.values())


@pytest.mark.parametrize("name", ["submit", "submit_with_pauses", "served", "served_with_pauses"])
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
@pytest.mark.parametrize("run", [".", "second_run"])
def test_kept_results_are_of_full_size_and_lost_nothing(name: str, database: str, run: str) -> None:
    result = json.loads((RESULTS / run / f"study_{name}_{database}.json").read_text())
    assert (result["readers"], result["cases"], result["cores"], result["simulated"]) == (50, 20, 2, True)
    assert {key: result[key] for key in NOTHING_LOST} == NOTHING_LOST
    assert result["submits"] == 50 * 66
    if result["mean_pause_s"]:
        assert result["p95_ms"] <= 300
