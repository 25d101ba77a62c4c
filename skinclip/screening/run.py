"""A screening from manifest to results: plans it, or goes on with it, and counts what came out."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from skinclip import __version__
from skinclip.core.whole_files import replace_text
from skinclip.hub import checkpoint_folder
from skinclip.model.checkpoint import weights_sha256
from skinclip.pipeline.assessor import Assessor
from skinclip.screening.errors import ScreeningError
from skinclip.screening.manifest import fingerprint, read_manifest
from skinclip.screening.part import PartScreener, has_failures, use_threads
from skinclip.screening.plan import FULL, ScreeningPlan, Terms, check_same, make_plan, open_plan

if TYPE_CHECKING:
    from skinclip.screening.cluster import Workers

SUMMARY = "summary.json"
OnPhotos = Callable[[int], None]


@dataclass(frozen=True)
class ScreeningOptions:
    """Options of a screening.

    Attributes:
        manifest: a CSV or Parquet file with a column `image`; names are relative to its folder.
        out: folder of the results.
        retry: assess those parts again that hold photos which could not be read or assessed.
        workers: None for this process alone.
    """

    manifest: Path
    out: Path
    preset: str = "mini"
    weights: Path | None = None
    part_rows: int = 250
    detail: str = FULL
    threads: int = 1
    retry: bool = False
    workers: Workers | None = None


def screen(options: ScreeningOptions, on_start: OnPhotos, on_photos: OnPhotos) -> dict[str, object]:
    """Screens all rows that have no result yet and returns the summary.

    Args:
        on_start: called with the number of rows, then `on_photos` with numbers of rows that are done.

    Raises ScreeningError, also where another process screens into the same folder.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(options.out / ".lock")
    try:
        with lock.acquire(timeout=0):
            return _screen(options, on_start, on_photos)
    except Timeout as error:
        raise ScreeningError(f"another process is screening into {options.out}; wait for it, or stop it") from error


def _screen(options: ScreeningOptions, on_start: OnPhotos, on_photos: OnPhotos) -> dict[str, object]:
    plan = planned(options)
    if options.retry:
        _open_failed_parts(plan)
    parts = plan.open_parts()
    todo = sum(len(plan.rows_of(part)) for part in parts)
    on_start(plan.rows)
    on_photos(plan.rows - todo)
    (options.out / SUMMARY).unlink(missing_ok=True)
    start = time.monotonic()
    if options.workers is None:
        _in_this_process(options, plan, parts, on_photos)
    else:
        for done in _on_workers(options, plan, parts):
            on_photos(done)
    summary = summarise(plan)
    summary |= {"rows_of_this_run": todo, "seconds_of_this_run": round(time.monotonic() - start, 3)}
    replace_text(options.out / SUMMARY, json.dumps(summary, indent=2) + "\n")
    return summary


def planned(options: ScreeningOptions) -> ScreeningPlan:
    """The plan of the screening: a new one, or that in the folder. Raises ScreeningError where that one differs."""
    plan = open_plan(options.out)
    if not options.manifest.is_file():
        raise ScreeningError(f"{options.manifest} does not exist or is not a file; give a CSV or Parquet manifest")
    terms = Terms(
        manifest_sha256=fingerprint(options.manifest),
        preset=options.preset,
        weights_sha256=weights_sha256(options.weights or checkpoint_folder(options.preset)),
        version=__version__,
        part_rows=options.part_rows,
        detail=options.detail,
        threads=options.threads,
    )
    if plan is None:
        return make_plan(options.out, terms, read_manifest(options.manifest))
    check_same(plan, terms)
    return plan


def summarise(plan: ScreeningPlan) -> dict[str, object]:
    """Counts over all results. Raises ScreeningError unless each row of the plan is there exactly once."""
    statuses: Counter[str] = Counter()
    refer = 0
    for part in range(plan.parts):
        table = pq.read_table(plan.result(part), columns=["row", "status", "refer"])
        if table["row"].to_pylist() != list(plan.rows_of(part)):
            raise ScreeningError(f"{plan.result(part)} does not hold the rows of its part; delete it and start again")
        statuses.update(table["status"].to_pylist())
        refer += sum(map(bool, table["refer"].to_pylist()))
    return {
        "rows": plan.rows,
        "statuses": dict(sorted(statuses.items())),
        "refer": refer,
        "preset": plan.terms.preset,
        "version": plan.terms.version,
        "weights_sha256": plan.terms.weights_sha256,
        "manifest_sha256": plan.terms.manifest_sha256,
        "detail": plan.terms.detail,
    }


def _in_this_process(options: ScreeningOptions, plan: ScreeningPlan, parts: list[int], on_photos: OnPhotos) -> None:
    if not parts:
        return
    use_threads(options.threads)
    screener = PartScreener(Assessor.load(options.preset, options.weights), plan, options.manifest.absolute().parent)
    for part in parts:
        screener.screen(part, lambda: on_photos(1))


def _on_workers(options: ScreeningOptions, plan: ScreeningPlan, parts: list[int]) -> Iterator[int]:
    """Rows done, part by part."""
    from skinclip.screening.cluster import screen_parts  # Ray is an extra

    assert options.workers is not None
    if parts:
        folder = options.manifest.absolute().parent
        for done in screen_parts(plan, parts, folder, options.weights, options.workers):
            yield done.statuses.total()


def _open_failed_parts(plan: ScreeningPlan) -> None:
    for part in range(plan.parts):
        path = plan.result(part)
        if path.exists() and has_failures(path):
            path.unlink()
            plan.journal(part).unlink(missing_ok=True)
