"""Checksums of an export, in the form that `sha256sum --check` reads."""

from __future__ import annotations

import hashlib
from pathlib import Path

CHECKSUMS = "checksums.sha256"


def write_checksums(folder: Path) -> Path:
    """Writes the SHA-256 of every file below `folder`; returns the list's path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    lines = [f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")
    return folder / CHECKSUMS


def changed_since(folder: Path) -> list[str]:
    """The files of a list of checksums that are missing or were changed, by name."""
    lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    known = {name: checksum for checksum, _, name in (line.partition("  ") for line in lines)}
    return [name for name, sha in known.items() if not (folder / name).is_file() or _sha256(folder / name) != sha]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
