"""Files, and folders of results, that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path, alone: bool = False) -> Iterator[Path]:
    """Yields a path beside `path` to write to, with its suffix; it takes its place once the block has ended well.

    A reader, a full disk, a kill or a power cut so meets the former file or the new one, never a half.

    Args:
        alone: no other process writes this file. What a kill leaves behind is then overwritten the next time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = "part" if alone else secrets.token_hex(4)
    part = path.with_name(f".{path.stem}-{mark}{path.suffix}")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def replace_text(path: Path, text: str, alone: bool = False, private: bool = False) -> None:
    """Writes a text file, in UTF-8, as `whole_file` does; a `private` one only its owner may read."""
    with whole_file(path, alone) as part:
        part.touch(0o600 if private else 0o666)
        part.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder beside `folder` to write into; its files move there once the block has ended well.

    A full disk so leaves nothing half behind, and what was there before is replaced file by file or left as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        part = Path(beside)
        yield part
        for path in sorted(path for path in part.rglob("*") if path.is_file()):
            target = folder / path.relative_to(part)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
