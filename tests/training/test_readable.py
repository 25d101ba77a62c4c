"""What stands in the way of a training is said before it begins, and one bad photo does not stop it."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from skinclip.cli import main as cli
from skinclip.core.config import preset as preset_config
from skinclip.core.config import save_yaml
from skinclip.data.cases import Case, DataError
from skinclip.training import run
from skinclip.training.photo_sets import PhotoSet
from skinclip.training.readable import readable
from skinclip.training.run import check_enough, model_of
from tests.training.test_run import RECIPE


@pytest.fixture
def cases(tmp_path: Path) -> dict[str, list[Case]]:
    for name in "abcdef":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((64, 64, 3), 90, np.uint8))
        cv2.imwrite(str(tmp_path / f"{name}_mask.png"), np.pad(np.full((32, 32), 255, np.uint8), 16))

    def case(name: str, split: str) -> Case:
        photo = tmp_path / f"{name}.png"
        return Case(
            source="s", image_id=name, image=photo, lesion_id=name, split=split, mask=photo.with_stem(f"{name}_mask")
        )

    return {"train": [case(n, "train") for n in "abcd"], "calib": [case(n, "calib") for n in "ef"]}


def test_unreadable_photos_are_named_left_out_and_counted(
    cases: dict[str, list[Case]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:60])
    (tmp_path / "e.png").write_bytes(b"")
    (tmp_path / "c_mask.png").write_text("no picture")
    with caplog.at_level(logging.WARNING):
        kept = readable(cases, tmp_path / "cache")
    assert [c.image_id for c in kept["train"]] == ["a", "c", "d"] and [c.image_id for c in kept["calib"]] == ["f"]
    assert [c.mask is None for c in kept["train"]] == [False, True, False]
    for name in ("b.png", "e.png", "c_mask.png"):
        assert f"left out: {tmp_path / name}: " in caplog.text
    assert "3 files cannot be read, 2 of 6 photos are left out" in caplog.text


def test_strict_stops_at_them(cases: dict[str, list[Case]], tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.png.*1 file cannot be read, 1 of 6 photos"):
        readable(cases, tmp_path / "cache", strict=True)


def test_a_photo_that_was_replaced_is_read_again(cases: dict[str, list[Case]], tmp_path: Path) -> None:
    whole = (tmp_path / "b.png").read_bytes()
    (tmp_path / "b.png").write_bytes(b"")
    assert len(readable(cases, tmp_path / "cache")["train"]) == 3
    (tmp_path / "b.png").write_bytes(whole)
    assert len(readable(cases, tmp_path / "cache")["train"]) == 4


def test_no_readable_photo_at_all_is_an_error(cases: dict[str, list[Case]], tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.png").unlink()
    with pytest.raises(DataError, match="no training photo can be read"):
        readable(cases, tmp_path / "cache")


def some_photos(n: int, unseen: int) -> PhotoSet:
    return PhotoSet(
        [],
        torch.zeros(n, 3, 2, 2, dtype=torch.uint8),
        torch.zeros(n, 2, 2, dtype=torch.uint8),
        torch.arange(n) % 5,
        torch.full((n, 9), -1),
        torch.arange(n) < unseen,
    )


@pytest.mark.parametrize(
    ("photos", "unseen", "published", "said"),
    [
        (5, 0, False, "stage2 learns from batches of 6 photos, but there are only 5"),
        (9, 2, False, "stage0 learns from batches of 8 photos, but there are only 7"),
        (9, 2, True, None),
        (30, 9, False, None),
    ],
)
def test_fewer_photos_than_a_batch_are_refused(photos: int, unseen: int, published: bool, said: str | None) -> None:
    if said is None:
        check_enough(RECIPE, some_photos(photos, unseen), published)
    else:
        with pytest.raises(DataError, match=said):
            check_enough(RECIPE, some_photos(photos, unseen), published)


def test_a_model_config_takes_the_place_of_a_preset(tmp_path: Path) -> None:
    config = preset_config("qwen-3b")
    moved = dataclasses.replace(config, reasoner=dataclasses.replace(config.reasoner, base="/elsewhere", revision=None))
    save_yaml(moved, tmp_path / "model.yaml")
    assert model_of(None, tmp_path / "model.yaml") == ("qwen-3b", moved)
    assert model_of("qwen-3b", tmp_path / "model.yaml") == ("qwen-3b", moved)
    assert model_of(None, None) == ("mini", preset_config("mini"))
    with pytest.raises(DataError, match="is a config of qwen-3b, not of mini; leave --preset out"):
        model_of("mini", tmp_path / "model.yaml")


def test_the_baseline_refuses_fewer_photos_than_a_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    few = some_photos(RECIPE.stage0.batch_size - 1, 0)
    monkeypatch.setattr(run, "gather_calibrated", lambda *_: {"train": few.cases, "calib": few.cases})
    monkeypatch.setattr(run, "training_photos", lambda *_: few)
    monkeypatch.setattr(run, "photo_set", lambda *_: few)
    with pytest.raises(DataError, match="stage0 learns from batches of"):
        run.train_baseline(RECIPE, tmp_path, tmp_path / "work", tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preset": "huge"}, "no preset 'huge'"),
        ({"reasoner": {"base": "./reasoner"}}, "merged weights, which are not trained"),
        ({"reasoner": {"base": "/elsewhere"}}, "go together"),
    ],
)
def test_a_model_config_that_cannot_be_trained_is_refused(tmp_path: Path, change: dict, said: str) -> None:
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(change))
    with pytest.raises(ValueError, match=said):
        model_of(None, tmp_path / "model.yaml")


def test_the_command_refuses_before_it_reads_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "recipe.yaml").write_text("stage1:\n  lr: fast\n")
    assert cli.main(["train", "--data", str(tmp_path), "--recipe", str(tmp_path / "recipe.yaml")]) == 2
    assert "line 2: stage1.lr" in capsys.readouterr().err
    (tmp_path / "model.yaml").write_text("reasoner:\n  bases: x\n")
    assert cli.main(["train", "--data", str(tmp_path), "--config", str(tmp_path / "model.yaml")]) == 2
    assert "line 2: there is no field reasoner.bases" in capsys.readouterr().err
