"""Baselines on made-up features and photos: what is compared with what, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eval_study.benchmarks import baselines, evidence, losses, outside
from eval_study.benchmarks.common import Bench, finite
from eval_study.benchmarks.features import AssessedPhotos, Features
from skinclip.core.config import LossConfig, ModelConfig, TrainConfig, load_yaml, preset
from skinclip.core.formatting import with_interval
from skinclip.core.paths import ASSETS
from skinclip.core.vocabulary import CRITERIA, DIAGNOSIS_CODES
from skinclip.data.cases import Case
from skinclip.model.checkpoint import create_model
from skinclip.model.memory import inventory
from skinclip.reporting.markdown import section_markdown
from skinclip.training.photo_sets import PhotoSet
from skinclip.training.views import ViewStore

RESULTS = Path(__file__).resolve().parents[3] / "eval_study" / "results"
PRIOR = np.full(9, 1 / 9)


def features(folder: Path, n: int, split: str, noise: float = 0.5) -> Features:
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
    (folder / split).mkdir()
    kinds = {"embedding": ((9,), torch.float32), "style": ((2,), torch.float32)}
    store = ViewStore(folder / split, kinds, n, 1)
    store.parts["embedding"][:] = torch.eye(9)[labels] + noise * torch.randn(n, 9, generator=g)
    return Features(photos, AssessedPhotos(photos), store, (1, 1))


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, Features]:
    folder = tmp_path_factory.mktemp("sets")
    made = {"train": (270, 0.5), "calib": (180, 0.5), "valid": (180, 0.6)}
    return {split: features(folder, n, split, noise) for split, (n, noise) in made.items()}


def test_linear_probe_reads_the_features_and_answers_in_probabilities(sets) -> None:
    figures = baselines.linear_probe(sets, ("valid",))
    assert set(figures) == {"valid"} and np.allclose(figures["valid"].sum(axis=1), 1)
    assert (figures["valid"].argmax(axis=1) == sets["valid"].photos.diagnosis.numpy()).mean() > 0.5


def test_the_readout_alone_is_brought_from_even_shares_to_the_natural_ones(sets, monkeypatch) -> None:
    readout = torch.nn.Linear(11, 9)
    with torch.no_grad():
        readout.weight.copy_(torch.eye(9, 11) * 4)
        readout.bias.zero_()
    read = SimpleNamespace(read=lambda embedding, style, patient: readout(torch.cat([embedding, style], 1)))
    known = SimpleNamespace(unknown_columns=(8,))
    model = SimpleNamespace(reasoner=SimpleNamespace(readout=read), known=known)
    priors: list[np.ndarray] = []
    calibrated = losses.calibrated
    monkeypatch.setattr(losses, "calibrated", lambda *given: (priors.append(given[2]), calibrated(*given))[1])
    figures = baselines.readout_alone(model, sets, ("valid",))["readout"]["valid"]
    labels = sets["valid"].photos.diagnosis.numpy()
    assert (figures.argmax(axis=1) == labels)[labels < 8].mean() > 0.5 and (figures[:, 8] < 1e-9).all()
    assert np.allclose(priors[0], PRIOR)
    model.reasoner.readout = None
    assert baselines.readout_alone(model, sets, ("valid",)) == {}


@pytest.mark.parametrize("by_source", [True, False])
def test_zero_shot_stands_at_the_prior_that_its_tower_was_trained_at(sets, monkeypatch, by_source) -> None:
    tower = SimpleNamespace(similarity_scale=lambda: torch.tensor(10.0))
    model = SimpleNamespace(description_bank=torch.eye(9).unsqueeze(1), perception=SimpleNamespace(tower=tower))
    monkeypatch.setattr(losses, "calibrated", lambda logits, sets, prior: {"valid": logits["valid"], "prior": prior})
    recipe = TrainConfig(loss=LossConfig(by_source=by_source))
    found = baselines.zero_shot(model, recipe, sets, ("valid",))
    assert np.allclose(found["valid"], sets["valid"].part("embedding")[:, 0].numpy() * 10, atol=1e-5)
    drawn = baselines.drawn_prior(sets["train"].photos, recipe.stage0)
    assert np.allclose(found["prior"], PRIOR if by_source else drawn)


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


@pytest.mark.parametrize(("auroc", "nll", "said"), [(-0.01, 0.02, True), (0.02, 0.02, False), (-0.01, -0.02, False)])
def test_the_report_begins_with_a_language_part_that_adds_nothing(auroc: float, nll: float, said: bool) -> None:
    def less(value: float) -> dict:
        return {"shipped_less_this": {"value": value, "low": value - 0.01, "high": value + 0.01}}

    result = {"meta": {}, "test": {"systems": {"readout": {"auroc_macro": less(auroc), "nll": less(nll)}}}}
    assert baselines.headline(result).startswith("The language part adds nothing") is said
    assert baselines.headline({"meta": {}, "test": {"systems": {}}}) == ""


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
    configs = {name: preset(name) for name in outside.PRESETS}
    configs["mini"] = load_yaml(ModelConfig, ASSETS / "mini" / "config.yaml")
    for name, config in configs.items():
        parts = outside.parameters(config)
        assert parts == figures[name]["parts"] and figures[name]["total"] == sum(parts.values())
        assert parts["LoRA"] > 0 and parts["evidence and heads"] > 0
        assert sum(parts.values()) == inventory(config).parameters()  # none is left out
    own, _ = create_model("mini")
    assert figures["mini"]["total"] == sum(p.numel() for p in own.parameters())


def test_the_report_prints_figures_with_their_intervals() -> None:
    assert with_interval({"value": 0.71234, "low": 0.65, "high": 0.7712}) == "0.712 (0.650-0.771)"
    assert with_interval({"value": 0.01, "low": -0.02, "high": 0.04}, sign=True) == "+0.010 (−0.020 to +0.040)"
    assert with_interval({"value": 0.5, "low": None, "high": None}) == "0.500"
    assert with_interval(None) == with_interval({}) == "–"


def test_a_plain_classifier_of_fewer_diagnoses_is_calibrated_on_those(monkeypatch) -> None:
    generator = torch.Generator().manual_seed(0)
    diagnosis = torch.randint(0, 9, (60,), generator=generator)
    logits = 3 * torch.nn.functional.one_hot(diagnosis, 9).float() + torch.randn(60, 9, generator=generator)
    logits[:, 7:] = -torch.inf  # which the shipped one, of the first seven, does not know
    monkeypatch.setattr(baselines, "plain_logits", lambda model, photos: logits)
    monkeypatch.setattr(baselines, "mirrored", lambda photos, axes: photos)
    photos = PhotoSet(*[None] * 3, diagnosis, None, None)  # type: ignore[arg-type]
    monkeypatch.setattr(PhotoSet, "__len__", lambda self: 60)
    systems = baselines.plain({split: SimpleNamespace(photos=photos) for split in ("calib", "test")}, ("test",))
    for name, of in systems.items():
        assert of["test"].sum(1) == pytest.approx(np.ones(60), abs=1e-6), name
        assert not of["test"][:, 7:].any() and (of["test"].argmax(1) == diagnosis.numpy())[diagnosis < 7].mean() > 0.8


def test_results_are_plain_json() -> None:
    figures = finite({1: np.float32(0.25), "a": [np.int64(3), float("nan"), (True, np.bool_(False))], "b": np.zeros(2)})
    assert figures == {"1": 0.25, "a": [3, None, [True, False]], "b": [0.0, 0.0]}
    assert type(figures["a"][0]) is int and figures["a"][2][1] is False
