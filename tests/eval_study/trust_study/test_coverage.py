"""The coverage simulation runs, small, goes on where it was, and its stored run holds what the reports promise."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from eval_study.trust_study import coverage

RESULTS = Path(__file__).parents[3] / "eval_study" / "results" / "study"


def test_a_small_run_has_a_row_for_each_endpoint_and_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "coverage.json"
    coverage.run(path, (5,), (1, 1), 60.0)
    once = json.loads(path.read_text())["studies"]["5"]["0"]
    report = coverage.run(path, (5,), (1, 2), 60.0)
    assert report["studies"]["5"]["0"] == once
    assert {row["endpoint"] for row in report["rows"]} == set(coverage.QUESTIONS)
    studies = {row["endpoint"]: row["studies"] for row in report["rows"]}
    assert studies["primary"] == studies["safety"] == 2 and studies["act"] == 1
    assert "| Safety: switch to wrong | 5 | 2 |" in coverage.page(report)
    table = yaml.safe_load(coverage.report_table(report))
    assert table["endpoints"]["Primary: trust"][5][1] == 2


def test_a_run_without_time_keeps_what_there_is(tmp_path: Path) -> None:
    report = coverage.run(tmp_path / "coverage.json", (5,), (1, 1), 0.0)
    assert report["rows"] == []


def test_the_stored_run_covers_and_does_not_find_what_is_not_there() -> None:
    """Within chance of a run of this size: 0.92 to 0.98 lies in the Wilson interval of each share."""
    report = json.loads((RESULTS / "coverage.json").read_text())
    rows = report["rows"]
    assert {row["readers"] for row in rows} == {5, 10, 20, 40, 60}
    assert set(coverage.MAIN) <= {row["endpoint"] for row in rows} <= set(coverage.QUESTIONS)
    assert all(row["studies"] >= 250 for row in rows if row["endpoint"] in coverage.MAIN)
    low, high = coverage.HELD
    for row in rows:
        assert row["coverage"]["high"] >= low, row
        if row["readers"] >= 20 and row["endpoint"] in coverage.MAIN:
            assert row["coverage"]["low"] <= high, row
        if row["false_positives"]:
            assert row["false_positives"]["low"] <= 0.07, row


def test_the_default_protocols_safety_endpoint_has_the_power_it_was_made_for() -> None:
    rows = json.loads((RESULTS / "coverage.json").read_text())["rows"]
    safety = next(r for r in rows if r["endpoint"] == "safety" and r["readers"] == coverage.DEFAULT_READERS)
    assert safety["studies"] >= 250 and safety["non_inferior"]["low"] >= 0.8
    assert coverage.HELD[0] <= safety["coverage"]["value"] <= coverage.HELD[1]


def test_the_reports_table_is_the_stored_runs() -> None:
    report = json.loads((RESULTS / "coverage.json").read_text())
    assert yaml.safe_load(coverage.COVERAGE_YAML.read_text()) == yaml.safe_load(coverage.report_table(report))
