"""Made-up data folders: empty photo files and small tables."""

from __future__ import annotations

from pathlib import Path


def touch(folder: Path, *names: str) -> Path:
    """Empty files: a reader looks at names only."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
