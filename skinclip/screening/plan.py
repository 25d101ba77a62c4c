"""The plan of a screening: which rows belong to which part, what is assessed with, and which parts are done.

    DIR/plan.json                     manifest, model and options; a run that goes on must have the same
    DIR/plan/part-000000.parquet      rows of the manifest, in its order
    DIR/results/part-000000.parquet   their results, whole or not there at all
    DIR/journal/part-000000.txt       photos begun and ended in parts that are not done
    DIR/summary.json                  counts, once every part is done

A part is the unit of work: a worker that dies leaves nothing of it but its journal, and another makes it anew. Files
appear by renaming, so two workers with the same part leave one whole file. DIR may lie on a file system that all
machines of a cluster share.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skinclip.core.assessment import Context
from skinclip.core.whole_files import replace_text, whole_file
from skinclip.screening.errors import ScreeningError
from skinclip.screening.manifest import PhotoRow

FILE = "plan.json"
FULL, QUICK = "full", "quick"
_SCHEMA = pa.schema(
    [
        *(("row", pa.int64()), ("image", pa.string()), ("problem", pa.string())),
        *(("age", pa.float64()), ("sex", pa.string()), ("site", pa.string())),
    ]
)


@dataclass(frozen=True)
class Terms:
    """The terms of a screening; its results hold only for these, so a run that goes on must have the same.

    Attributes:
        manifest_sha256: of the manifest's bytes.
        part_rows: rows in a part.
        detail: "full" for whole Assessments, "quick" for those without measured effects and rationale.
        threads: threads of the model in a process; another number moves effects in the sixth decimal.
    """

    manifest_sha256: str
    preset: str
    weights_sha256: str
    version: str
    part_rows: int
    detail: str
    threads: int


@dataclass(frozen=True)
class ScreeningPlan:
    """The plan in `folder`, with `rows` rows in `parts` parts."""

    folder: Path
    terms: Terms
    rows: int
    parts: int

    def result(self, part: int) -> Path:
        """The file with the results of a part."""
        return self.folder / "results" / _name(part)

    def journal(self, part: int) -> Path:
        """The journal of a part that is not done."""
        return self.folder / "journal" / f"part-{part:06d}.txt"

    def read_part(self, part: int) -> list[PhotoRow]:
        """The rows of a part."""
        cells = pq.read_table(self.folder / "plan" / _name(part)).to_pylist()
        return [
            PhotoRow(c["row"], c["image"], Context(c["age"], c["sex"], c["site"]), c["problem"] or None) for c in cells
        ]

    def open_parts(self) -> list[int]:
        """The parts without a result, in order."""
        done = {path.name for path in (self.folder / "results").glob("part-*.parquet")}
        return [part for part in range(self.parts) if _name(part) not in done]

    def rows_of(self, part: int) -> range:
        """The numbers of the rows of a part."""
        first = part * self.terms.part_rows
        return range(first, min(first + self.terms.part_rows, self.rows))


def open_plan(folder: Path) -> ScreeningPlan | None:
    """The plan in `folder`, None where there is none. Raises ScreeningError for one that cannot be read."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        return ScreeningPlan(folder, Terms(**written["terms"]), int(written["rows"]), int(written["parts"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ScreeningError(f"{path} is not the plan of a screening; choose another --out") from error


def make_plan(folder: Path, terms: Terms, rows: Iterable[PhotoRow]) -> ScreeningPlan:
    """Writes the plan of a new screening and returns it. Raises ScreeningError for a manifest without rows."""
    gathering = folder / f".plan-{uuid.uuid4().hex}"
    gathering.mkdir(parents=True)
    try:
        counted = parts = 0
        for parts, chunk in enumerate(_chunks(rows, terms.part_rows), start=1):
            pq.write_table(_as_table(chunk), gathering / _name(parts - 1))
            counted += len(chunk)
        if not counted:
            raise ScreeningError("the manifest has no rows below its header; nothing to screen")
        shutil.rmtree(folder / "plan", ignore_errors=True)  # of a run that ended before its plan.json
        gathering.rename(folder / "plan")
    finally:
        shutil.rmtree(gathering, ignore_errors=True)
    for name in ("results", "journal"):
        (folder / name).mkdir(exist_ok=True)
    written = {"terms": asdict(terms), "rows": counted, "parts": parts}
    replace_text(folder / FILE, json.dumps(written, indent=2) + "\n")
    return ScreeningPlan(folder, terms, counted, parts)


def check_same(plan: ScreeningPlan, terms: Terms) -> None:
    """Raises ScreeningError where the plan was made under other terms, naming those that differ."""
    other = [f.name for f in fields(Terms) if getattr(plan.terms, f.name) != getattr(terms, f.name)]
    if other:
        said = ", ".join(f"{name} {getattr(plan.terms, name)} there, {getattr(terms, name)} now" for name in other)
        raise ScreeningError(f"{plan.folder} holds a screening under other terms ({said}); choose another --out")


def replace_table(path: Path, table: pa.Table) -> None:
    """Writes a Parquet file that is whole or not there; nothing of it stays where the disk is full."""
    with whole_file(path) as part:
        pq.write_table(table, part, compression="zstd")


def _name(part: int) -> str:
    return f"part-{part:06d}.parquet"


def _chunks(rows: Iterable[PhotoRow], size: int) -> Iterator[list[PhotoRow]]:
    iterator = iter(rows)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _as_table(rows: Iterable[PhotoRow]) -> pa.Table:
    cells: Iterator[dict[str, object]] = (
        {"row": r.row, "image": r.image, "problem": r.problem, **asdict(r.context)} for r in rows
    )
    return pa.Table.from_pylist(list(cells), schema=_SCHEMA)
