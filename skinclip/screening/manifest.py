"""Manifest -> rows to screen: a CSV (or TSV) table, or a Parquet file of any size, with a column `image`.

No row is lost: one that cannot be used carries its problem and becomes a row of the results. A table is read as data
sets are (`data/tables.py`); a Parquet file is streamed, so its size is not bounded by memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skinclip.core.assessment import Context
from skinclip.data import cells
from skinclip.data.cases import DataError
from skinclip.data.layouts.manifest import check_image_column
from skinclip.data.tables import BadRow, LabelRow, read_labels
from skinclip.screening.errors import ScreeningError

PARQUET = (".parquet", ".pq")
SITE_COLUMNS = ("localization", "site")
_CHUNK = 1 << 20  # bytes hashed at a time
_BATCH = 10_000  # rows of a Parquet file held at a time


@dataclass(frozen=True)
class PhotoRow:
    """One row of a manifest; `row` counts from 0. `problem` says why it cannot be assessed, whatever its photo."""

    row: int
    image: str
    context: Context
    problem: str | None = None


def read_manifest(path: Path) -> Iterator[PhotoRow]:
    """All rows of a manifest in their order.

    Raises ScreeningError where there is no such table, or none with a column `image`.
    """
    if not path.is_file():
        raise ScreeningError(f"{path} does not exist or is not a file; give a CSV or Parquet file with a column image")
    rows = _parquet_rows(path) if path.suffix.lower() in PARQUET else _table_rows(path)
    for row in rows:
        yield _photo_row(row)


def fingerprint(path: Path) -> str:
    """The sha256 of the manifest's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _table_rows(path: Path) -> Iterable[LabelRow]:
    try:
        labels = read_labels(path, ())
        check_image_column(labels.path, labels.columns)
    except DataError as error:
        raise ScreeningError(str(error)) from error
    return labels.rows


def _parquet_rows(path: Path) -> Iterator[LabelRow]:
    try:
        file = pq.ParquetFile(path)
        columns = [" ".join(name.lower().split()) for name in file.schema_arrow.names]
        check_image_column(path, columns)
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH, columns=_wanted(file.schema_arrow.names)):
            for cells_of_row in batch.to_pylist():
                yield LabelRow(number + 1, number, {_key(name): _text(cell) for name, cell in cells_of_row.items()})
                number += 1
    except (pa.ArrowException, OSError, DataError) as error:
        raise ScreeningError(f"{path}: {error}") from error


def _wanted(names: Sequence[str]) -> list[str]:
    return [name for name in names if _key(name) in ("image", "age", "sex", *SITE_COLUMNS)]


def _key(name: str) -> str:
    return " ".join(name.lower().split())


def _text(cell: object) -> str:
    return "" if cell is None else str(cell)


def _photo_row(row: LabelRow) -> PhotoRow:
    image = row.cells.get("image", "")
    try:
        if row.problem:
            raise BadRow(row.problem)
        site = next((column for column in SITE_COLUMNS if row.get(column)), SITE_COLUMNS[0])
        return PhotoRow(row.number, row.require("image"), cells.parse_context(row, "age", "sex", site))
    except BadRow as error:
        return PhotoRow(row.number, image, Context(), f"line {row.line} of the manifest: {error}")
