"""The load measurement: what it counts as a mix-up and as a failure, and a short run against the real page."""

from __future__ import annotations

import json
from pathlib import Path

from eval_study.reliability import load
from eval_study.reliability.load import Assessed, MemoryWatch, PhotoMaker

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


def test_every_photo_is_one_of_a_kind() -> None:
    photos = [maker.photo() for maker in (PhotoMaker(1), PhotoMaker(2)) for _ in range(3)]
    assert len(set(photos)) == 6


def test_an_answer_without_its_hash_or_with_anothers_is_a_mix_up() -> None:
    record = Assessed(photos={A, B})
    load._check(f"answer {A} by model {C}", A, record)
    assert record.mixed_up == 0
    load._check(f"answer {B}", A, record)
    load._check(f"answer {A} and {B}", A, record)
    load._check("answer", A, record)
    assert record.mixed_up == 3


def test_failures_are_said() -> None:
    fine = Assessed(seconds=[1.0, 2.0], full=3)
    assert load.failures(fine, [], {"page_growth": 0.01}) == []
    bad = Assessed(mixed_up=1)
    bad.errors["PageFault: 500"] += 2
    rated = [{"lost": 1, "doubled": 0, "misplaced": 0, "problems": ["the log is cut"]}]
    said = load.failures(bad, rated, {"page_growth": 0.2})
    assert said[0] == "2 times PageFault: 500" and "memory grew by 20.0% after the warm-up" in said
    assert {"nothing was assessed", "1 answers of readers lost", "the log is cut"} <= set(said)


def test_growth_leaves_out_the_warm_up() -> None:
    watch = MemoryWatch()
    watch.samples["page"] = [(0.0, float(size)) for size in (*range(100, 1100, 50), *[1000] * 80)]
    assert watch.growth()["page_growth"] == 0.0
    assert watch.growth()["page_mb_at_the_end"] == 1000


def test_a_short_run(tmp_path: Path) -> None:
    words = ["--minutes", "0.2", "--clinicians", "2", "--clinician-pause", "0.5", "--readers", "0"]
    assert load.main([*words, "--out", str(tmp_path)]) in (0, 1)  # memory still warms up in twelve seconds
    result = json.loads((tmp_path / load.NAME).read_text())
    assert result["clinicians"]["assessed"] > 0 and result["clinicians"]["mixed_up"] == 0
    assert result["clinicians"]["errors"] == {}
