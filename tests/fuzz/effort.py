"""How long the fuzz tests run: some seconds each in continuous integration, longer where SKINCLIP_FUZZ says so.

SKINCLIP_FUZZ=100000 python -m pytest tests/fuzz     so many examples a test
python -m eval_study.reliability.fuzz ...            rounds of them, counted and timed for each target

SKINCLIP_FUZZ_FIGURES names a file that gets the number of executions and the longest one when the run ends.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("SKINCLIP_FUZZ") or 60)
FIGURES = os.environ.get("SKINCLIP_FUZZ_FIGURES")
figures: dict[str, float] = {"executions": 0, "longest_seconds": 0.0}  # of all tests of this run
Test = TypeVar("Test", bound=Callable[..., Any])

_effort = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES <= 60,  # the short run is the same everywhere; the long one looks elsewhere each time
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


def fuzzed(test: Test) -> Test:
    """Runs a test made by `given` with the effort asked for, counting and timing the executions of its body."""
    body = test.hypothesis.inner_test  # type: ignore[attr-defined]

    @functools.wraps(body)
    def counted(*args: Any, **values: Any) -> None:
        figures["executions"] += 1
        start = time.monotonic()
        try:
            body(*args, **values)
        finally:
            figures["longest_seconds"] = max(figures["longest_seconds"], time.monotonic() - start)

    test.hypothesis.inner_test = counted  # type: ignore[attr-defined]
    return _effort(test)


def _write_figures() -> None:
    Path(str(FIGURES)).write_text(json.dumps(figures), encoding="utf-8")


if FIGURES:
    atexit.register(_write_figures)
