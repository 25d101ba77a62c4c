"""What a page downloads before it opens: nothing unless somebody agreed, and then what its preset lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from skinclip.ui import weights_download
from skinclip.ui.server import StartupError

COMMIT = "d" * 40


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands that would have been run; nothing is."""
    run: list[list[str]] = []
    monkeypatch.setattr(weights_download, "run_command", lambda words, tell: run.append(list(words)))
    monkeypatch.setenv("SKINCLIP_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # where no checkpoint lies
    return run


@pytest.mark.parametrize("word", ["", "no", "No "])
def test_nothing_is_downloaded_unless_somebody_agreed(word: str, commands, monkeypatch) -> None:
    monkeypatch.setenv("SKINCLIP_FETCH", word)
    monkeypatch.setenv("SKINCLIP_PULL", "lab/skin")
    assert weights_download.download_weights("qwen-3b", None, print) is None and not commands


def test_a_word_that_is_neither_yes_nor_no_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKINCLIP_FETCH", "maybe")
    with pytest.raises(ValueError, match="must be yes .* or no, not 'maybe'"):
        weights_download.download_agreed()


def test_the_embedded_preset_needs_nothing(commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKINCLIP_FETCH", "yes")
    monkeypatch.setenv("SKINCLIP_PULL", "lab/skin")
    assert weights_download.download_weights("mini", None, print) is None and not commands


@pytest.mark.parametrize("commit", ["", COMMIT])
def test_a_big_preset_gets_its_base_and_the_adapter_that_is_named(
    commit: str, commands, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = f"lab/skin@{commit}" if commit else "lab/skin"
    monkeypatch.setenv("SKINCLIP_FETCH", "Yes")
    monkeypatch.setenv("SKINCLIP_PULL", source)
    fetch, folder = ["fetch", "--preset", "qwen-3b", "--yes"], tmp_path / "adapters" / source.replace("/", "--")
    assert weights_download.download_weights("qwen-3b", None, print) == folder
    assert commands == [
        fetch,
        ["adapter", "pull", "lab/skin", str(folder), *(["--revision", commit] if commit else [])],
    ]
    folder.mkdir(parents=True)
    assert weights_download.download_weights("qwen-3b", None, print) == folder  # at the next start it is here
    assert commands[2:] == [fetch]
    assert weights_download.download_weights("qwen-3b", tmp_path / "mine", print) == tmp_path / "mine"


def test_why_it_could_not_be_brought_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SKINCLIP_HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # is for the page's own process
    told: list[str] = []
    with pytest.raises(StartupError, match=r"Connect and run the same command.*--preset qwen-3b --from DIR") as problem:
        weights_download.run_command(["fetch", "--preset", "qwen-3b", "--yes"], told.append)
    assert "HF_HUB_OFFLINE" not in str(problem.value) and told[-1].endswith(str(problem.value))
    assert not (tmp_path / "models").exists()
