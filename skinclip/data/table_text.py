"""Bytes of a table -> records of cells with their line numbers, for the files that spreadsheets and archives write.

UTF-8, UTF-16 and Windows-1252 are read; commas, semicolons, tabs and bars separate; Excel's `sep=;` line is followed.
Every line that is not blank becomes a record or a problem named with its line: a quote that is not closed spoils its
own line and never swallows those below it.
"""

from __future__ import annotations

import codecs
import csv
import re
from dataclasses import dataclass

DELIMITERS = ",;\t|"
MAX_LINES_OF_A_CELL = 200  # a quoted cell that runs on longer is one whose quote was forgotten
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEP_LINE = re.compile(r' *"?sep *=(.)"?[,;\t| ]*\s*', re.IGNORECASE)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")  # not str.splitlines, which also cuts at VT, FF, NEL and U+2028
_INVISIBLE = "\ufeff\u200b"
NOT_CLOSED = "a quote is not closed"


class TableTextError(ValueError):
    """Bytes that cannot be read as a table; the message completes a sentence that begins with the file's name."""


@dataclass(frozen=True)
class Record:
    """The cells of one record, or why it cannot be read; `line` is where it begins, counted from 1."""

    line: int
    cells: tuple[str, ...] = ()
    problem: str | None = None


def decode(data: bytes) -> str:
    """The text of a table: by its byte order mark, else UTF-16 where every other byte is zero, else each line as UTF-8
    or, where it is none, as Windows-1252.

    Raises TableTextError for anything else.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _decoded(data, encoding)
    start = data[:2000]
    if b"\0" in start:
        even, odd = start[::2].count(0), start[1::2].count(0)
        if max(even, odd) < len(start) // 4 or min(even, odd) > len(start) // 8:
            raise TableTextError("is not a text table: it holds zero bytes; save it as CSV UTF-8")
        return _decoded(data, "utf-16-le" if odd > even else "utf-16-be")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:  # by lines, as tables of several programs are joined
        return "".join(_line(line) for line in data.splitlines(keepends=True))


def _line(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _decoded(data, "cp1252")


def _decoded(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        tried = (
            "is neither UTF-8, UTF-16 nor Windows-1252" if encoding == "cp1252" else f"is damaged {encoding.upper()}"
        )
        raise TableTextError(f"{tried}; save it as CSV UTF-8") from error


def records(text: str) -> list[Record]:
    """All records, the header first; blank lines are skipped, quoted cells may run over several lines."""
    lines, at = _LINE.findall(text), 0
    delimiter = None
    while at < len(lines) and not lines[at].strip():
        at += 1
    if at < len(lines) and (match := _SEP_LINE.fullmatch(lines[at])):
        delimiter, at = match[1], at + 1
    return _Reader(lines, at, delimiter).read()


class _Reader:
    """Goes through the lines of one table."""

    def __init__(self, lines: list[str], at: int, delimiter: str | None) -> None:
        self.lines, self.at = lines, at
        header = next((line for line in lines[at:] if line.strip()), "")
        self.delimiter = delimiter or max(DELIMITERS, key=_outside_quotes(header).count)
        self.columns = 0  # of the header, once it is read

    def read(self) -> list[Record]:
        table = []
        while self.at < len(self.lines):
            record = self._next()
            if record.problem or any(record.cells):
                table.append(record)
                self.columns = self.columns or len(record.cells)
        return table

    def _next(self) -> Record:
        """The record that begins at this line; `at` moves behind it, or behind one line where it cannot be read."""
        start = self.at
        for end in range(start + 1, min(start + MAX_LINES_OF_A_CELL, len(self.lines)) + 1):
            text = "".join(self.lines[start:end])
            try:
                cells, closed = _cells(text, self.delimiter)
            except csv.Error as error:
                self.at = start + 1
                return Record(start + 1, problem=_problem(error, one_line=end == start + 1))
            if any(self._swallows_rows(cell) for cell in cells):
                break
            if closed:
                self.at = end
                return Record(start + 1, tuple(_clean(cell) for cell in cells))
        self.at = start + 1
        return Record(start + 1, problem=NOT_CLOSED)

    def _swallows_rows(self, cell: str) -> bool:
        """True where a line inside a quoted cell has as many cells as the header: a row, not a part of a text."""
        if self.columns < 2 or ("\n" not in cell and "\r" not in cell):
            return False
        return any(line.count(self.delimiter) + 1 >= self.columns for line in _LINE.findall(cell)[1:])


def _problem(error: csv.Error, one_line: bool) -> str:
    if "field limit" in str(error):
        return f"a cell has more than {csv.field_size_limit():,} characters"
    return "text follows a closing quote" if one_line else NOT_CLOSED


def _cells(text: str, delimiter: str) -> tuple[list[str], bool]:
    """The cells of one record as written, and whether its quotes are closed. Raises csv.Error for text behind one."""
    if '"' not in text:
        return text.rstrip("\r\n").split(delimiter), True
    try:
        rows = list(csv.reader([text], delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        if "unexpected end" not in str(error):
            raise
        return next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), []), False
    return rows[0] if rows else [], True


def _clean(cell: str) -> str:
    return cell.strip().strip(_INVISIBLE).strip()


def _outside_quotes(line: str) -> str:
    return re.sub(r'"[^"]*"', "", line)
