"""Another system's probabilities, read from a CSV file so that `evaluate` can score them like our own.

The format is ISIC 2018 Task 3's: a column `image` and one column a diagnosis (MEL, NV, BCC, AKIEC, BKL, DF, VASC), in
any order, in capitals or not. Values are taken as probabilities at natural prevalence unless a prior is given, see
`PredictionFile.balanced`. A file is taken as a whole or refused with the rows named: nothing is dropped silently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from skinclip.core.formatting import count
from skinclip.core.safe_text import unguarded
from skinclip.core.vocabulary import DIAGNOSIS_CODES, ISIC2018_COLUMNS, PREDICTION_COLUMNS
from skinclip.data.cases import Case, CaseTable, DataError
from skinclip.data.cells import parse_number
from skinclip.data.files import one_form, without_suffix
from skinclip.data.tables import LabelFile, LabelRow, read_labels
from skinclip.evaluation.scores import ISIC2018_CODES

# The official scorer of ISIC 2018 Task 3 gives this test photo weight 0: it is left out of figures, and not missed.
NOT_SCORED = frozenset({"ISIC_0035068"})
LEAST_SUM, LARGEST_SUM = 1e-12, 1e12  # of a row: beyond, its values are no probabilities, scores or percentages
LEAST_SHARE = 1e-9  # of a class in a prior, which probabilities are divided by
SUM_TOLERANCE = 1e-6  # a row that sums to 1 this closely is taken as it is
_NAMED = 3  # photos or rows that an error names; all are counted


@dataclass(frozen=True)
class PredictionFile:
    """The rows of one file for the cases asked for.

    Attributes:
        name: what the report calls the system.
        sha256: of the file.
        probabilities: image id -> [C], order of `codes`, summing to 1.
        prior: [C] class shares that the probabilities hold at, or None where not given.
        missing: ids of the cases without a row.
        renormalised: rows whose values did not sum to 1 and were divided by their sum.
        sums: lowest and highest sum of a row, as written.
        other_splits: rows for cases of the data set that were not asked for.
        codes: the diagnoses that the file has columns of: ISIC 2018's seven, and further ones where they are there.
    """

    name: str
    sha256: str
    probabilities: Mapping[str, np.ndarray]
    prior: np.ndarray | None
    missing: tuple[str, ...]
    renormalised: int
    sums: tuple[float, float]
    other_splits: int
    codes: tuple[str, ...] = DIAGNOSIS_CODES

    def balanced(self, p: np.ndarray) -> np.ndarray:
        """[C] p / prior, renormalised: what balanced accuracy decides by. `p` itself where no prior is given."""
        if self.prior is None:
            return p
        divided: np.ndarray = p / self.prior
        return divided / divided.sum()


def read_predictions(
    path: Path,
    table: CaseTable,
    cases: Sequence[Case],
    *,
    name: str | None = None,
    prior: np.ndarray | None = None,
    allow_missing: bool = False,
) -> PredictionFile:
    """The predictions that `path` holds for `cases`, which are some or all of `table`.

    A photo is named by its id or by its file's name, with or without extension.

    Raises DataError where the file is no such table, a value is no number of at least 0, a photo is named twice or is
    none of the data set, or (unless `allow_missing`) a case has no row.
    """
    labels = read_labels(path, ["image", *(column.lower() for column in ISIC2018_COLUMNS)])
    _no_other_columns(labels)
    columns = {code: column.lower() for column, code in PREDICTION_COLUMNS.items() if column.lower() in labels.columns}
    codes = tuple(code for code in DIAGNOSIS_CODES if code in columns)
    if prior is not None and len(prior) != len(codes):
        raise DataError(f"{path}: the prior is of {len(prior)} diagnoses, the file of {len(codes)}: {', '.join(codes)}")
    wanted_columns = {code: columns[code] for code in codes}
    values = np.array([_numbers(path, row, wanted_columns) for row in labels.rows]).reshape(-1, len(codes))
    images = _images(path, labels.rows, table)
    wanted = {case.image_id for case in cases}
    missing = tuple(case.image_id for case in cases if case.image_id not in {*images, *NOT_SCORED})
    if missing and not allow_missing:
        raise DataError(
            f"{path}: photos without a prediction: {len(missing)} of {len(cases)} ({_first(missing)}); add them, or "
            "give --allow-missing to measure the others and count these"
        )
    if not wanted & set(images):
        raise DataError(f"{path}: none of the {len(cases)} photos asked for has a prediction")
    used = [row for row, image_id in enumerate(images) if image_id in wanted]
    sums = values[used].sum(axis=1)
    p = np.where(np.abs(sums - 1) > SUM_TOLERANCE, 1 / sums, 1.0)[:, None] * values[used]
    return PredictionFile(
        name=name or path.stem,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        probabilities=dict(zip([images[row] for row in used], p, strict=True)),
        prior=prior,
        missing=missing,
        renormalised=int((np.abs(sums - 1) > SUM_TOLERANCE).sum()),
        sums=(float(sums.min()), float(sums.max())),
        other_splits=len(images) - len(used),
        codes=codes,
    )


def parse_prior(text: str) -> np.ndarray:
    """[C] shares from `mel=0.11,nv=0.67,...`, scaled to sum to 1: of all diagnoses, or of ISIC 2018's seven.

    Raises ValueError.
    """
    pairs = [part.partition("=") for part in text.lower().split(",")]
    shares = {code.strip(): parse_number(share) for code, _, share in pairs}
    codes = next((c for c in (DIAGNOSIS_CODES, ISIC2018_CODES) if set(c) == set(shares)), None)
    if len(pairs) != len(shares) or codes is None:
        raise ValueError(f"name each of {', '.join(DIAGNOSIS_CODES)} once, as in mel=0.11,nv=0.67,...")
    bad = [code for code, share in shares.items() if share is None or share <= 0]
    if bad:
        raise ValueError(f"the share of {bad[0]} is no number above 0")
    prior = np.array([shares[code] for code in codes], dtype=np.float64)
    prior /= prior.max()  # first, lest the sum overflow
    prior /= prior.sum()
    if prior.min() < LEAST_SHARE:
        code = codes[int(prior.argmin())]
        raise ValueError(f"the share of {code} is below {LEAST_SHARE:g} of all; probabilities cannot be divided by it")
    return prior


def as_table(image_ids: Sequence[str], values: Sequence[np.ndarray], codes: Sequence[str]) -> pd.DataFrame:
    """Rows of values, one of each of `codes`, as a table in ISIC's format, as this module reads it."""
    columns = {
        column: [float(row[codes.index(code)]) for row in values]
        for column, code in PREDICTION_COLUMNS.items()
        if code in codes
    }
    return pd.DataFrame({"image": list(image_ids), **columns})


