"""The command that fuzzes for long: its targets, its counts, and what it makes of a failure and a hang."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from eval_study.reliability import fuzz
from tests.helpers.served import ROOT

HEAD = """
import time
from hypothesis import given, strategies as st
from tests.fuzz.effort import fuzzed

@fuzzed
@given(x=st.integers(0, 10_000))
def test_made_up(x):
"""


def target(folder: Path, body: str) -> fuzz.Target:
    (folder / "test_made_up.py").write_text(f"{HEAD}    {body}\n")
    (found,) = fuzz.targets(folder)
    return found


def test_all_that_others_write_is_a_target() -> None:
    names = {one.name for one in fuzz.targets()}
    words = ("photo", "table", "layout", "mask", "study_yaml", "record", "words_of_a_model", "boxes", "session_call")
    assert [word for word in words if not any(word in name for name in names)] == []
    assert len(names) == len(fuzz.targets()) >= 15


def test_executions_are_counted_until_there_are_enough(tmp_path: Path) -> None:
    figures = fuzz.fuzz(target(tmp_path, "assert x >= 0"), 100, 120, tmp_path / "findings")
    assert 100 <= figures.executions <= 2 * fuzz.FIRST_ROUND and (figures.rounds, figures.findings) == (1, 0)


def test_a_failure_is_kept_with_its_smallest_example(tmp_path: Path) -> None:
    figures = fuzz.fuzz(target(tmp_path, "assert x < 3000"), 10_000, 120, tmp_path / "fuzz_findings")
    assert figures.findings == 1 and figures.executions > 0
    assert "assert 3000 < 3000" in (tmp_path / figures.finding).read_text()


def test_a_hang_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "ROUND_SECONDS", 1.0)
    monkeypatch.setattr(fuzz, "OVERHEAD", 6.0)
    monkeypatch.setattr(fuzz, "HANG_SECONDS", 2.0)
    figures = fuzz.fuzz(target(tmp_path, "time.sleep(600)"), 10_000, 120, tmp_path / "fuzz_findings")
    assert figures.findings == 1 and "ended after 9 s" in (tmp_path / figures.finding).read_text()


def test_rounds_grow_to_what_fits_into_one() -> None:
    assert fuzz._next_round(200, 2000, 10.0, 1e6) == 800  # of ten parameters
    assert fuzz._next_round(6000, 6000, 200.0, 1e6) == 9000
    assert fuzz._next_round(6000, 6000, 200.0, 20.0) == 600
    assert fuzz._next_round(200, 0, 360.0, 1e6) == 50  # it was killed


def test_figures_of_targets_lie_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "fuzz", lambda *_: fuzz.FuzzFigures(70, 1.5, 1))
    for word in ("boxes", "containers"):
        monkeypatch.setattr(sys, "argv", ["fuzz", "--only", word, "--out", str(tmp_path)])
        assert fuzz.main() == 0
    written = json.loads((tmp_path / fuzz.NAME).read_text())
    assert (len(written["targets"]), written["executions"], written["findings"]) == (2, 140, 0)
    assert "--only containers" in written["command"] and str(ROOT) not in json.dumps(written["targets"])
