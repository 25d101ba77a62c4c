"""The journal of a part: which photos a process had begun, so that one that kills its process is not tried for ever.

A line is appended before and after each photo. A process that ends in the middle leaves photos begun and not ended:
they are under suspicion, and after `MAX_DEATHS` such ends a photo becomes a row with that reason.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import TracebackType

MAX_DEATHS = 3


class Journal:
    """The journal of one part, open for one attempt at it.

    Attributes:
        deaths: row -> attempts that ended while it was being assessed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.deaths = _deaths(path)
        path.parent.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Journal:
        self._file = self.path.open("a", encoding="utf-8", buffering=1)  # by lines: a killed process keeps them
        self._file.write("attempt\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.write("stopped\n")  # an end in good order suspects no photo
        self._file.close()

    def begin(self, row: int) -> None:
        """Notes that a photo is begun."""
        self._file.write(f"begin {row}\n")

    def end(self, row: int) -> None:
        """Notes that the process has outlived it."""
        self._file.write(f"end {row}\n")

    def remove(self) -> None:
        """Removes the journal of a part that is done."""
        self.path.unlink(missing_ok=True)


def _deaths(path: Path) -> Counter[int]:
    """The rows that earlier attempts had begun and not ended when they were killed."""
    deaths: Counter[int] = Counter()
    begun: set[int] = set()
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in [*lines, "attempt"]:
        word, _, row = line.partition(" ")
        if word == "begin" and row.isdecimal():
            begun.add(int(row))
        elif word == "end" and row.isdecimal():
            begun.discard(int(row))
        else:  # the end of an attempt
            deaths.update(begun if word == "attempt" else ())
            begun = set()
    return deaths
