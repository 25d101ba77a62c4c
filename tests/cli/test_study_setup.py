"""`study setup`: a code on this computer, a coordinator's account elsewhere, and nothing in between."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from skinclip.cli import accounts as cli_accounts
from skinclip.cli.main import main
from skinclip.core import paths
from skinclip.ui import server
from skinclip.ui.guard.accounts import Accounts


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """What would have been served: the access of each server."""
    seen: list[Any] = []

    def serve(page: server.LoadingServer, listener: Any, access: Any) -> None:
        listener.close()
        seen.append(access)

    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setattr(paths, "prepare", lambda: tmp_path)
    monkeypatch.setattr(cli_accounts, "accounts", lambda: Accounts(tmp_path / "accounts.json"))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    return seen


def test_on_this_computer_a_code_is_printed(
    served: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "setup", "--port", "0", "--studies", str(tmp_path / "studies")]) == 0
    link = re.search(r"http://127\.0\.0\.1:\d+/#code=(\S{24})\n", capsys.readouterr().out)
    assert link and served[0].local and served[0].accounts is None
    assert (tmp_path / "studies").is_dir()


def test_elsewhere_a_coordinators_account_is_needed(
    served: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["study", "setup", "--port", "0", "--studies", str(tmp_path), "--name", "studies.example"]
    assert main(options) != 0 and not served
    assert "no account yet" in capsys.readouterr().err
    Accounts(tmp_path / "accounts.json").add("anna", "coordinator", "a long enough password")
    assert main(options) == 0
    assert served[0].roles == {"coordinator"} and served[0].accounts is not None and not served[0].local
    assert "code=" not in capsys.readouterr().out
