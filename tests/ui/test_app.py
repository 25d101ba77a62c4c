"""Which models the page offers."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from skinclip.model.checkpoint import weights_sha256
from skinclip.model.errors import CheckpointError
from skinclip.ui.answer import adapters
from skinclip.ui.app import build_page, load_assessor
from tests.helpers.tiny_hub import tiny_base, tiny_checkpoint, tiny_preset


def test_all_adapters_of_a_folder_that_fit_are_on_offer(big_config, big_checkpoint, tmp_path: Path, capsys) -> None:
    shelf = tmp_path / "shelf"
    shutil.copytree(big_checkpoint, shelf / "b")
    tiny_checkpoint(shelf / "c", big_config, seed=5)
    stranger = tiny_preset(tiny_base(tmp_path / "base", seed=1), Path(str(big_config.perception.pretrained)))
    tiny_checkpoint(shelf / "a", stranger)
    (tiny_checkpoint(shelf / "d", big_config, seed=6) / "heads.safetensors").unlink()

    assessor = load_assessor("qwen-3b", shelf / "b", shelf)
    assert list(assessor.checkpoints.values()) == [shelf / "b", shelf / "c"]
    told = capsys.readouterr().err
    assert f"not offered: {shelf / 'a'} does not fit" in told and "heads.safetensors is missing" in told
    assert [name for name, _ in adapters(assessor)] == ["SkinCLIP-VL qwen-3b, checkpoint0", "SkinCLIP-VL qwen-3b, c"]

    async def page() -> str:
        return str(build_page(assessor).config)

    text = asyncio.run(page())
    assert "SkinCLIP-VL qwen-3b, c" in text and weights_sha256(shelf / "c") in text
    first = load_assessor("qwen-3b", None, shelf)  # without --weights, the first that is whole
    assert first.model_info.weights_sha256 == weights_sha256(shelf / "a")
    assert len(first.checkpoints) == 1
    shutil.rmtree(shelf)
    shelf.mkdir()
    with pytest.raises(CheckpointError, match="no adapter in"):
        load_assessor("qwen-3b", None, shelf)
