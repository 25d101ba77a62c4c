"""A checkpoint that came with the program is loaded as it came, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from skinclip.core.paths import ASSETS
from skinclip.model.checkpoint import load_model
from skinclip.model.errors import CheckpointError
from skinclip.model.integrity import HASHES, file_hashes, record, verify


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    shutil.copytree(ASSETS / "mini", tmp_path / "mini")
    return tmp_path


def test_the_embedded_checkpoints_are_as_recorded() -> None:
    for name in ("mini", "plain"):
        verify(ASSETS / name)
    assert {"trust.safetensors", "findings.json", "reasoner/model.safetensors"} <= set(file_hashes(ASSETS / "mini"))


@pytest.mark.parametrize("name", sorted(file_hashes(ASSETS / "mini")))
def test_one_flipped_bit_is_found_in_every_file(assets: Path, name: str) -> None:
    path = assets / "mini" / name
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name} was changed or is damaged.*install the program again"):
        verify(assets / "mini", assets=assets)


@pytest.mark.parametrize("name", sorted(file_hashes(ASSETS / "mini")))
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_truncated_file_is_found(assets: Path, name: str, share: float) -> None:
    path = assets / "mini" / name
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=rf"{name} was changed or is damaged.*install the program again"):
        verify(assets / "mini", assets=assets)


def test_missing_and_foreign_files_are_named(assets: Path) -> None:
    (assets / "mini/findings.json").unlink()
    (assets / "mini/more.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"findings\.json is missing; more\.safetensors does not belong there"):
        verify(assets / "mini", assets=assets)


def test_line_ends_and_documents_do_not_count(assets: Path) -> None:
    config = assets / "mini/config.yaml"
    config.write_bytes(config.read_bytes().replace(b"\n", b"\r\n"))
    (assets / "mini/README.md").write_text("other words")
    verify(assets / "mini", assets=assets)


def test_what_was_trained_anew_is_recorded(assets: Path) -> None:
    hashes = assets / "hashes.json"
    shutil.copyfile(HASHES, hashes)
    (assets / "mini/findings.json").write_text("{}")
    assert record(assets / "mini", hashes, assets) and not record(assets / "other", hashes, assets)
    verify(assets / "mini", hashes, assets)
    with pytest.raises(CheckpointError, match="findings"):
        verify(assets / "mini", assets=assets)


def test_a_damaged_checkpoint_is_not_loaded(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skinclip.model.integrity.verify.__defaults__", (HASHES, assets))
    (assets / "mini/trust.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="trust.safetensors was changed"):
        load_model(assets / "mini")
