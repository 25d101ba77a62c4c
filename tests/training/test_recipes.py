"""Recipes and launch settings that come with the package, and the picture of a training."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from PIL import Image

import skinclip
from skinclip.cli import main as cli
from skinclip.core.config import PRESETS, TrainConfig, preset
from skinclip.core.paths import ASSETS
from skinclip.training.csv_log import CsvLog
from skinclip.training.run import RECIPES, recipe_of

LAUNCH = RECIPES.parent / "accelerate"


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_recipe_that_says_how_to_run_it(name: str) -> None:
    head = (RECIPES / f"{name}.yaml").read_text().split("\nseed:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert f"python -m skinclip train --preset {name} --data ROOT" in head and "Research use only" in head
    recipe, config = recipe_of(name), preset(name)
    assert recipe.photo_size >= config.photo_side
    views = recipe.stage2.batch_size + recipe.stage2.second_views
    if config.reasoner.base is not None:
        assert recipe.stage2.gradient_checkpointing and recipe.stage2.micro_batch == 1
        for processes in (1, 2, 4, 8):  # as its head says
            assert (
                recipe.stage2.rationale_targets % processes == 0
                and (views - recipe.stage2.rationale_targets) % processes == 0
            )
            assert recipe.masks.batch_size % processes == 0


def test_the_recipe_of_mini_is_what_it_was_trained_by() -> None:
    assert recipe_of("mini", ASSETS / "mini" / "recipe.yaml") == recipe_of("mini", RECIPES / "two_looks.yaml")
    assert recipe_of("mini") == recipe_of("plain") == TrainConfig()


@pytest.mark.parametrize(("name", "kind"), [("ddp", "MULTI_GPU"), ("fsdp", "FSDP")])
def test_launch_settings_are_read_by_accelerate(name: str, kind: str) -> None:
    settings = load_config_from_file(str(LAUNCH / f"{name}.yaml"))
    assert settings.distributed_type == kind and settings.mixed_precision == "no"
    if name == "fsdp":
        given = settings.fsdp_config
        assert given["fsdp_version"] == 2 and not given["fsdp_cpu_ram_efficient_loading"]
        assert given["fsdp_transformer_layer_cls_to_wrap"] == "Qwen2_5_VLDecoderLayer,Qwen2_5_VLVisionBlock"
    for line in (LAUNCH / f"{name}.yaml").read_text().splitlines():
        if "--config_file" in line:
            assert f"skinclip/training/accelerate/{name}.yaml" in line


def test_recipes_and_settings_come_with_the_package() -> None:
    # hatchling takes every file below skinclip/; tests/test_packaging.py looks into the wheel
    package = Path(skinclip.__file__).parent
    assert RECIPES.is_relative_to(package) and LAUNCH.is_relative_to(package)
    assert {p.suffix for folder in (RECIPES, LAUNCH) for p in folder.iterdir()} == {".yaml"}
    assert all(yaml.safe_load(p.read_text()) for folder in (RECIPES, LAUNCH) for p in folder.iterdir())


def test_a_training_is_drawn(tmp_path, capsys) -> None:
    assert cli.main(["plot-training", str(tmp_path)]) == 2
    assert "holds no log.csv" in capsys.readouterr().err
    log = CsvLog(tmp_path / "log.csv", "stage2")
    assert cli.main(["plot-training", str(tmp_path)]) == 2
    assert "nothing was trained there yet" in capsys.readouterr().err
    for step in range(30):
        log.write(step, {"focal": 2 / (step + 1), "total": 9 / (step + 1)})
    assert cli.main(["plot-training", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "log.png")
    with Image.open(tmp_path / "log.png") as drawn:
        assert drawn.size[0] > 1000 and "Software" not in drawn.info
        two_panels = drawn.convert("L").crop((0, 0, drawn.size[0] // 2, drawn.size[1]))
        assert two_panels.getextrema()[0] < 100
        none = drawn.convert("L").crop((drawn.size[0] * 3 // 4, 0, *drawn.size))
        assert none.getextrema() == (255, 255)
    (tmp_path / "log.csv").write_text("a,b\n1,2\n")
    assert cli.main(["plot-training", str(tmp_path)]) == 2


def test_rows_after_the_checkpoint_are_taken_back(tmp_path) -> None:
    path = tmp_path / "log.csv"
    CsvLog(path, "masks").write(0, {"mask": 1.0})
    log = CsvLog(path, "stage2")
    log.write(0, {"focal": 1 / 3, "total": 2.0})
    saved = log.rows
    log.write(1, {"focal": 0.3, "total": 1.9})
    with path.open("a") as file:
        file.write("stage2,2,foc")  # killed while it wrote
    again = CsvLog(path, "stage2", saved)
    assert path.read_text() == "stage,step,name,value\nmasks,0,mask,1\nstage2,0,focal,0.333333333\nstage2,0,total,2\n"
    again.write(1, {"focal": 0.3})
    assert again.rows == 3 and CsvLog(path, "masks", 1).rows == 1 and len(path.read_text().splitlines()) == 5


def test_big_presets_write_freely_under_the_rules_of_citation() -> None:
    for name in PRESETS:
        assert (preset(name).reasoner.paraphrases == 0) == (preset(name).reasoner.base is not None)
