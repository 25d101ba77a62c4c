"""Parts on a Ray cluster: Ray Data hands them to a pool of actors, one loaded model each.

Ray restarts an actor that died and gives its part to the next one; a part's file appears whole or not at all, so each
row is there exactly once however often that happens. Nothing but part numbers and counts travels through Ray: photos
are read, and results written, by the workers themselves. Ray is an extra of its own: `pip install 'skinclip[screen]'`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skinclip.pipeline.assessor import Assessor
from skinclip.screening.errors import ScreeningError
from skinclip.screening.part import PartScreener, use_threads
from skinclip.screening.plan import ScreeningPlan

# Read by Ray when it is imported: no report of use leaves the machine, and no photo's name gets into its progress bars.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")

try:
    import ray
except ImportError as missing:
    raise ScreeningError(
        "several workers need Ray, which is not installed: pip install 'skinclip[screen]', or leave out --workers and "
        "--address to screen in this process"
    ) from missing

OBJECT_STORE = 100_000_000  # bytes; part numbers and counts need next to nothing
MOST_BLOCKS = 4096  # of the data set of part numbers


@dataclass(frozen=True)
class Workers:
    """The workers of a screening.

    Attributes:
        count: processes, each with a model of its own.
        threads: CPUs of each, and threads of its model.
        gpus: GPUs of each; 0.5 lets two share one.
        address: of a Ray cluster, "auto" for that of this machine; None starts one here for this run alone.
    """

    count: int
    threads: int
    gpus: float
    address: str | None


@dataclass(frozen=True)
class PartDone:
    """A part that is done: its number, and its rows by status."""

    part: int
    statuses: Counter[str]


class PartActor:
    """A worker: loads the model at its first part."""

    def __init__(self, plan: ScreeningPlan, photos: Path, weights: Path | None) -> None:
        self.plan, self.photos, self.weights = plan, photos, weights
        self.screener: PartScreener | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """The parts of `batch` with their rows by status."""
        if self.screener is None:  # not in __init__: Ray would start an actor that fails there again for ever
            use_threads(self.plan.terms.threads)
            self.screener = PartScreener(Assessor.load(self.plan.terms.preset, self.weights), self.plan, self.photos)
        parts = [int(part) for part in batch["part"]]
        statuses = [dict(self.screener.screen(part)) for part in parts]
        return {"part": parts, "statuses": [list(s) for s in statuses], "counts": [list(s.values()) for s in statuses]}


def screen_parts(
    plan: ScreeningPlan, parts: list[int], photos: Path, weights: Path | None, workers: Workers
) -> Iterator[PartDone]:
    """Screens `parts` on the workers, yielding each as it is done. Raises what a worker raised, or ScreeningError."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with _cluster(workers):
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.raise_original_map_exception = True
        context.execution_options.preserve_order = False
        blocks = min(len(parts), MOST_BLOCKS)
        todo = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=blocks)
        done = todo.map_batches(
            PartActor,
            fn_constructor_args=(plan, photos, weights),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers.count),
            num_cpus=workers.threads,
            num_gpus=workers.gpus,
        )
        try:
            for row in done.iter_rows():
                yield PartDone(row["part"], Counter(dict(zip(row["statuses"], row["counts"], strict=True))))
        except ray.exceptions.RayError as error:
            last = str(error).strip().splitlines()[-1]
            raise ScreeningError(f"the cluster failed: {last}; the same command goes on where it stopped") from error


@contextlib.contextmanager
def _cluster(workers: Workers) -> Iterator[None]:
    """Connects to the cluster, or starts one on the loopback address for as long as it is needed."""
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if workers.address:
            ray.init(address=workers.address, **quiet)
        else:
            ray.init(
                address="local",
                num_cpus=workers.count * workers.threads,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE,
                _node_ip_address="127.0.0.1",
                **quiet,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ScreeningError(f"no Ray cluster at {workers.address or 'this machine'}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()
