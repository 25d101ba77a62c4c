"""Recipes and configs written by hand: what is wrong is said with file, line and field, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from skinclip.core.config import PRESETS, ModelConfig, TrainConfig, load_yaml, save_yaml
from skinclip.core.strict_yaml import DEEPEST, ConfigError, read_yaml


def recipe(folder: Path, text: str) -> TrainConfig:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load_yaml(TrainConfig, path)


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "+0.001", ".001", "0.001", "1.e-3"])
def test_a_rate_is_read_however_it_is_written(tmp_path: Path, number: str) -> None:
    assert recipe(tmp_path, f"stage0:\n  lr: {number}\n").stage0.lr == 0.001


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stage0:\n  lr: -1e-3\n", r"line 2: stage0\.lr: .*greater than 0, got -0\.001"),
        ("stage1:\n  lr: 0\n", r"line 2: stage1\.lr"),
        ("stage1:\n  lr: 'fast'\n", r"line 2: stage1\.lr: .*number, got 'fast'"),
        ("stage1:\n  lr: .inf\n", r"line 2: stage1\.lr"),
        ("stage1:\n  lr: 1e999\n", r"line 2: stage1\.lr"),
        ("stage1:\n  steps: 10.5\n", r"line 2: stage1\.steps: .*integer, got 10\.5"),
        ("stage1:\n  steps: 0\n", r"line 2: stage1\.steps"),
        ("masks:\n  batch_size: yes\n", r"line 2: masks\.batch_size"),
        ("seed: abc\n", r"line 1: seed: .*integer, got 'abc'"),
        ("seed: -1\n", r"line 1: seed"),
        ("seed: true\n", r"line 1: seed"),
        ("seed: 99999999999999999999\n", r"line 1: seed"),
        ("seed: 1\nphoto_size: 9\nseed: 2\n", r"line 3: seed is given twice, first in line 1; keep one"),
        ("stage2:\n  lr: 1\n  lr: 2\n", r"line 3: stage2\.lr is given twice"),
        ("stage2: {lr: 1, lr: 2}\n", r"line 1: stage2\.lr is given twice"),
        ("stage2:\n  learning_rate: 1\n", r"line 2: there is no field stage2\.learning_rate"),
        ("stage2:\n  stories: 99\n", r"line 1: stage2: rationale_targets must lie in 0 to batch_size"),
        ("stage2:\n  stories: -1\n", r"line 2: stage2\.rationale_targets"),
        ("stage0:\n  phases: []\n", r"line 2: stage0\.phases"),
        ("stage0:\n  phases: [[96, 1.5]]\n", r"line 2: stage0\.phases\.0\.1"),
        ("stage0: 3\n", r"line 1: stage0"),
        ("stage0:\n\tlr: 1\n", r"line 2"),
        ("loss:\n  w_align: -1\n", r"line 2: loss\.w_align"),
        ("loss:\n  contrast_temperature: 0\n", r"line 2: loss\.contrast_temperature"),
        ("seed: &a 1\nphoto_size: *a\n", r"line 2: write the value out instead of an alias"),
        ("[" * 5000, rf"nested more than {DEEPEST} levels"),
        ("{a: " * 5000, rf"nested more than {DEEPEST} levels"),
        ("".join("  " * i + "a:\n" for i in range(5000))[:900_000], rf"nested more than {DEEPEST} levels"),
        ("? [a]\n: 1\n", r"line 1: a field's name must be a word"),
        ("- 1\n", "does not hold a mapping"),
        ("", "does not hold a mapping"),
        ("a: b: c\n", "line 1"),
        ("--- 1\n--- 2\n", "line 2"),
        ("!!python/object/apply:os.system ['x']\n", "could not determine a constructor"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"recipe\.yaml.*{said}|recipe\.yaml {said}"):
        recipe(tmp_path, text)


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"seed.*stage1\.steps|stage1\.steps.*seed"):
        recipe(tmp_path, "seed: a\nstage1:\n  steps: 1.5\n")


def test_a_file_of_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes("seed: 1 # für".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not UTF-8"):
        read_yaml(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_go_out_and_in(tmp_path: Path, name: str) -> None:
    save_yaml(PRESETS[name], tmp_path / "config.yaml")
    assert load_yaml(ModelConfig, tmp_path / "config.yaml") == PRESETS[name]


def test_configs_are_frozen_and_strict_in_python_too() -> None:
    with pytest.raises(AttributeError):
        TrainConfig().seed = 3  # type: ignore[misc]
    with pytest.raises(ValueError, match="photo_size"):
        TrainConfig(photo_size=1.5)  # type: ignore[arg-type]


def test_a_number_with_a_leading_zero_stays_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("code: 0123\nrate: 0.5\nfew: 1e-3\n")
    assert read_yaml(tmp_path / "a.yaml").values == {"code": "0123", "rate": 0.5, "few": 0.001}
