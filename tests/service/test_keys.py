"""The file of keys: hashes alone, private, and clear words for what is wrong with it."""

from __future__ import annotations

import datetime
import stat
from pathlib import Path

import pytest

from skinclip.cli import main as cli
from skinclip.service import keys


def test_a_key_is_shown_once_and_kept_as_its_hash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys.txt"
    assert cli.main(["api-key", "add", "clinic-a", "--keys", str(path), "--days", "30"]) == 0
    key = capsys.readouterr().out.strip()
    assert key.startswith(keys.PREFIX) and len(key) > 40 and key not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.KeyRing(path).name_of(key) == "clinic-a" and keys.KeyRing(path).name_of(key + "x") is None
    assert cli.main(["api-key", "list", "--keys", str(path)]) == 0
    ends = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=30)
    assert capsys.readouterr().out == f"clinic-a  valid until {ends}\n"
    assert cli.main(["api-key", "revoke", "clinic-a", "--keys", str(path)]) == 0
    assert keys.KeyRing(path).name_of(key) is None


def test_a_key_ends_on_its_day(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    yesterday = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=1)
    path.write_text(f"old {keys.digest('a')} {yesterday}\nnew {keys.digest('b')} {yesterday + datetime.timedelta(1)}\n")
    ring = keys.KeyRing(path)
    assert ring.name_of("a") is None and ring.name_of("b") == "new"


def test_a_file_that_is_lost_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    key = keys.add_key(path, "a", 1)
    ring = keys.KeyRing(path)
    path.unlink()
    assert ring.name_of(key) is None
    path.write_text("nonsense\n")
    assert ring.name_of(key) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["add", "a b", "--keys", "FILE"], "no name for a key"),
        (["add", "a", "--keys", "FILE", "--days", "0"], "number of days"),
        (["revoke", "b", "--keys", "FILE"], "has no key of the name b"),
        (["add", "a", "--keys", "FILE"], "revoke it first"),
        (["list", "--keys", "/nowhere/keys"], "make one with `api-key add`"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, capsys, words: list[str], said: str) -> None:
    path = tmp_path / "keys.txt"
    keys.add_key(path, "a", 1)
    assert cli.main(["api-key", *(str(path) if word == "FILE" else word for word in words)]) == 2
    assert said in capsys.readouterr().err


def test_an_open_address_needs_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--api", "--host", "0.0.0.0", "--port", "0"]) == 2
    assert "needs keys" in capsys.readouterr().err
    assert cli.main(["run", "--api", "--rate", "often", "--port", "0"]) == 2
    assert cli.main(["run", "--api", "--study", "x"]) == 2
