"""Files and folders of results are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from skinclip.core.whole_files import replace_text, whole_file, whole_folder


def test_what_was_written_takes_its_place_and_nothing_else_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "export"
    with whole_folder(folder) as part:
        (part / "more").mkdir()
        (part / "a.csv").write_text("1")
        (part / "more" / "b.csv").write_text("2")
        assert not folder.exists()
    assert (folder / "a.csv").read_text() == "1" and (folder / "more" / "b.csv").read_text() == "2"
    assert list(folder.parent.iterdir()) == [folder]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "a.csv").write_text("before")
    (folder / "mine.txt").write_text("kept")
    with pytest.raises(OSError, match="No space left"), whole_folder(folder) as part:
        (part / "a.csv").write_text("half")
        raise OSError(28, "No space left on device")
    assert (folder / "a.csv").read_text() == "before" and list(tmp_path.iterdir()) == [folder]
    with whole_folder(folder) as part:
        (part / "a.csv").write_text("whole")
    assert (folder / "a.csv").read_text() == "whole" and (folder / "mine.txt").read_text() == "kept"


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "kept.npz"
    with whole_file(path) as part:
        assert part.suffix == ".npz" and part.parent == path.parent
        part.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    with pytest.raises(OSError, match="No space left"), whole_file(path) as part:
        part.write_text("half")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


def test_two_writers_do_not_meet_and_one_alone_overwrites_what_a_kill_left(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    with whole_file(path) as one, whole_file(path) as other:
        assert one != other
        one.write_text("1")
        other.write_text("2")
    assert path.read_text() == "1"
    with whole_file(path, alone=True) as part:
        part.write_text("3")
    part.write_text("left by a kill")
    with whole_file(path, alone=True) as again:
        assert again == part
        again.write_text("4")
    assert path.read_text() == "4" and list(tmp_path.iterdir()) == [path]


def test_a_private_file_is_its_owners_alone(tmp_path: Path) -> None:
    for private, mode in ((True, 0o600), (False, 0o666)):
        replace_text(tmp_path / "keys", "secret ä", private=private)
        assert (tmp_path / "keys").stat().st_mode & 0o777 & ~mode == 0
        assert (tmp_path / "keys").read_text(encoding="utf-8") == "secret ä"
