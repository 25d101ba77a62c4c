"""Parsers for single cells of a label file: split, age, sex, diagnosis, malignancy, criteria, skin type."""

from __future__ import annotations

import math
import re

from skinclip.core import vocabulary
from skinclip.core.assessment import Context
from skinclip.data.cases import split_name
from skinclip.data.tables import BadRow, LabelRow

MAX_AGE = 120  # years
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE)
_YES = frozenset({"1", "1.0", "1,0", "true", "yes", "y", "t", "malignant"})
_NO = frozenset({"0", "0.0", "0,0", "false", "no", "n", "f", "benign"})


def parse_number(text: str) -> float | None:
    """A finite number with a decimal point or a decimal comma; None for anything else."""
    if not _NUMBER.fullmatch(text.strip()):
        return None
    number = float(text.replace(",", "."))
    return number if math.isfinite(number) else None


def parse_split(text: str | None) -> str | None:
    """`train`, `valid` or `test` for their usual synonyms; any other split name in lower case."""
    return None if text is None else split_name(text)


def parse_age(text: str | None) -> float | None:
    """Age in years, or None where missing. Raises BadRow unless it is a number from 0 to MAX_AGE."""
    if text is None:
        return None
    age = parse_number(text)
    if age is None or not 0 <= age <= MAX_AGE:
        raise BadRow(f"age {text!r} is not a number from 0 to {MAX_AGE}")
    return age


def parse_sex(text: str | None) -> str | None:
    """One of `vocabulary.SEXES`; None where missing, and for any other word, as the model has no input for it."""
    return None if text is None else {"f": "female", "m": "male"}.get(text, text if text in vocabulary.SEXES else None)


def parse_code(text: str | None) -> str | None:
    """A code of `vocabulary.DIAGNOSIS_CODES`, or None where missing. Raises BadRow for any other word."""
    if text is None or text in vocabulary.DIAGNOSIS_CODES:
        return text
    raise BadRow(f"unknown diagnosis {text!r}; expected one of {', '.join(vocabulary.DIAGNOSIS_CODES)}")


def parse_yes_no(text: str | None, column: str) -> bool | None:
    """True or False for 1, true, yes, malignant and their opposites, in lower case. Raises BadRow for other words."""
    if text is None:
        return None
    if text not in _YES | _NO:
        raise BadRow(f"{column} {text!r} is not 0 or 1")
    return text in _YES


def parse_malignant(text: str | None, diagnosis: str | None) -> bool | None:
    """The malignancy cell where it is filled, else the malignancy of the diagnosis. Raises BadRow for other words."""
    stated = parse_yes_no(text, "malignant")
    return vocabulary.is_malignant(diagnosis) if stated is None else stated


def parse_criteria(row: LabelRow) -> dict[str, str]:
    """Criterion code -> grouped state of each labelled criterion, from Derm7pt's fine labels or from grouped states.

    Raises BadRow for an unknown state.
    """
    criteria = {}
    for criterion in vocabulary.CRITERIA:
        label = row.word(criterion.code)
        if label is None:
            continue
        state = vocabulary.DERM7PT_STATES.get(criterion.code, {}).get(label, label)
        if state not in criterion.labels:
            raise BadRow(f"unknown state {label!r} of {criterion.code}; expected one of {', '.join(criterion.labels)}")
        criteria[criterion.code] = state
    return criteria


def parse_context(row: LabelRow, age: str, sex: str, site: str) -> Context:
    """Age, sex and site of the patient from the columns of those names."""
    return Context(
        age=parse_age(row.get(age)),
        sex=parse_sex(row.word(sex)),
        site=vocabulary.canonical_site(row.get(site)),
    )


def parse_level(text: str | None, column: str, lowest: int, highest: int) -> int | None:
    """A level on a scale of whole numbers, such as the Fitzpatrick type. Raises BadRow for anything else."""
    if text is None:
        return None
    number = parse_number(text)
    if number is None or number != int(number) or not lowest <= number <= highest:
        raise BadRow(f"{column} {text!r} is not a whole number from {lowest} to {highest}")
    return int(number)


def one_hot(row: LabelRow, columns: dict[str, str]) -> str | None:
    """The class of a one-hot row, None where all cells are empty. Raises BadRow unless one cell is 1 and the rest 0.

    Args:
        columns: column name -> class.
    """
    cells = {column: row.get(column.lower()) for column in columns}
    if not any(cells.values()):
        return None
    values = {column: parse_number(cell or "") for column, cell in cells.items()}
    marked = [column for column, value in values.items() if value == 1]
    if len(marked) != 1 or any(value not in (0, 1) for value in values.values()):
        listed = ", ".join(str(cell) for cell in cells.values())
        raise BadRow(f"exactly one of the {len(columns)} class columns must be 1 and the others 0, not {listed}")
    return columns[marked[0]]
