"""The scarcity benchmark goes on where it stopped, trains each share once and says what is not measured yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval_study.benchmarks import scarcity
from eval_study.benchmarks.common import Bench
from skinclip.core.config import EvidenceConfig, ModelConfig, TrainConfig, save_yaml
from skinclip.data.cases import Case, DataError
from skinclip.reporting.markdown import section_markdown

FIGURE = {"value": 0.5, "low": 0.4, "high": 0.6}


class Stopped(Exception):
    pass


@pytest.fixture
def bench(tmp_path, monkeypatch) -> Bench:
    cases = [Case(Path(f"{i}.png"), str(i), "ham10000", f"L{i}", "nv", split="train") for i in range(400)]
    monkeypatch.setattr(scarcity, "gather", lambda data: {"train": cases})
    monkeypatch.setattr(
        scarcity,
        "measured",
        lambda b, split: {"n": 9, "whose": str(b.weights), **dict.fromkeys(scarcity.FIGURES, FIGURE)},
    )
    made = Bench(tmp_path, tmp_path / "out", tmp_path / "work", n_boot=10, command="a command")
    made.__dict__["sha"] = "ab" * 32
    made.weights = tmp_path / "shipped"
    made.weights.mkdir()
    save_yaml(ModelConfig(), made.weights / "config.yaml")
    (made.weights / "findings.json").write_text("{}")
    return made


def fake_training(log: list[float], stop_at: float | None = None):
    def train(config, recipe, data, work, out):
        if recipe.share == stop_at:
            raise Stopped
        log.append(recipe.share)
        (work / "reasoner").mkdir(parents=True, exist_ok=True)
        out.mkdir(parents=True, exist_ok=True)
        save_yaml(recipe, out / "recipe.yaml")
        (out / "findings.json").write_text("{}")

    return train


def test_shares_are_trained_once_and_kept_when_stopped(bench, tmp_path, monkeypatch) -> None:
    trained: list[float] = []
    monkeypatch.setattr(scarcity, "train", fake_training(trained, stop_at=0.5))
    with pytest.raises(Stopped):
        scarcity.run(bench, ("valid",), TrainConfig())
    kept = bench.kept("scarcity")
    assert list(kept["shares"]) == ["0.12", "0.25", "1"] and kept["meta"]["unfinished"] == [0.5]
    assert "Not measured yet: 50%" in section_markdown(scarcity.section(kept))
    monkeypatch.setattr(scarcity, "train", fake_training(trained))
    whole = scarcity.run(bench, ("valid",), TrainConfig())
    assert trained == [0.12, 0.25, 0.5] and whole["meta"]["unfinished"] == []
    assert list(whole["shares"]) == ["0.12", "0.25", "0.5", "1"]
    assert whole["shares"]["0.12"]["valid"]["whose"].endswith("scarcity/0.12/checkpoint")
    assert whole["shares"]["1"]["valid"]["whose"].endswith("shipped")  # the shipped weights
    photos = [row["photos"] for row in whole["shares"].values()]
    assert photos == sorted(photos) and photos[-1] == 400 and 150 < photos[2] < 250
    text = section_markdown(scarcity.section(whole))
    assert "Not measured yet" not in text and "| 12% |" in text
    assert "(figures/scarcity.svg)" in text


def test_a_tower_from_elsewhere_is_not_compared_with_shares_of_its_training(bench, tmp_path) -> None:
    bench.weights = tmp_path / "weights"
    bench.weights.mkdir()
    save_yaml(ModelConfig(evidence=EvidenceConfig(kind="pyramid")), bench.weights / "config.yaml")
    with pytest.raises(DataError, match="trained on a GPU"):
        scarcity.run(bench, ("valid",))


def test_time_spent_survives_a_stop_and_another_recipe_trains_anew(bench, monkeypatch) -> None:
    trained: list[float] = []
    folder = bench.work / "scarcity" / "0.12"
    monkeypatch.setattr(scarcity, "train", fake_training(trained, stop_at=0.12))
    with pytest.raises(Stopped):
        scarcity.run(bench, ("valid",), TrainConfig())
    assert scarcity.spent(folder) >= 0 and (folder / "seconds").exists()
    (folder / "seconds").write_text("100")
    monkeypatch.setattr(scarcity, "train", fake_training(trained))
    whole = scarcity.run(bench, ("valid",), TrainConfig())
    assert whole["meta"]["train_seconds"] >= 100 and trained == [0.12, 0.25, 0.5]
    bench.forget("scarcity")
    scarcity.run(bench, ("valid",), TrainConfig())
    assert len(trained) == 3  # the same recipe: measured anew, not trained anew
    bench.forget("scarcity")
    scarcity.run(bench, ("valid",), TrainConfig(seed=1))
    assert len(trained) == 6
