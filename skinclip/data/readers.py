"""Labelled photo folders -> cases, in whichever layout of `layouts/` they come.

    table = read_cases(folder)        # the layout is recognised by its files
    tables = discover(root)           # every subfolder with a known layout, by name

A reader never guesses: a missing label is None, and a row that cannot be used (missing file, unknown diagnosis or
state, impossible age, duplicate) is left out and named with its line in `problems`, or stops the reading where
`strict`. Columns that leak the answer are not read.
"""

from __future__ import annotations

from pathlib import Path

from skinclip.data.cases import CaseTable, DataError
from skinclip.data.layouts.registry import LAYOUTS, expected

__all__ = ["LAYOUTS", "DataError", "detect_layout", "discover", "read_cases"]


def detect_layout(folder: str | Path) -> str:
    """The layout a folder has, by its files; a manifest of one's own wins over a published layout.

    Raises DataError that says what was expected.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {expected()}")
    for name, layout in LAYOUTS.items():
        if layout.matches(folder):
            return name
    raise DataError(f"{folder}: no known layout; {expected()}")


def read_cases(folder: str | Path, layout: str | None = None, strict: bool = False) -> CaseTable:
    """The cases of one data set.

    Raises DataError where the folder is not as its layout asks, where no row can be used, and, where `strict`, on the
    first bad row; otherwise bad rows are left out and named in `problems`.
    """
    folder = Path(folder)
    if layout is not None and layout not in LAYOUTS:
        raise DataError(f"unknown layout {layout!r}; expected one of {', '.join(LAYOUTS)}")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {expected()}")
    # resolved: "." has no name to call a source by
    table = LAYOUTS[layout or detect_layout(folder)].read(folder.resolve(), strict)
    if not table.cases and table.problems:
        raise DataError(f"{folder}: none of its {len(table.problems)} rows can be used; the first: {table.problems[0]}")
    return table


def discover(root: str | Path, strict: bool = False) -> dict[str, CaseTable]:
    """The data sets among the subfolders of `root`, or `root` itself, by folder name; others are passed over.

    Raises DataError where there is none.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; set $SKINCLIP_DATA or give --data")
    tables = {}
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        try:
            layout = detect_layout(folder)
        except DataError:
            continue
        tables[folder.resolve().name] = read_cases(folder, layout, strict)
    if not tables:
        raise DataError(f"{root}: neither it nor a subfolder is a data set; {expected()}")
    return tables
