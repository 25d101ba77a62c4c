"""Training by several processes, and training that is killed: the same as one process that is left alone."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from eval_study.trust_study.serving import free_port
from skinclip.cli import main as cli
from skinclip.core.config import PRESETS, TrainConfig, preset
from skinclip.data.cases import DataError
from skinclip.training.distributed import DistributedContext
from skinclip.training.run import RECIPES, train
from tests.helpers.tiny_hub import registered_clip, tiny_preset
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
    port = str(free_port())
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


@pytest.mark.parametrize("settings", ["ddp", "fsdp"])
def test_two_processes_learn_what_one_learns(
    big, hub: Path, command: Callable[..., list[str]], tmp_path: Path, settings: str, monkeypatch
) -> None:
    """Each with a copy of the model (DDP), or with a part of every weight, in NF4 (FSDP)."""
    if settings == "fsdp":  # which cannot share out 8-bit layers; NF4 and its numbers in fp32 learn alike
        reasoner = dataclasses.replace(PRESETS["qwen-3b"].reasoner, cpu_weights="fp32")
        monkeypatch.setitem(PRESETS, "qwen-3b", dataclasses.replace(PRESETS["qwen-3b"], reasoner=reasoner))
    assert cli.main(command("alone", micro_batch=0)) == 0
    words = command("together", micro_batch=1)
    ended = launch(settings, hub, ["--fsdp", *words] if settings == "fsdp" else words)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("checkpoint written to") == 1
    compare(tmp_path / "alone", tmp_path / "together")
    made = {p.name for p in (tmp_path / "together-out").iterdir()}
    assert {"adapter.safetensors", "heads.safetensors", "trust.safetensors", "findings.json"} <= made


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in the processes that are started here, so that sums come out the same to the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_killed_training_goes_on_as_if_nothing_had_happened(
    hub: Path, command: Callable[..., list[str]], tmp_path: Path, monkeypatch, one_thread
) -> None:
    """Killed after the fifth step, of which the last checkpoint knows four; dropout is on."""
    monkeypatch.setitem(PRESETS, "qwen-3b", tiny_preset(hub / "base", registered_clip(hub / "clip")))
    assert cli.main(command("whole", steps=6)) == 0
    killed = start([sys.executable, str(SCRIPT), str(hub), "--die-after", "4", *command("killed", steps=6)])
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    log = (tmp_path / "killed/log.csv").read_text()
    assert "stage2,4,total" in log and "stage2,5,total" not in log
    assert torch.load(tmp_path / "killed/stage2.pt", weights_only=False)["step"] == 3
    assert cli.main(command("killed", steps=6)) == 0
    assert (tmp_path / "killed/log.csv").read_text() == (tmp_path / "whole/log.csv").read_text()
    for name in ("adapter.safetensors", "heads.safetensors", "trust.safetensors", "findings.json"):
        assert (tmp_path / "killed-out" / name).read_bytes() == (tmp_path / "whole-out" / name).read_bytes(), name


def test_a_batch_that_cannot_be_shared_evenly_is_refused(big, hub: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(DistributedContext, "size", 5)
    for changes, what in (
        ({}, "5 processes cannot share 6 views evenly, 2 of them with a rationale"),
        ({"rationale_targets": 0}, "cannot share 6 views evenly, 0 of them"),
        ({"second_views": 1, "rationale_targets": 0}, "5 processes cannot share 4 photos evenly.*masks"),
    ):
        recipe = dataclasses.replace(BIG_RECIPE, stage2=dataclasses.replace(BIG_RECIPE.stage2, **changes))
        with pytest.raises(DataError, match=f"{what}.* the number of processes"):
            train(big, recipe, hub / "data", tmp_path / "work", tmp_path / "out")
    with pytest.raises(DataError, match="'mini' is trained by one process"):
        train(preset("mini"), TrainConfig(), hub / "data", tmp_path / "work", tmp_path / "out")
    assert not (tmp_path / "work").exists()
