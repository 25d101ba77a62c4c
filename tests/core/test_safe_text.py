"""Text of people and files in cells: one row stays one row, no spreadsheet runs it, and nothing is lost."""

from __future__ import annotations

import csv
import io

import pytest

from skinclip.core.safe_text import plain_text, safe_cell, safe_name, unguarded
from tests.hostile_texts import TEXTS


@pytest.mark.parametrize("text", TEXTS)
def test_a_cell_is_one_line_feed_text_that_no_spreadsheet_runs(text: str) -> None:
    cell = str(safe_cell(text))
    assert not set("\r\0\x0b\x0c\x85\x1b") & set(cell) and cell.encode()
    assert not cell.lstrip(" \n").startswith(("=", "+", "-", "@", "\t"))
    assert unguarded(cell) == plain_text(text)
    stream = io.StringIO(newline="")
    csv.writer(stream).writerow([cell, "next"])
    assert list(csv.reader(io.StringIO(stream.getvalue(), newline=""))) == [[cell, "next"]]


@pytest.mark.parametrize("value", [None, 1, -5.5, True, float("nan")])
def test_what_is_no_text_stays_as_it_is(value: object) -> None:
    assert safe_cell(value) is value and safe_name(value) is value


def test_names_that_are_no_unicode_are_written_as_escapes() -> None:
    assert safe_name("photo\udcff.jpg") == "photo\\udcff.jpg"
    assert safe_name("=1.jpg") == "'=1.jpg" and unguarded("'tis") == "'tis"
