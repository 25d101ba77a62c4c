"""Figures by source and of skin tone, on made-up answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from eval_study.benchmarks import skin_tone, sources
from eval_study.benchmarks.common import Bench
from skinclip.calibration.calibrator import Calibrator, StyleSample
from skinclip.calibration.outputs import LabelledOutputs
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.data.cases import Case
from skinclip.reporting.markdown import section_markdown

C = len(DIAGNOSIS_CODES)
KINDS = ("dermoscopy", "clinical")


def made_up(n: int, kind: str, source: str, seed: int) -> LabelledOutputs:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, C, n)
    noise = 1.0 if kind == "dermoscopy" else 2.0
    one = LabelledOutputs.of_diagnoses(3 * np.eye(C)[labels] + rng.normal(0, noise, (n, C)), labels)
    style = rng.normal(0, 1, (n, 4)) + 6.0 * (kind == "clinical")
    ita = np.where(rng.random(n) < 0.1, np.nan, rng.normal(40, 10, n))
    return replace(one, style=style, kinds=np.full(n, kind), sources=np.full(n, source), ita=ita)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    photos = LabelledOutputs.joined([made_up(300, kind, "home", i) for i, kind in enumerate(KINDS)])
    styles = {k: StyleSample(photos.style[photos.kinds == k], photos.style[photos.kinds == k]) for k in KINDS}
    trust = Calibrator.fit(photos, styles, np.full(C, 1 / C), np.zeros(C))
    bench = Bench(tmp_path, tmp_path / "out", tmp_path / "work", n_boot=20)
    bench.__dict__.update(assessor=SimpleNamespace(calibrator=trust, model=None), sha="ab" * 32, tables={})
    return bench


def test_figures_of_each_group_are_those_of_its_photos(bench, monkeypatch) -> None:
    given = {
        "away dermoscopy": made_up(120, "dermoscopy", "away", 8),
        "phone clinical": made_up(90, "clinical", "p", 9),
    }
    monkeypatch.setattr(sources, "measured_cases", lambda bench: {name: [] for name in given})
    monkeypatch.setattr(sources, "answers", lambda bench, name, cases: given[name])
    result = sources.run(bench)
    calibrator = bench.assessor.calibrator
    for name, photos in given.items():
        out, figures = calibrator.apply(photos.logits, photos.style), result["groups"][name]
        right, answered = out.probabilities.argmax(axis=1) == photos.labels, out.in_domain & out.confident
        assert figures["accuracy"]["value"] == pytest.approx(right.mean())
        assert figures["answered"]["value"] == pytest.approx(answered.mean())
        if answered.any():
            assert figures["accuracy_answered"]["value"] == pytest.approx(right[answered].mean())
        assert figures["sensitivity"]["value"] == pytest.approx(out.refer[photos.malignant == 1].mean())
        assert figures["risk_coverage"][-1]["risk"] == pytest.approx(1 - right.mean())
        assert figures["recognised"]["clinical"] == pytest.approx(float("clinical" in name), abs=0.05)
    text = section_markdown(sources.section(bench_saved(bench, "sources", result)))
    assert "Worst sensitivity" in text and "phone clinical" in text and "home clinical" in text


def bench_saved(bench: Bench, name: str, result: dict) -> dict:
    """The result as it is read back from its file."""
    import json

    return json.loads(bench.save(name, result).read_text())


def test_no_photo_is_measured_that_was_fitted_on(bench, monkeypatch) -> None:
    def case(source: str, split: str, i: int) -> Case:
        close_up = Path(f"{i}c.jpg") if source in ("derm7pt", "milk10k") else None
        return Case(
            *(Path(f"{i}.jpg"), f"{source}{i}", source, f"{source}L{i}"),
            diagnosis="nv",
            split=split,
            clinical_image=close_up,
        )

    valid = [case(source, "valid", i) for source in ("ham10000", "derm7pt", "milk10k") for i in range(200)]
    calib = [case(source, "calib", 1000 + i) for source in ("ham10000", "milk10k") for i in range(9)]
    monkeypatch.setattr(sources, "gather", lambda root: {"valid": valid, "calib": calib})
    groups = sources.measured_cases(bench)
    assert {name: len(cases) for name, cases in groups.items() if "derm7pt" not in name} == {
        "ham10000 dermoscopy": 200,
        "milk10k clinical": 200,
        "milk10k dermoscopy": 200,
    }
    fitted = sources.calibration_cases(calib, valid)
    measured = {(c.source, c.image_id) for cases in groups.values() for c in cases}
    assert not measured & {(c.source, c.image_id) for c in fitted}
    assert 20 <= len(groups["derm7pt dermoscopy"]) == len(groups["derm7pt clinical"]) <= 80


def test_agreement_of_the_angle_with_the_labels(bench, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    tone = rng.integers(0, 6, 300)
    ita = np.where(np.arange(300) % 10 == 0, np.nan, 12.0 * tone - 10 + rng.normal(0, 5, 300))
    one = skin_tone.agreement(bench, ita, tone, [str(i // 2) for i in range(300)])
    assert one["n_measured"] == 270 and one["spearman"]["value"] > 0.9 and one["auroc_dark"]["value"] > 0.95
    from scipy.stats import spearmanr

    seen = np.isfinite(ita)
    assert one["spearman"]["value"] == pytest.approx(spearmanr(ita[seen], tone[seen]).statistic)
    result = {"meta": bench.meta(data="milk10k", splits=["valid"], dark=2), "kinds": {"clinical": one}}
    assert "270 of 300" in section_markdown(skin_tone.section(bench_saved(bench, "skin_tone", result)))
