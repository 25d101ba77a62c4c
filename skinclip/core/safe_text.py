"""Text from people and files as tables, spreadsheets and terminals can take it: nothing in it is run or ends a row."""

from __future__ import annotations

import unicodedata

_FORMULA = ("=", "+", "-", "@", "\u2212")  # what a spreadsheet takes for the beginning of a formula
_UNSEEN = " \t\n\u00a0\u200b\u2060\ufeff"
_KEPT = "\n\t"


def plain_text(text: str) -> str:
    """The text with every line end as a line feed, and without control characters other than it and the tabulator,
    and without halves of a character (surrogates), which no file can hold.

    A lone carriage return would split the row of a table in R and pandas, a NUL end it.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in lines if c in _KEPT or unicodedata.category(c) not in ("Cc", "Cs"))


def one_line(text: str) -> str:
    """The text on one line: no control characters, and single spaces."""
    return " ".join(plain_text(text).split())


def shortened(text: str, most: int = 80) -> str:
    """The text on one line of at most `most` characters, its middle left out where it is longer; its end stays.

    Bytes of a file's name that are not UTF-8 are written as escapes.
    """
    line = one_line(_escaped(text))
    if len(line) <= most:
        return line
    end = most // 3
    return f"{line[: most - end - 1]}…{line[-end:]}"


def safe_cell(value: object) -> object:
    """A cell as tables, spreadsheets and people can read it; numbers and what is missing stay as they are.

    Formulas are guarded by a quote in front, behind spaces and in full-width form too, which some spreadsheets read as
    the plain one.
    """
    if not isinstance(value, str):
        return value
    text = plain_text(value)
    return f"'{text}" if _is_formula(text) else text


def safe_name(value: object) -> object:
    """A cell with the name of a file, which need not be UTF-8: its other bytes are written as escapes."""
    if isinstance(value, str):
        value = _escaped(value)
    return safe_cell(value)


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def unguarded(text: str) -> str:
    """The text of a cell without the quote that `safe_cell` put in front."""
    return text[1:] if text[:1] == "'" and _is_formula(text[1:]) else text


def _is_formula(text: str) -> bool:
    first = unicodedata.normalize("NFKC", text.lstrip(_UNSEEN))[:1]
    return text[:1] == "\t" or first in _FORMULA
