"""The training log: figures of every stage in one file that can be plotted while it grows."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from skinclip.core.whole_files import replace_text


class CsvLog:
    """The rows of one stage in a file of several, `stage,step,name,value` in long form, each appended at once."""

    def __init__(self, path: Path, stage: str, rows: int | None = None) -> None:
        """
        Args:
            rows: of this stage, those that were there when its checkpoint was saved: later ones are taken back, as
                their steps are taken again. None keeps all.
        """
        self.path, self.stage = path, stage
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1].splitlines()  # a kill may have cut the last row short
        lines = whole or ["stage,step,name,value"]
        own = [i for i, line in enumerate(lines) if line.startswith(f"{stage},")]
        late = set() if rows is None else set(own[rows:])
        self.rows = len(own) - len(late)
        kept = "".join(f"{line}\n" for i, line in enumerate(lines) if i not in late)
        if kept != text:
            replace_text(path, kept, alone=True)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One row a value, exact for a float32."""
        with self.path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(
                [self.stage, step, name, f"{value:.9g}"] for name, value in values.items()
            )
        self.rows += len(values)
