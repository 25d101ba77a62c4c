"""A study that was begun with an earlier version opens, goes on, verifies and exports what it exported before.

`data/rehearsal_08db139.tar.gz` was made by the code of commit 08db139 from drawn photos: a rehearsal of six cases in
three arms with one reader finished, one half-way and one withdrawn; `export/` is what that code exported of a closed
copy, `expected.json` the plan's hashes, codes and receipts.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from skinclip.study.coordinator import Coordinator
from skinclip.study.protocol.protocol import Protocol
from skinclip.study.session.session_service import Study
from tests.study import tiny

ARCHIVE = Path(__file__).with_name("data") / "rehearsal_08db139.tar.gz"


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The unpacked archive."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def expected(earlier: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((earlier / "expected.json").read_text())
    return values


def test_plans_keep_their_hashes(earlier: Path, expected: dict[str, Any], trust_study: Protocol) -> None:
    former = Protocol.read(Path(__file__).with_name("data") / "trust_study_before_gatekeeping.yaml")
    assert former.plan_sha256 == expected["trust_study_plan_sha256"]  # the default until 0.2, as a study may have it
    assert trust_study.plan_sha256 != former.plan_sha256  # more errors of the AI, gates and another margin, on purpose
    assert trust_study.plan_sha256 == "b45ef6d3a8aa47ea0b08fc6e4fd15e4123b28257f2fcbf3526d893e5657d36fa"
    values = trust_study.to_dict()
    del values["diagnoses"], values["questions"]  # the same while readers could name seven diagnoses
    assert Protocol.from_dict(values).plan_sha256 == "aa45939fc539f38a7b42046f20b9cc016267f5b15ac26e7929b7776309a15a1e"
    assert Protocol.read(earlier / "study" / "protocol.yaml").plan_sha256 == expected["plan_sha256"]


def test_a_plan_stored_in_the_log_reads_back_to_its_hash(earlier: Path, expected: dict[str, Any]) -> None:
    with Study.open(earlier / "study") as study:
        locked = study.store.events(study.name, kinds=["plan_locked"])[0].payload
    assert locked is not None and locked["plan_sha256"] == expected["plan_sha256"]
    assert Protocol.from_dict(locked["protocol"]).plan_sha256 == expected["plan_sha256"]


def test_a_running_study_verifies_and_its_reader_goes_on_where_it_stopped(
    earlier: Path, expected: dict[str, Any]
) -> None:
    with Study.open(earlier / "study") as study:
        coordinator = Coordinator(study)
        assert coordinator.verify(expected["receipts"]) == []
        assert [row.state for row in coordinator.status()] == ["completed", "in progress", "withdrawn"]
        assert study.sign_in(expected["coordinator"], coordinator=True)
        token = study.sign_in(expected["codes"][1])
        assert study.view(token).done == 9
        *_, (last, _) = tiny.session(study, token)
        assert last.kind == "done"
        coordinator.close("a test")
        assert coordinator.verify(expected["receipts"]) == []


@pytest.mark.parametrize("table", ["cases", "blocks", "preferences", "readers"])
def test_the_exported_tables_stay_as_they_were(table: str, earlier: Path, tmp_path: Path) -> None:
    with Study.open(earlier / "study") as study:
        coordinator = Coordinator(study)
        coordinator.close("a test")
        coordinator.export(tmp_path / "again")
    before, after = (pd.read_csv(tmp_path / folder / f"{table}.csv") for folder in ("export", "again"))
    pd.testing.assert_frame_equal(after[before.columns], before)
