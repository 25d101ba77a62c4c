"""Label files as rows with line numbers, and photo files found by listing each folder once.

Every reader of `readers.py` is made of these parts: `read_labels` gives rows, a reader turns a row into a `Case`
or raises `BadRow`, and `collect` decides whether a bad row stops the reading or is left out and counted.
"""

from __future__ import annotations

import contextlib
import csv
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from skinclip.core import vocabulary
from skinclip.data.cases import Case, CaseTable, DataError

MISSING_WORDS = frozenset({"", "unknown", "nan", "na", "n/a"})
PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
MAX_AGE = 120  # years
_SPLIT_NAMES = {"training": "train", "validation": "valid", "val": "valid", "testing": "test"}
_YES_NO = {"1": True, "1.0": True, "true": True, "yes": True, "0": False, "0.0": False, "false": False, "no": False}


class BadRow(ValueError):
    """One row that cannot be used; the message says why, `collect` adds the file and the line."""


@dataclass(frozen=True)
class Row:
    """One record of a label file. `line` counts from 1 with the header; `number` counts records from 0."""

    line: int
    number: int
    cells: dict[str, str]
    problem: str | None = None

    def get(self, column: str) -> str | None:
        """The cell's text, or None where the column or the label is missing ("unknown" is missing)."""
        text = self.cells.get(column, "")
        return None if text.lower() in MISSING_WORDS else text

    def word(self, column: str) -> str | None:
        """Like `get`, in lower case and with single spaces: for labels from a fixed list."""
        text = self.get(column)
        return None if text is None else " ".join(text.lower().split())


@dataclass(frozen=True)
class LabelFile:
    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_labels(path: Path, required: Iterable[str]) -> LabelFile:
    """The rows of a comma-, semicolon- or tab-separated file; column names in lower case, blank lines skipped.

    Raises DataError where the file cannot be read, a required column is missing or a column is there twice.
    """
    try:
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            lines = _numbered_records(file.read())
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table ({error})") from error
    header = tuple(cell.strip().lower() for cell in lines[0][1]) if lines else ()
    missing = [column for column in required if column not in header]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; found {', '.join(header) or 'nothing'}")
    twice = [column for column, count in Counter(header).items() if column and count > 1]
    if twice:
        raise DataError(f"{path}: column {twice[0]} is there twice")
    return LabelFile(path, header, tuple(_row(header, i, *record) for i, record in enumerate(lines[1:])))


def _numbered_records(text: str) -> list[tuple[int, list[str]]]:
    """(line on which the record starts, its cells): a quoted cell may run over several lines."""
    first_line = text.partition("\n")[0]
    delimiter = max(",;\t", key=first_line.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter)
    records, start = [], 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            records.append((start, cells))
        start = reader.line_num + 1
    return records


def _row(header: tuple[str, ...], number: int, line: int, cells: list[str]) -> Row:
    problem = None
    if len(cells) != len(header):  # a stray separator shifts labels under the wrong column: never guess
        problem = f"{len(cells)} cells where the header has {len(header)}"
    return Row(line, number, dict(zip(header, (c.strip() for c in cells), strict=False)), problem)


@dataclass
class Seen:
    """The photos and ids met so far in one data set, across its label files."""

    files: set[Path] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)

    def add(self, case: Case) -> None:
        if case.image in self.files or case.image_id in self.ids:
            raise BadRow(f"duplicate image {case.image_id}")
        self.files.add(case.image)
        self.ids.add(case.image_id)


def collect(labels: LabelFile, to_case: Callable[[Row], Case], strict: bool, seen: Seen | None = None) -> CaseTable:
    """All rows as cases. A bad row raises DataError where `strict`, else it is left out and named in `problems`."""
    seen = seen or Seen()
    cases, problems = [], []
    for row in labels.rows:
        try:
            if row.problem:
                raise BadRow(row.problem)
            case = to_case(row)
            seen.add(case)
            cases.append(case)
        except BadRow as error:
            problem = f"{labels.path.name} line {row.line}: {error}"
            if strict:
                raise DataError(problem) from error
            problems.append(problem)
    return CaseTable(tuple(cases), tuple(problems))


