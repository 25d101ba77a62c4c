"""Rates and averages by torch's own classes give what the training was measured with."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from skinclip.data.cases import DataError
from skinclip.training.checkpoints import load_checkpoint, save_checkpoint, seed_everything
from skinclip.training.epochs import averaged
from skinclip.training.schedules import cosine, cosine_schedule


def test_each_group_follows_the_cosine_and_resumes_in_its_place() -> None:
    layers = nn.ModuleList([nn.Linear(1, 1), nn.Linear(1, 1)])
    optimizer = torch.optim.SGD([{"params": layer.parameters()} for layer in layers], lr=9.0)
    for first in (0, 7):
        schedule = cosine_schedule(optimizer, [0.3, 0.1], 20, 4, first)
        for step in range(first, 20):
            expected = [peak * cosine(step, 20, 4) for peak in (0.3, 0.1)]
            assert [group["lr"] for group in optimizer.param_groups] == expected
            optimizer.step()
            schedule.step()


def test_the_average_is_the_warmed_up_exponential_one_with_its_buffers() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]), persistent=False)
    kept = averaged(model, 0.9)
    expected = {k: v.clone() for k, v in model.state_dict().items()}
    for done in range(30):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(1)
        kept.update_parameters(model)
        for name, value in model.state_dict().items():
            decay = min(0.9, (1 + done) / (10 + done))
            floating = value.is_floating_point()
            expected[name] = expected[name].lerp(value, 1 - decay) if floating else value.clone()
    for name, value in kept.module.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert torch.equal(kept.module.mask, model.mask)
    assert not kept.module.training and not any(p.requires_grad for p in kept.parameters())


def test_random_generators_go_on_where_they_stood(tmp_path: Path) -> None:
    seed_everything(5)
    np.random.standard_normal()  # numpy keeps the second of a pair
    save_checkpoint(tmp_path / "a.pt", {"step": 1})
    then = (random.random(), np.random.standard_normal(), np.random.random(), torch.rand(1).item())
    seed_everything(6)
    assert load_checkpoint(tmp_path / "a.pt") is not None
    assert then == (random.random(), np.random.standard_normal(), np.random.random(), torch.rand(1).item())


class Planted:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("planted"),)


def test_no_code_is_loaded_from_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"rng": [Planted()]}, tmp_path / "bad.pt")
    with pytest.raises(DataError, match=r"bad\.pt is damaged, or holds more than numbers"):
        load_checkpoint(tmp_path / "bad.pt")
    assert not (tmp_path / "planted").exists()


def test_a_checkpoint_that_is_cut_short_is_named(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", {"weights": torch.rand(1000)})
    whole = (tmp_path / "a.pt").read_bytes()
    for length in (0, 10, len(whole) // 2):
        (tmp_path / "a.pt").write_bytes(whole[:length])
        with pytest.raises(DataError, match="damaged"):
            load_checkpoint(tmp_path / "a.pt")


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Numpy's state and numbers were kept as they are."""
    seed_everything(7)
    state = {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": np.random.get_state()}
    torch.save({"rng": [state], "optimizer": {"param_groups": [{"lr": np.float64(0.5)}]}}, tmp_path / "old.pt")
    then = np.random.random()
    seed_everything(8)
    loaded = load_checkpoint(tmp_path / "old.pt")
    assert loaded is not None and loaded["optimizer"]["param_groups"][0]["lr"] == 0.5
    assert np.random.random() == then
