"""Configs written by earlier versions load under today's field names."""

from pathlib import Path

import pytest

from skinclip.core.config import ModelConfig, Stage2Config, TrainConfig, from_dict, load_yaml

ASSETS = Path(__file__).parents[2] / "assets"


def test_a_checkpoint_and_a_recipe_of_version_0_1_load() -> None:
    config = load_yaml(ModelConfig, ASSETS / "mini/config.yaml")
    recipe = load_yaml(TrainConfig, ASSETS / "mini/recipe.yaml")
    assert config.reasoner.paraphrases == 64
    assert recipe.stage2.rationale_targets == 8 and recipe.stage2.teacher_forcing == 0.5


def test_former_names_are_read_and_a_field_given_twice_is_refused() -> None:
    assert from_dict(Stage2Config, {"stories": 3, "told_criteria": 0.25}) == Stage2Config(
        rationale_targets=3, teacher_forcing=0.25
    )
    with pytest.raises(ValueError, match="rationale_targets is given twice"):
        from_dict(Stage2Config, {"stories": 3, "rationale_targets": 4})
    with pytest.raises(ValueError, match="there is no field stories"):
        from_dict(ModelConfig, {"stories": 3})
