"""Screening on a local cluster of several processes: the same results as one process, also when workers are killed."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import psutil
import pytest

from skinclip.core.vocabulary import DIAGNOSIS_CODES
from tests.screening import screenings

pytest.importorskip("ray", reason="Ray is not installed: pip install 'skinclip[screen]'")
NUMBERS = (*(f"p_{code}" for code in DIAGNOSIS_CODES), "malignancy", "shift_score")
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return screenings.write_manifest(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def alone(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The results of one process."""
    out = tmp_path_factory.mktemp("alone")
    screenings.screened(manifest, out, "--part", "2")
    return screenings.rows_of(out)


def assert_same(rows: list[dict], others: list[dict]) -> None:
    """Every number within TOLERANCE, those of the Assessment too; everything else equal."""
    assert [row["row"] for row in rows] == [row["row"] for row in others]
    for row, other in zip(rows, others, strict=True):
        for name, value in row.items():
            if name in NUMBERS:
                assert_close(value, other[name], name)
            elif name == "assessment" and value is not None:
                assert_close(json.loads(value), json.loads(other[name]), name)
            else:
                assert value == other[name], (row["image"], name)


def assert_close(value, other, where: str) -> None:
    if isinstance(value, dict):
        assert value.keys() == other.keys(), where
        for key in value:
            assert_close(value[key], other[key], f"{where}.{key}")
    elif isinstance(value, list):
        assert len(value) == len(other), where
        for i, pair in enumerate(zip(value, other, strict=True)):
            assert_close(*pair, f"{where}.{i}")
    elif isinstance(value, float):
        assert math.isclose(value, other, abs_tol=TOLERANCE), (where, value, other)
    else:
        assert value == other, where


def test_a_killed_worker_costs_no_row_and_makes_none_twice(manifest: Path, alone: list[dict], tmp_path: Path) -> None:
    """A worker is killed when the first part is done: its part is made anew, by another process."""
    driver = screenings.start(manifest, tmp_path, "--part", "2", "--workers", "2")
    victim = _worker_in_the_middle(driver.pid, tmp_path)
    victim.kill()
    output, errors = driver.communicate(timeout=500)
    assert driver.returncode == 0, errors[-4000:]
    assert "16 rows" in output
    rows = screenings.rows_of(tmp_path)
    assert [row["row"] for row in rows] == list(range(16))
    assert_same(rows, alone)
    assert not list((tmp_path / "journal").iterdir())


def test_a_killed_run_goes_on_where_it_stopped(manifest: Path, alone: list[dict], tmp_path: Path) -> None:
    """Everything is killed at once, as when a machine loses its power; the same command goes on."""
    driver = screenings.start(manifest, tmp_path, "--part", "2", "--workers", "2")
    _worker_in_the_middle(driver.pid, tmp_path)
    for process in [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]:
        process.kill()
    driver.communicate()
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").glob("part-*.parquet")}
    assert done and not (tmp_path / "summary.json").exists()
    screenings.screened(manifest, tmp_path, "--part", "2", "--workers", "2")
    assert {path: path.stat().st_mtime_ns for path in done} == done  # not made again
    assert_same(screenings.rows_of(tmp_path), alone)


def _worker_in_the_middle(driver: int, out: Path, seconds: float = 400) -> psutil.Process:
    """A worker of a run of which a part is done and parts are missing."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done = len(list((out / "results").glob("part-*.parquet"))) if (out / "results").exists() else 0
        assert done < 8, "the run was over before a worker could be killed"
        if done and (workers := screenings.workers_of(driver)):
            return workers[0]
        time.sleep(0.02)
    raise AssertionError("no part was done in time")
