"""A folder of results is written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from skinclip.core.whole_folder import written_whole


def test_what_was_written_takes_its_place_and_nothing_else_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "export"
    with written_whole(folder) as part:
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
    with pytest.raises(OSError, match="No space left"), written_whole(folder) as part:
        (part / "a.csv").write_text("half")
        raise OSError(28, "No space left on device")
    assert (folder / "a.csv").read_text() == "before" and list(tmp_path.iterdir()) == [folder]
    with written_whole(folder) as part:
        (part / "a.csv").write_text("whole")
    assert (folder / "a.csv").read_text() == "whole" and (folder / "mine.txt").read_text() == "kept"
