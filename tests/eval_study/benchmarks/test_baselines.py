"""Baselines on made-up features and photos: what is compared with what, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eval_study.benchmarks import baselines, evidence, outside
from eval_study.benchmarks.common import Bench, finite
from eval_study.benchmarks.features import Features
from skinclip.core.config import preset
from skinclip.core.formatting import with_interval
from skinclip.core.vocabulary import CRITERIA, DIAGNOSIS_CODES
from skinclip.data.cases import Case
from skinclip.model.memory import inventory
from skinclip.pipeline.assessor import Assessor
from skinclip.reporting.markdown import section_markdown
from skinclip.training.photo_sets import PhotoSet

RESULTS = Path(__file__).resolve().parents[3] / "eval_study" / "results"
PRIOR = np.full(9, 1 / 9)


def features(n: int, split: str, noise: float = 0.5) -> Features:
    """Embeddings that tell the class, up to noise."""
    g = torch.Generator().manual_seed(n)
    labels = torch.arange(n) % 9
    cases = [
        Case(Path(f"{split}{i}.png"), f"{split}{i}", "ham10000", f"{split}{i // 2}", DIAGNOSIS_CODES[c], split=split)
        for i, c in enumerate(labels.tolist())
    ]
    photos = PhotoSet(
        cases,
        torch.randint(0, 255, (n, 3, 32, 32), dtype=torch.uint8, generator=g),
        torch.full((n, 32, 32), 255, dtype=torch.uint8),
        labels,
        torch.full((n, len(CRITERIA)), -1),
        torch.zeros(n, dtype=torch.bool),
    )
    embeddings = (torch.eye(9)[labels] + noise * torch.randn(n, 9, generator=g)).unsqueeze(0)
    empty = torch.zeros(1, n, 1, 1)
    return Features(np.zeros((1, n, 1, 1)), embeddings, torch.zeros(1, n, 2), empty, empty, torch.zeros(n, 1), photos)


@pytest.fixture(scope="module")
def sets() -> dict[str, Features]:
    return {"train": features(270, "train"), "calib": features(180, "calib"), "valid": features(180, "valid", 0.6)}


def test_linear_probe_reads_the_features_and_answers_in_probabilities(sets) -> None:
    figures = baselines.linear_probe(sets, ("valid",))
    assert set(figures) == {"valid"} and np.allclose(figures["valid"].sum(axis=1), 1)
    assert (figures["valid"].argmax(axis=1) == sets["valid"].photos.diagnosis.numpy()).mean() > 0.5


def test_differences_are_ours_less_theirs_on_the_same_photos(sets, tmp_path) -> None:
    labels = sets["valid"].photos.diagnosis.numpy()
    right, wrong = np.eye(9)[labels] * 0.91 + 0.01, np.eye(9)[(labels + 1) % 9] * 0.91 + 0.01
    bench = Bench(tmp_path, tmp_path, tmp_path, n_boot=50)
    ours = SimpleNamespace(probabilities=right, balanced=right)
    bench._measured[("ham10000", "valid")] = ours  # type: ignore[assignment]
    systems = {"no_language-0": {"valid": right}, "no_language-1": {"valid": wrong}, "zero_shot": {"valid": wrong}}
    figures = baselines.compare(bench, sets["valid"], systems, PRIOR, "valid")
    rows = figures["systems"]
    assert figures["n"] == 180 and rows["shipped"]["balanced_accuracy"]["value"] == 1
    assert rows["zero_shot"]["balanced_accuracy"]["shipped_less_this"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert rows["no_language"]["balanced_accuracy"]["value"] == 0.5  # mean of a right and a wrong seed
    assert rows["no_language"]["nll"]["shipped_less_this"]["value"] < 0
    text = section_markdown(baselines.section({"meta": {"not_measured": ["plain"]}, "valid": figures}))
    assert "not measured yet" in text and baselines.TITLES["zero_shot"] in text
    assert "(figures/baselines.svg)" in text


def test_mirrored_photos_keep_their_labels(sets) -> None:
    photos = sets["valid"].photos
    turned = baselines.mirrored(photos, (3,))
    assert torch.equal(turned.photos[:, :, :, 0], photos.photos[:, :, :, -1])
    assert torch.equal(turned.diagnosis, photos.diagnosis) and turned.cases == photos.cases


def test_evidence_section_tells_every_readout(tmp_path) -> None:
    figure = {"value": 0.5, "low": 0.4, "high": 0.6}
    keys = ("balanced_accuracy", "share_of_full", "auroc_macro", "changed", "total_variation")
    result = {"valid": {"n": 3, "readouts": {name: dict.fromkeys(keys, figure) for name in evidence.READOUTS}}}
    text = section_markdown(evidence.section(result))
    assert all(title in text for title in evidence.TITLES.values()) and "0.500 (0.400-0.600)" in text


def test_sizes_are_of_all_that_runs_and_those_of_the_report() -> None:
    figures = json.loads((RESULTS / "outside.json").read_text())["presets"]
    for name in outside.PRESETS:
        parts = outside.parameters(name)
        assert parts == figures[name]["parts"] and figures[name]["total"] == sum(parts.values())
        assert parts["LoRA"] > 0 and parts["evidence and heads"] > 0
        assert sum(parts.values()) == inventory(preset(name)).parameters()  # none is left out
    own = Assessor.load("mini").model
    # the words of a checkpoint made before some diagnoses and criteria are a few fewer
    assert figures["mini"]["total"] == pytest.approx(sum(p.numel() for p in own.parameters()), rel=2e-4)


def test_the_report_prints_figures_with_their_intervals() -> None:
    assert with_interval({"value": 0.71234, "low": 0.65, "high": 0.7712}) == "0.712 (0.650-0.771)"
    assert with_interval({"value": 0.01, "low": -0.02, "high": 0.04}, sign=True) == "+0.010 (−0.020 to +0.040)"
    assert with_interval({"value": 0.5, "low": None, "high": None}) == "0.500"
    assert with_interval(None) == with_interval({}) == "–"


def test_results_are_plain_json() -> None:
    figures = finite({1: np.float32(0.25), "a": [np.int64(3), float("nan"), (True, np.bool_(False))], "b": np.zeros(2)})
    assert figures == {"1": 0.25, "a": [3, None, [True, False]], "b": [0.0, 0.0]}
    assert type(figures["a"][0]) is int and figures["a"][2][1] is False
