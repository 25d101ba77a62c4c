"""Label files as rows with line numbers, and rows as cases.

Every reader in `layouts/` is made of these parts: `read_labels` gives rows, a reader turns a row into a `Case` or
raises `BadRow`, and `collect` decides whether a bad row stops the reading or is left out and named. No line is lost:
each is a row, or a problem with its line.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from skinclip.data import table_text
from skinclip.data.cases import Case, CaseTable, DataError
from skinclip.data.files import FileFinder

MISSING_WORDS = frozenset(
    {
        *("unknown", "unbekannt", "inconnu", "desconocido", "none", "none given", "null", "nil", "missing", "empty"),
        *("nan", "na", "n/a", "n.a", "n.a.", "nat", "nd", "n/d", "n.d", "n.d.", "k.a", "k.a.", "\\n", "blank", "tbd"),
        *("undefined", "undetermined", "unspecified", "pending"),
        *("#n/a", "#n/a n/a", "#na", "#null!", "#value!", "#ref!", "#div/0!", "#name?", "#num!", "1.#qnan", "-1.#ind"),
        *("#valeur!", "#wert!", "#nv"),
        *(f"not {word}" for word in ("available", "applicable", "given", "known", "recorded", "specified", "stated")),
        *(f"not {word}" for word in ("reported", "provided", "documented", "determined")),
    }
)
_BRACKETS = re.compile(r"[<(\[{'\"]+(.*?)[>)\]}'\"]+")  # <NA>, (null), [], ''
_HEADER_BYTES = 64_000  # enough of a file for its header


def is_missing(text: str) -> bool:
    """True for an empty cell, a word for "unknown", whatever brackets it stands in, and for signs alone such as "-"."""
    word = " ".join(text.lower().split())
    if match := _BRACKETS.fullmatch(word):
        word = match[1].strip()
    if word in MISSING_WORDS or word.rstrip(".") in MISSING_WORDS:
        return True
    return "+" not in word and not any(letter.isalnum() for letter in word)


class BadRow(ValueError):
    """One row that cannot be used; the message says why, `collect` adds the file and the line."""


@dataclass(frozen=True)
class LabelRow:
    """One record of a label file. `line` counts from 1 with the header; `number` counts records from 0."""

    line: int
    number: int
    cells: dict[str, str]
    problem: str | None = None

    def get(self, column: str) -> str | None:
        """The cell's text, or None where the column or the label is missing ("unknown" is missing)."""
        text = self.cells.get(column, "")
        return None if is_missing(text) else text

    def word(self, column: str) -> str | None:
        """Like `get`, in lower case and with single spaces: for labels from a fixed list."""
        text = self.get(column)
        return None if text is None else " ".join(text.lower().split())

    def require(self, column: str) -> str:
        """Like `get`. Raises BadRow where the cell is empty."""
        text = self.get(column)
        if text is None:
            raise BadRow(f"no {column}")
        return text


@dataclass(frozen=True)
class LabelFile:
    """A table that has been read: its columns in lower case and its rows, unreadable ones with their `problem`."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[LabelRow, ...]


def read_labels(path: Path, required: Iterable[str]) -> LabelFile:
    """The rows of a table; column names in lower case, blank lines skipped.

    Raises DataError where the file cannot be read, a required column is missing or a column is there twice.
    """
    records = _records(path)
    header = _header(path, records)
    missing = [column for column in required if column not in header]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; found {', '.join(header) or 'nothing'}")
    twice = [column for column, count in Counter(header).items() if column and count > 1]
    if twice:
        raise DataError(f"{path}: column {twice[0]} is there twice")
    return LabelFile(path, header, tuple(_row(header, i, record) for i, record in enumerate(records[1:])))


def columns_of(path: Path) -> tuple[str, ...]:
    """The column names of a table, in lower case; none where it cannot be read: to recognise a layout by."""
    try:
        with path.open("rb") as file:
            data = file.read(_HEADER_BYTES)
        text = table_text.decode(data[: data.rfind(b"\n") + 1 or None])
    except (OSError, ValueError):
        return ()
    records = table_text.records(text)
    return tuple(cell.lower() for cell in records[0].cells) if records else ()


def _records(path: Path) -> list[table_text.Record]:
    try:
        return table_text.records(table_text.decode(path.read_bytes()))
    except table_text.TableTextError as error:
        raise DataError(f"{path} {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a table ({error.strerror})") from error


def _header(path: Path, records: list[table_text.Record]) -> tuple[str, ...]:
    if not records:
        return ()
    if records[0].problem:
        raise DataError(f"{path} line {records[0].line}, the header: {records[0].problem}")
    return tuple(" ".join(cell.lower().split()) for cell in records[0].cells)


def _row(header: tuple[str, ...], number: int, record: table_text.Record) -> LabelRow:
    cells, problem = record.cells, record.problem
    named = max((i + 1 for i, column in enumerate(header) if column), default=0)  # a header may end in separators
    if problem is None and (len(cells) < named or any(cells[len(header) :])):
        # a stray separator shifts labels under the wrong column: never guess
        problem = f"{len(cells)} cells where the header has {len(header)}"
    return LabelRow(record.line, number, dict(zip(header, cells, strict=False)), problem)


def misnamed(columns: Iterable[str], wanted: str, others: Iterable[str]) -> str | None:
    """The column that seems to be meant by `wanted`, where `wanted` itself is not among the columns, else None."""
    columns = list(columns)
    if wanted in columns:
        return None
    called = set(others)
    named = [column for column in columns if re.sub(r"[\W_]+", "_", column) in called]
    close = difflib.get_close_matches(wanted, [column for column in columns if column], n=1, cutoff=0.85)
    return next(iter([*named, *close]), None)


def require_file(finder: FileFinder, row: LabelRow, column: str) -> Path:
    """The file a cell names. Raises BadRow where the cell is empty or the file is missing."""
    name = row.require(column)
    path = finder.find(name)
    if path is None:
        raise BadRow(f"{column} {name} not found")
    return path


@dataclass
class KnownPhotos:
    """The photos and ids met so far in one data set, across its label files."""

    files: set[Path] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)

    def add(self, case: Case) -> None:
        """Notes a case. Raises BadRow where its photo or its id is there already."""
        if case.image in self.files or case.image_id in self.ids:
            raise BadRow(f"duplicate image {case.image_id}")
        self.files.add(case.image)
        self.ids.add(case.image_id)


def collect(
    labels: LabelFile, to_case: Callable[[LabelRow], Case], strict: bool, known: KnownPhotos | None = None
) -> CaseTable:
    """All rows as cases. A bad row raises DataError where `strict`, else it is left out and named in `problems`."""
    known = known or KnownPhotos()
    cases, problems = [], []
    for row in labels.rows:
        try:
            if row.problem:
                raise BadRow(row.problem)
            case = to_case(row)
            known.add(case)
            cases.append(case)
        except BadRow as error:
            problem = f"{labels.path.name} line {row.line}: {error}"
            if strict:
                raise DataError(problem) from error
            problems.append(problem)
    return CaseTable(tuple(cases), tuple(problems))


def joined(tables: Iterable[CaseTable]) -> CaseTable:
    """The cases and problems of several label files of one data set."""
    tables = list(tables)
    return CaseTable(
        tuple(case for table in tables for case in table.cases),
        tuple(problem for table in tables for problem in table.problems),
    )
