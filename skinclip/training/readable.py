"""Photos and masks that cannot be decoded, found before anything is trained: named, left out and counted."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from skinclip.core.whole_files import replace_text
from skinclip.data.cases import Case, DataError
from skinclip.data.photos import read_mask
from skinclip.imaging.photo import PhotoError, load_photo

log = logging.getLogger(__name__)
NAMED = 20  # files that are named one by one


class FileChecks:
    """Decodes each file once and remembers the outcome in `folder` by path, size and time of the last change."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "decoded.json"
        try:
            self.known: dict[str, str] = dict(json.loads(self.path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            self.known = {}
        self.problems: list[str] = []

    def problem(self, file: Path, decode: Callable[[Path], object]) -> bool:
        """Tells whether `file` cannot be decoded, and notes why."""
        try:
            stat = file.stat()
            key = f"{file} {stat.st_size} {stat.st_mtime_ns}"
            if key not in self.known:
                self.known[key] = _reason(file, decode)
            reason = self.known[key]
        except OSError as error:
            reason = error.strerror or str(error)
        if reason:
            self.problems.append(f"{file}: {reason}")
        return bool(reason)

    def save(self) -> None:
        """Writes what is known, whole or not at all."""
        replace_text(self.path, json.dumps(self.known), alone=True)


def _reason(file: Path, decode: Callable[[Path], object]) -> str:
    """The reason why a file cannot be decoded, empty where it can."""
    try:
        decode(file)
    except (PhotoError, DataError) as error:
        return str(error).removeprefix(f"{file}: ")
    return ""


def readable(by_split: dict[str, list[Case]], cache: Path, strict: bool = False) -> dict[str, list[Case]]:
    """The cases whose photo can be decoded; of those, masks and close-ups that cannot are left out alone.

    What is left out is named in the log and counted.

    Args:
        cache: folder in which the outcome is kept for the next start.
        strict: stop instead.

    Raises DataError where `strict` and a file cannot be decoded, or where no training photo can.
    """
    checks = FileChecks(cache)
    total = sum(map(len, by_split.values()))
    with tqdm(total=total, desc="checking photos", mininterval=5) as bar:
        kept = {split: _kept(cases, checks, bar.update) for split, cases in by_split.items()}
    checks.save()
    if not checks.problems:
        return kept
    left = total - sum(map(len, kept.values()))
    many = len(checks.problems)
    count = f"{many} file{'s' * (many != 1)} cannot be read, {left} of {total} photos are left out"
    if strict:
        raise DataError(f"{checks.problems[0]} ({count}); replace or remove the file, or train without --strict")
    for problem in checks.problems[:NAMED]:
        log.warning("left out: %s", problem)
    log.warning("%s%s", count, f"; the first {NAMED} are named" if many > NAMED else "")
    if not kept.get("train"):
        raise DataError(f"no training photo can be read; the first: {checks.problems[0]}")
    return kept


def _kept(cases: Sequence[Case], checks: FileChecks, tick: Callable[[], object]) -> list[Case]:
    kept = []
    for case in cases:
        tick()
        if checks.problem(case.image, load_photo):
            continue
        if case.mask is not None and checks.problem(case.mask, read_mask):
            case = replace(case, mask=None)
        if case.clinical_image is not None and checks.problem(case.clinical_image, load_photo):
            case = replace(case, clinical_image=None)
        kept.append(case)
    return kept
