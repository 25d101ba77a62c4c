"""Background task: work in a thread of its own that reports progress to a handler and can be stopped.

A handler of the page iterates over a `BackgroundTask`. After a stop, or when the visitor leaves, the work ends at its
next progress report: a step of the model itself cannot be interrupted.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Report = TypeVar("Report")


class TaskStopped(Exception):
    """The visitor stopped the task."""


class TaskSuperseded(TaskStopped):
    """The task's result is no longer wanted: the visitor has another photo on the page."""


class BackgroundTask(Generic[Report]):
    """Runs `work` in a thread; iterating yields each progress report, then what `work` returns.

    Iterating raises what `work` raises, and TaskStopped or TaskSuperseded at once after `stop`.

    Args:
        work: called with a function that takes progress reports.
    """

    def __init__(self, work: Callable[[Callable[[Report], None]], Report]) -> None:
        self._work = work
        self._reports: queue.SimpleQueue[tuple[bool, Report | Exception]] = queue.SimpleQueue()  # (is it the last?, it)
        self._stopped = threading.Event()
        self._reason: TaskStopped = TaskStopped()

    def __iter__(self) -> Iterator[Report]:
        threading.Thread(target=self._run, daemon=True).start()
        try:
            last = False
            while not last:
                last, report = self._reports.get()
                if self._stopped.is_set():  # reports from before the stop may still be queued
                    raise self._reason
                if isinstance(report, Exception):
                    raise report
                yield report
        finally:  # also where the iterator is closed before its end
            self.stop()

    def stop(self, superseded: bool = False) -> None:
        """Ends the iteration; the work ends at its next progress report."""
        if not self._stopped.is_set():
            self._reason = TaskSuperseded() if superseded else TaskStopped()
        self._stopped.set()
        self._reports.put((True, self._reason))

    def _run(self) -> None:
        try:
            self._reports.put((True, self._work(self._report)))
        except Exception as problem:
            self._reports.put((True, problem))

    def _report(self, report: Report) -> None:
        if self._stopped.is_set():
            raise self._reason
        self._reports.put((False, report))


class TasksByVisitor:
    """The running task of each visitor, by session hash."""

    def __init__(self) -> None:
        self._tasks: dict[str | None, BackgroundTask] = {}

    def begin(self, visitor: str | None, task: BackgroundTask) -> None:
        """Makes `task` the visitor's running one."""
        self._tasks[visitor] = task

    def stop(self, visitor: str | None, superseded: bool = False) -> None:
        """Does nothing for a visitor without a running task."""
        task = self._tasks.pop(visitor, None)
        if task is not None:
            task.stop(superseded)

    @contextmanager
    def of(self, visitor: str | None) -> Iterator[Callable[[BackgroundTask], None]]:
        """Gives a function that makes a task the visitor's running one; forgets that task at the end."""
        begun: list[BackgroundTask] = []

        def begin(task: BackgroundTask) -> None:
            begun.append(task)
            self.begin(visitor, task)

        try:
            yield begin
        finally:
            if self._tasks.get(visitor) in begun:
                self._tasks.pop(visitor, None)


class WaitingLine:
    """Visitors whose assessment waits or runs, in the order in which they asked; the first one's runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._visitors: list[str | None] = []

    def join(self, visitor: str | None) -> None:
        """Puts a visitor at the end, once."""
        with self._lock:
            if visitor not in self._visitors:
                self._visitors.append(visitor)

    def leave(self, visitor: str | None) -> None:
        """Takes a visitor out, who need not be in it."""
        with self._lock, contextlib.suppress(ValueError):
            self._visitors.remove(visitor)

    def ahead(self, visitor: str | None) -> int:
        """The number of visitors before this one; 0 for one who is not in the line."""
        with self._lock:
            return self._visitors.index(visitor) if visitor in self._visitors else 0