class FileFinder:
    """Files named by a label file, whatever their case, each folder listed once (not one disk access a row)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listings: dict[Path, dict[str, list[os.DirEntry[str]]]] = {}

    def find(self, name: str) -> Path | None:
        """The file of that name relative to `root`, or None. The exact spelling wins over another case."""
        *folders, last = PurePosixPath(name.replace("\\", "/")).parts or ("",)
        folder = self.root
        for part in folders:
            if part in ("/", ".."):
                folder = Path(part) if part == "/" else folder.parent
                continue
            entry = self._entry(folder, part)
            if entry is None:
                return None
            folder = folder / entry.name
        entry = self._entry(folder, last)
        return folder / entry.name if entry is not None and entry.is_file() else None

    def _entry(self, folder: Path, part: str) -> os.DirEntry[str] | None:
        if folder not in self._listings:
            self._listings[folder] = _listing(folder)
        spellings = self._listings[folder].get(part.lower(), [])
        exact = [entry for entry in spellings if entry.name == part]
        chosen = exact or spellings
        return chosen[0] if len(chosen) == 1 else None  # several other spellings: do not guess

    def require(self, row: Row, column: str) -> Path:
        """The file a cell names. Raises BadRow where the cell is empty or the file is missing."""
        name = row.get(column)
        if name is None:
            raise BadRow(f"no {column}")
        path = self.find(name)
        if path is None:
            raise BadRow(f"{column} {name} not found")
        return path


def _listing(folder: Path) -> dict[str, list[os.DirEntry[str]]]:
    """The folder's entries by lower-case name; none where it is no folder or cannot be read."""
    entries: dict[str, list[os.DirEntry[str]]] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as scan:
        for entry in scan:
            entries.setdefault(entry.name.lower(), []).append(entry)
    return entries


def photos_by_stem(folders: Iterable[Path], ending: str = "") -> dict[str, Path]:
    """Photo files below the folders by lower-case name without suffix (and without `ending`); the first wins."""
    found: dict[str, Path] = {}
    for top in folders:
        for folder, _, names in os.walk(top):
            for name in sorted(names):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in PHOTO_SUFFIXES and stem.lower().endswith(ending):
                    found.setdefault(stem.lower().removesuffix(ending), Path(folder, name))
    return found


def image_ids(names: Iterable[str]) -> dict[str, str]:
    """An id for every file name as written: its stem, with its folders in front where two files share a stem."""
    paths = {name: PurePosixPath(name.replace("\\", "/")) for name in names}
    stems = Counter(stem for stem, _ in {(p.stem.lower(), str(p).lower()) for p in paths.values()})
    return {
        name: path.stem if stems[path.stem.lower()] == 1 else "_".join((*path.parent.parts, path.stem))
        for name, path in paths.items()
    }


def parse_split(text: str | None) -> str | None:
    """`train`, `valid` or `test` for the usual words; any other split name stays, in lower case."""
    return None if text is None else _SPLIT_NAMES.get(text.lower(), text.lower())


def parse_age(text: str | None) -> float | None:
    """Years, or None where missing. Raises BadRow for what is no age."""
    if text is None:
        return None
    try:
        age = float(text)
    except ValueError:
        age = -1.0
    if not 0 <= age <= MAX_AGE:
        raise BadRow(f"age {text!r} is not a number from 0 to {MAX_AGE}")
    return age


def parse_sex(text: str | None) -> str | None:
    """One of `vocabulary.SEXES`; another word is "not given", as the model has no third input."""
    return None if text is None else {"f": "female", "m": "male"}.get(text, text if text in vocabulary.SEXES else None)


def parse_code(text: str | None) -> str | None:
    """A code of `vocabulary.DIAGNOSIS_CODES`, or None where missing. Raises BadRow for any other word."""
    if text is None or text in vocabulary.DIAGNOSIS_BY_CODE:
        return text
    raise BadRow(f"unknown diagnosis {text!r}; expected one of {', '.join(vocabulary.DIAGNOSIS_CODES)}")


def parse_malignant(text: str | None, diagnosis: str | None) -> bool | None:
    """The label's own word where there is one, else what the diagnosis says. Raises BadRow for other words."""
    if text is None:
        return None if diagnosis is None else diagnosis in vocabulary.MALIGNANT_CODES
    if text not in _YES_NO:
        raise BadRow(f"malignant {text!r} is not 0 or 1")
    return _YES_NO[text]


def parse_criteria(row: Row) -> dict[str, str]:
    """Labelled criteria as grouped states, from Derm7pt's fine labels or from the grouped states themselves."""
    criteria = {}
    for criterion in vocabulary.CRITERIA:
        label = row.word(criterion.code)
        if label is None:
            continue
        state = vocabulary.DERM7PT_STATES[criterion.code].get(label, label)
        if state not in criterion.labels:
            raise BadRow(f"unknown state {label!r} of {criterion.code}; expected one of {', '.join(criterion.labels)}")
        criteria[criterion.code] = state
    return criteria
