"""Work that tells of itself while it runs, in a thread of its own, so that a page can show it and can stop it.

A handler of the page iterates over a `Run`. When it is stopped, or the visitor leaves, the work ends at the next thing
it has to tell: a step of the model itself cannot be interrupted.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

News = TypeVar("News")


class Stopped(Exception):
    """The work was stopped from outside."""


class Run(Generic[News]):
    """`work`, called with a function that takes its news; iterating gives them as they come, then what it returns.

    Raises what the work raises, and Stopped where it was stopped, at once.
    """

    def __init__(self, work: Callable[[Callable[[News], None]], News]) -> None:
        self._work = work
        self._news: queue.SimpleQueue[tuple[bool, News | Exception]] = queue.SimpleQueue()  # (is it the last?, what)
        self._stopped = threading.Event()

    def __iter__(self) -> Iterator[News]:
        threading.Thread(target=self._carry_out, daemon=True).start()
        try:
            last = False
            while not last:
                last, news = self._news.get()
                if isinstance(news, Exception):
                    raise news
                yield news
        finally:  # also where the iterator is closed before its end
            self.stop()

    def stop(self) -> None:
        """Ends the iteration; the work ends when it next tells something."""
        self._stopped.set()
        self._news.put((True, Stopped()))

    def _carry_out(self) -> None:
        try:
            self._news.put((True, self._work(self._tell)))
        except Exception as problem:
            self._news.put((True, problem))

    def _tell(self, news: News) -> None:
        if self._stopped.is_set():
            raise Stopped
        self._news.put((False, news))


class Runs:
    """The run that each visitor waits for."""

    def __init__(self) -> None:
        self._runs: dict[str | None, Run] = {}

    def begin(self, visitor: str | None, run: Run) -> None:
        self._runs[visitor] = run

    def stop(self, visitor: str | None) -> None:
        """Does nothing where the visitor waits for none."""
        run = self._runs.pop(visitor, None)
        if run is not None:
            run.stop()

    def end(self, visitor: str | None) -> None:
        self._runs.pop(visitor, None)
