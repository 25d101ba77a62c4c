"""Configs written by earlier versions load under today's field names."""

from pathlib import Path

import pytest

from skinclip.core.config import (
    PRESETS,
    ModelConfig,
    Stage2Config,
    TrainConfig,
    from_dict,
    load_yaml,
    new_config,
    save_yaml,
)
from skinclip.core.known import FIRST_CRITERIA, FIRST_DIAGNOSES
from skinclip.core.vocabulary import CRITERION_CODES, DIAGNOSIS_CODES, EVIDENCE_STATES

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


def test_a_config_file_that_does_not_say_what_it_knows_knows_the_first_seven(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("preset: mini\n")
    config = load_yaml(ModelConfig, tmp_path / "config.yaml")
    assert config.diagnoses == FIRST_DIAGNOSES and config.criteria == FIRST_CRITERIA
    assert len(config.known.states) == 12 and len(config.known.unknown_states) == len(EVIDENCE_STATES) - 12
    save_yaml(config, tmp_path / "again.yaml")
    assert load_yaml(ModelConfig, tmp_path / "again.yaml") == config


def test_a_new_model_from_a_file_that_does_not_say_knows_everything(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("preset: mini\nperception: {image_size: 192}\n")
    config = new_config(tmp_path / "config.yaml")
    assert config.diagnoses == DIAGNOSIS_CODES and config.perception.image_size == 192
    (tmp_path / "config.yaml").write_text("diagnoses: [mel, nv]\n")
    assert new_config(tmp_path / "config.yaml").diagnoses == ("mel", "nv")


def test_a_new_model_knows_the_whole_vocabulary(tmp_path: Path) -> None:
    for config in (ModelConfig(), *PRESETS.values()):
        assert config.diagnoses == DIAGNOSIS_CODES and config.criteria == CRITERION_CODES
        save_yaml(config, tmp_path / "config.yaml")
        assert load_yaml(ModelConfig, tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"diagnoses": ["mel", "zzz"]}, "this version does not know zzz .*newer version"),
        ({"diagnoses": ["nv", "mel"]}, "diagnoses must be in the vocabulary's order, each once: mel, nv"),
        ({"diagnoses": ["mel", "mel"]}, "each once: mel"),
        ({"diagnoses": ["mel"]}, "at least 2"),
        ({"criteria": []}, "criteria must name at least 1"),
        ({"criteria": ["asymmetry"]}, "does not know asymmetry"),
    ],
)
def test_a_part_of_the_vocabulary_that_there_is_not_is_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_dict(ModelConfig, values)
