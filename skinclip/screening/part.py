"""One part of a screening: its rows to a Parquet file, in whatever process and on whatever machine."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import pyarrow.parquet as pq
import torch

from skinclip.data.files import FileFinder
from skinclip.imaging.bounded import load_photo_bounded
from skinclip.imaging.photo import LesionImage, PhotoError, read_photo_file
from skinclip.pipeline.assessor import Assessor
from skinclip.screening import results
from skinclip.screening.errors import ScreeningError
from skinclip.screening.journal import MAX_DEATHS, Journal
from skinclip.screening.manifest import PhotoRow
from skinclip.screening.plan import FULL, ScreeningPlan, Terms, replace_table


class PartScreener:
    """Assesses the parts of a plan with one model.

    Args:
        assessor: the model, which must be the one of the plan.
        photos: the folder that relative names in the manifest start from.
    """

    def __init__(self, assessor: Assessor, plan: ScreeningPlan, photos: Path) -> None:
        check_model(assessor, plan.terms)
        self.assessor = assessor
        self.plan = plan
        self.finder = FileFinder(photos)

    def screen(self, part: int, on_photo: Callable[[], None] = lambda: None) -> Counter[str]:
        """Writes the results of a part and returns its rows by status; a part that is done is only counted.

        Args:
            on_photo: called after each photo.

        Raises OSError where the results cannot be written, MemoryError where memory is short.
        """
        path = self.plan.result(part)
        if path.exists():
            return count_statuses(path)
        rows = self.plan.read_part(part)
        written = []
        journal = Journal(self.plan.journal(part))
        with journal:
            for row in rows:
                written.append(self._row(row, journal))
                on_photo()
            replace_table(path, results.as_table(written))
        journal.remove()
        return Counter(row["status"] for row in written)

    def _row(self, row: PhotoRow, journal: Journal) -> dict[str, Any]:
        if row.problem:
            return results.no_answer(row, results.BAD_ROW, row.problem)
        if (deaths := journal.deaths[row.row]) >= MAX_DEATHS:
            reason = f"The process ended {deaths} times while it assessed this photo; it was passed over."
            return results.no_answer(row, results.FAILED, reason)
        journal.begin(row.row)
        try:
            return self._assessed(row)
        finally:
            journal.end(row.row)

    def _assessed(self, row: PhotoRow) -> dict[str, Any]:
        try:
            image = self._load(row.image)
        except (PhotoError, ValueError) as error:  # a ValueError: a name with NUL
            return results.no_answer(row, results.UNREADABLE, str(error))
        try:
            if self.plan.terms.detail == FULL:
                return results.answer(row, self.assessor.assess(image, row.context))
            return results.answer(row, self.assessor.assess_quickly(image, row.context))
        except (MemoryError, torch.OutOfMemoryError):
            raise  # the machine's fault, not the photo's: every further photo would fail as well
        except Exception as error:
            reason = f"The model failed on this photo ({type(error).__name__}: {error})."
            return results.no_answer(row, results.FAILED, reason)

    def _load(self, name: str) -> LesionImage:
        path = self.finder.root / name
        return load_photo_bounded(read_photo_file(path if os.path.exists(path) else self.finder.find(name) or path))


def check_model(assessor: Assessor, terms: Terms) -> None:
    """Raises ScreeningError where this process has another program or other weights than the plan."""
    info = assessor.model_info
    here, there = (info.version, info.weights_sha256), (terms.version, terms.weights_sha256)
    if here != there:
        raise ScreeningError(
            f"this process has version {here[0]} and weights {here[1][:12]}, the screening was planned with version "
            f"{there[0]} and weights {there[1][:12]}; install the same on all machines"
        )


def use_threads(threads: int) -> None:
    """Sets the number of threads of the model in this process."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def count_statuses(path: Path) -> Counter[str]:
    """The rows of a part's results by status."""
    return Counter(pq.read_table(path, columns=["status"])["status"].to_pylist())


def has_failures(path: Path, statuses: Sequence[str] = (results.UNREADABLE, results.FAILED)) -> bool:
    """True where a part's results hold photos that another try might read or assess."""
    return any(count_statuses(path)[status] for status in statuses)
