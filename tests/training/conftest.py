"""A tiny `qwen-3b` with everything that it is trained from: base, CLIP, data set and recipe."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from skinclip.core import config
from skinclip.core.config import MaskConfig, Stage2Config, TrainConfig
from tests.helpers.tiny_hub import registered_clip, tiny_base, tiny_clip, tiny_preset
from tests.training.test_run import made_up_data
from tests.training.tiny_train import without_dropout

BIG_RECIPE = TrainConfig(
    photo_size=128,
    masks=MaskConfig(steps=3, batch_size=4, log_every=1, save_every=2),
    stage2=Stage2Config(
        steps=4,
        batch_size=4,
        second_views=2,
        rationale_targets=2,
        paraphrases=8,
        micro_batch=1,
        gradient_checkpointing=True,
        lora_rate=0.4,
        log_every=1,
        save_every=2,
    ),
)


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base`, `clip` and `data`."""
    root = tmp_path_factory.mktemp("hub")
    tiny_base(root / "base")
    tiny_clip(root / "clip")
    made_up_data(root / "data", side=192)
    return root


@pytest.fixture
def big(hub: Path, monkeypatch: pytest.MonkeyPatch) -> config.ModelConfig:
    """The preset `qwen-3b`, tiny and without dropout, wherever a preset is asked for by its name."""
    tiny = without_dropout(tiny_preset(hub / "base", registered_clip(hub / "clip")))
    monkeypatch.setitem(config.PRESETS, "qwen-3b", tiny)
    return tiny


@pytest.fixture
def command(hub: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The words of a training command: `command("name", steps=6)` works in `name` and writes to `name-out`."""

    def words(name: str, **stage2: Any) -> list[str]:
        recipe = dataclasses.replace(BIG_RECIPE, stage2=dataclasses.replace(BIG_RECIPE.stage2, **stage2))
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config.to_dict(recipe)))
        folders = [
            "--data",
            hub / "data",
            "--recipe",
            path,
            "--work",
            tmp_path / name,
            "--out",
            tmp_path / f"{name}-out",
        ]
        return ["train", "--preset", "qwen-3b", *map(str, folders)]

    return words
