"""The coverage simulation runs, small, and its stored full run holds what the report promises of the endpoints."""

from __future__ import annotations

import json
from pathlib import Path

from eval_study.trust_study import coverage

RESULTS = Path(__file__).parents[3] / "eval_study" / "results" / "study"


def test_a_small_run_has_a_row_for_each_endpoint() -> None:
    rows = coverage.run(3, readers=(5,))
    assert [row["endpoint"] for row in rows] == ["safety", "act", "preference"]
    assert all(row["studies"] == 3 for row in rows)
    assert "| safety | 5 | 3 |" in coverage.page(rows, "a test")


def test_the_stored_run_covers_and_does_not_find_what_is_not_there() -> None:
    rows = json.loads((RESULTS / "coverage.json").read_text())["rows"]
    assert {row["readers"] for row in rows} == {5, 10, 20, 40} and min(row["studies"] for row in rows) >= 500
    for row in rows:
        assert row["coverage"] >= 0.92, row
        if row["readers"] >= 10:
            assert row["coverage"] <= 0.985, row
        assert (row["false_positives"] or 0) <= 0.075, row
