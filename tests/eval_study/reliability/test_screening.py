"""The throughput measurement, on few photos."""

from __future__ import annotations

from pathlib import Path

from eval_study.reliability import screening


def test_a_run_is_timed_from_its_first_part(tmp_path: Path) -> None:
    manifest = screening.write_photos(tmp_path, 4)
    run = screening.measure(manifest, tmp_path / "out", 2, ["--quick"])
    assert run["photos_per_second"] > 0 and run["bytes_per_row"] > 1000
    assert run["seconds"] >= run["seconds_to_the_first_part"] > 0


def test_paper_costs_are_proportional() -> None:
    million, billion = screening.on_paper(rate=2.0, photo_bytes=300_000, row_bytes=4_000, core_hour=0.05)
    assert million["core_hours"] == 139 and million["cost"] == 7 and million["photos_tb"] == 0.3
    assert billion["core_hours"] == 138_889 and billion["results_tb"] == 4.0