# --- parts --------------------------------------------------------------------------------------------------------


def _no_other_columns(labels: LabelFile) -> None:
    """A class that is not one of the vocabulary, such as UNK, would take its share of the probability along unseen."""
    other = sorted(set(labels.columns) - {"image", *(column.lower() for column in PREDICTION_COLUMNS)})
    if other:
        raise DataError(f"{labels.path}: column {other[0]!r} is not known; remove it, or add it to one of the others")
    if not labels.rows:
        raise DataError(f"{labels.path}: no rows below the header")


def _numbers(path: Path, row: LabelRow, columns: Mapping[str, str]) -> list[float]:
    """The row's values, in the order of `columns` (code -> name)."""
    if row.problem:
        raise DataError(f"{path} line {row.line}: {row.problem}")
    cells = {code: row.cells[column] for code, column in columns.items()}
    where = f"{path} line {row.line} ({row.cells['image'] or 'no image'})"
    values = []
    for code in columns:
        number = parse_number(cells[code])
        if number is None or number < 0:
            raise DataError(f"{where}: {code} is {cells[code]!r}, not a number of at least 0")
        values.append(number)
    total = sum(values)
    if total == 0:
        raise DataError(f"{where}: all {count(len(values))} values are 0; give each photo at least one value above 0")
    if not LEAST_SUM <= total <= LARGEST_SUM:
        raise DataError(
            f"{where}: the {count(len(values))} values sum to {total:.3g}; give probabilities, which sum to 1"
        )
    return values


def _images(path: Path, rows: Sequence[LabelRow], table: CaseTable) -> list[str]:
    """The image id that each row names. Raises DataError for one that is unknown or named twice."""
    names = _names(table.cases)
    images = [_known(names, row.cells["image"]) for row in rows]
    unknown = [row.cells["image"] or f"line {row.line}" for row, image in zip(rows, images, strict=True) if not image]
    if unknown:
        left_out = f"; the data set's own rows left out: {len(table.problems)}" if table.problems else ""
        raise DataError(
            f"{path}: rows for photos that the data set does not have: {len(unknown)} ({_first(unknown)}); check the "
            f"ids or remove these rows{left_out}"
        )
    known = [image for image in images if image]
    twice = sorted(pd.Series(known)[pd.Series(known).duplicated()].unique())
    if twice:
        raise DataError(f"{path}: photos with more than one row: {len(twice)} ({_first(twice)}); keep one row of each")
    return known


def _known(names: Mapping[str, str], cell: str) -> str | None:
    """The id of the photo that a cell names, with or without its file's ending and the quote before a formula."""
    spellings = (one_form(text) for text in (cell, unguarded(cell)))
    return next((names[s] for name in spellings for s in (name, without_suffix(name)) if s in names), None)


def _names(cases: Iterable[Case]) -> dict[str, str]:
    """Names that a file may call a photo by -> its id. An id wins over a file name; a name of two photos is none."""
    by_file: dict[str, str] = {}
    shared: set[str] = set()
    for case in cases:
        for name in {one_form(case.image.name), one_form(case.image.stem)}:
            if by_file.setdefault(name, case.image_id) != case.image_id:
                shared.add(name)
    return {name: i for name, i in by_file.items() if name not in shared} | {
        one_form(c.image_id): c.image_id for c in cases
    }


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
