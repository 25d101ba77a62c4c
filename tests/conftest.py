"""Shared fixtures: a tiny model of the true classes with random weights, made on the spot, no downloads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from skinclip.core.config import EvidenceConfig, LoraConfig, ModelConfig, QwenArchitecture, ReasonerConfig

pytest_plugins = ["tests.helpers.study_fixtures"]

TINY = ModelConfig(
    preset="mini",
    evidence=EvidenceConfig(adapter_width=32),
    reasoner=ReasonerConfig(
        architecture=QwenArchitecture(
            hidden_size=64, intermediate_size=128, layers=2, heads=4, kv_heads=2, mrope_section=(2, 3, 3)
        ),
        lora=LoraConfig(r=4, alpha=8, dropout=0.0),
        max_new_tokens=24,
    ),
)


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The data directory of every page that a test serves: not that of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SKINCLIP_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("SKINCLIP_STUDY_KEYS", str(tmp_path_factory.mktemp("keys")))
        yield


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets of drawn photos, to train on; tests must not change it."""
    from tests.training.test_run import made_up_data

    root = tmp_path_factory.mktemp("made_up")
    made_up_data(root)
    return root


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    return dataclasses.replace(TINY)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, tiny_config: ModelConfig):
    """An untrained SkinClipVL; tests must not change its weights."""
    from skinclip.model.skinclip_vl import new_model

    torch.manual_seed(1)
    model = new_model(tiny_config, tmp_path_factory.mktemp("tiny"))
    for name, parameter in model.reasoner.language_model.named_parameters():
        if "lora_B" in name:  # LoRA starts as the identity; a test of it needs it to do something
            torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


@pytest.fixture(scope="session")
def big_config(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    """A big preset on a tiny base and a tiny CLIP; see `tiny_hub`."""
    from tests.helpers.tiny_hub import tiny_base, tiny_clip, tiny_preset

    return tiny_preset(tiny_base(tmp_path_factory.mktemp("base")), tiny_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="session")
def big_checkpoint(tmp_path_factory: pytest.TempPathFactory, big_config: ModelConfig) -> Path:
    """A whole checkpoint of it; tests must not change its files."""
    from tests.helpers.tiny_hub import tiny_checkpoint

    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"), big_config)


@pytest.fixture(scope="session")
def big_assessor(big_config: ModelConfig, big_checkpoint: Path):
    """It loaded; tests must leave it as it is."""
    from skinclip.pipeline.assessor import Assessor

    return Assessor.load(big_config.preset, big_checkpoint)


@pytest.fixture
def embedded_weights() -> Path:
    from skinclip.core.paths import ASSETS

    return ASSETS / "mini"
