"""Training by several processes, and training that is killed: the same as one process that is left alone."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from skinclip import cli
from skinclip.config import TrainConfig, preset
from skinclip.data.cases import DataError
from skinclip.train import RECIPES, train
from skinclip.training.processes import Team
from tests.training.conftest import BIG_RECIPE

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("tiny_train.py")
MINUTES = 4  # a busy computer may need them; a quiet one is done in a quarter of one
# gradient zero but for rounding, as batch normalisation takes the mean out again: Adam makes steps of the rounding
ROUNDING = ("mask_head.lateral", "mask_head.refine.2.bias", "mask_head.refine.0.running", "mask_head.refine.3.running")


def start(words: list[str]) -> subprocess.CompletedProcess:
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60 * MINUTES)


def launch(settings: str, hub: Path, words: list[str]) -> subprocess.CompletedProcess:
    """Two processes by `accelerate launch`, on the CPU, as the package's launch settings have it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    how = ["--config_file", str(RECIPES.parent / f"accelerate/{settings}.yaml"), "--main_process_port", port]
    how += ["--num_processes", "2", str(SCRIPT), str(hub), "--no-dropout"]
    return start([sys.executable, "-m", "accelerate.commands.launch", *how, *words])


def losses(work: Path) -> pd.Series:
    return pd.read_csv(work / "log.csv").set_index(["stage", "step", "name"])["value"]


def compare(alone: Path, together: Path) -> None:
    """Losses of all steps within 1e-4, and all that was learnt, as it stands after the last of them."""
    one, two = losses(alone), losses(together)
    pd.testing.assert_series_equal(one, two, atol=1e-4, rtol=0)
    assert sorted({step for stage, step, _ in one.index if stage == "stage2"}) == [0, 1, 2, 3]
    one, two = (torch.load(work / "stage2.pt", weights_only=False) for work in (alone, together))
    for part in ("heads", "adapter", "loss"):
        assert one[part].keys() == two[part].keys()
        for name, value in one[part].items():
            if not any(rounding in name for rounding in ROUNDING):
                torch.testing.assert_close(two[part][name], value, atol=1e-4, rtol=1e-3, msg=f"{part}: {name}")


def test_two_processes_learn_what_one_learns(big, hub: Path, command: Callable[..., list[str]], tmp_path: Path) -> None:
    """Copies of the model on each (DDP), and shares of it, its weights in NF4 (FSDP)."""
    assert cli.main(command("alone", micro_batch=0)) == 0
    two = launch("ddp", hub, command("ddp", micro_batch=1))
    assert two.returncode == 0, two.stderr
    assert two.stdout.count("checkpoint written to") == 1
    compare(tmp_path / "alone", tmp_path / "ddp")
    shared = launch("fsdp", hub, ["--fsdp", *command("fsdp", micro_batch=1)])
    assert shared.returncode == 0, shared.stderr
    compare(tmp_path / "alone", tmp_path / "fsdp")
    for name in ("adapter.safetensors", "heads.safetensors", "trust.safetensors", "findings.json"):
        assert (tmp_path / "fsdp-out" / name).exists()


def test_a_killed_training_goes_on_as_if_nothing_had_happened(
    hub: Path, command: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Killed after the fifth step, of which the last checkpoint knows four; dropout is on."""
    script = [sys.executable, str(SCRIPT), str(hub)]
    whole = start([*script, *command("whole", steps=6)])
    assert whole.returncode == 0, whole.stderr
    killed = start([*script, "--die-after", "4", *command("killed", steps=6)])
    assert killed.returncode == -signal.SIGKILL
    log = (tmp_path / "killed/log.csv").read_text()
    assert "stage2,4,total" in log and "stage2,5,total" not in log
    assert torch.load(tmp_path / "killed/stage2.pt", weights_only=False)["step"] == 3
    again = start([*script, *command("killed", steps=6)])
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "killed/log.csv").read_text() == (tmp_path / "whole/log.csv").read_text()
    for name in ("adapter.safetensors", "heads.safetensors", "trust.safetensors", "findings.json"):
        assert (tmp_path / "killed-out" / name).read_bytes() == (tmp_path / "whole-out" / name).read_bytes(), name


def test_a_batch_that_cannot_be_shared_evenly_is_refused(big, hub: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Team, "size", 5)
    for changes, what in (
        ({}, "5 processes cannot share 6 views evenly, 2 of them with a story"),
        ({"stories": 0}, "cannot share 6 views evenly, 0 of them"),
        ({"second_views": 1, "stories": 0}, "5 processes cannot share 4 photos evenly.*masks"),
    ):
        recipe = dataclasses.replace(BIG_RECIPE, stage2=dataclasses.replace(BIG_RECIPE.stage2, **changes))
        with pytest.raises(DataError, match=f"{what}.* the number of processes"):
            train(big, recipe, hub / "data", tmp_path / "work", tmp_path / "out")
    with pytest.raises(DataError, match="'mini' is trained by one process"):
        train(preset("mini"), TrainConfig(), hub / "data", tmp_path / "work", tmp_path / "out")
    assert not (tmp_path / "work").exists()
