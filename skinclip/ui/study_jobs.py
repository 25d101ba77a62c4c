"""Long work of the set-up page: it goes on in the server whatever becomes of the browser, one at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from skinclip.data.cases import DataError
from skinclip.imaging.photo import PhotoError
from skinclip.model.errors import CheckpointError
from skinclip.study.errors import StudyError, StudyRequestError
from skinclip.ui.background_task import TaskStopped

OnProgress = Callable[[int, int], None]
Work = Callable[[OnProgress], Any]
REPORTED = (
    StudyError,
    DataError,
    PhotoError,
    CheckpointError,
    OSError,
    ValueError,
)  # their words are for the coordinator


@dataclass(frozen=True)
class JobState:
    """State of a job.

    Attributes:
        kind: of the work, such as `build`.
        words: the work in progress, in words.
        done, total: steps; both 0 while the work begins.
        result: what it gave, once it has ended well.
        problem: why it has ended otherwise.
    """

    kind: str
    words: str
    done: int = 0
    total: int = 0
    ended: bool = False
    result: Any = None
    problem: str = ""


class StudyJobs:
    """The jobs of all studies in preparation: the last one of each is kept, and one runs at a time."""

    def __init__(self) -> None:
        self._states: dict[str, JobState] = {}
        self._stopped: set[str] = set()
        self._lock = threading.Lock()

    def state(self, study: str) -> JobState | None:
        """The running job of a study, or the last one; None without any."""
        with self._lock:
            return self._states.get(study)

    def start(self, study: str, job: JobState, work: Work) -> None:
        """Starts `work` in a thread. Raises StudyRequestError while another job runs."""
        with self._lock:
            busy = next((name for name, state in self._states.items() if not state.ended), None)
            if busy is not None:
                raise StudyRequestError(f"the computer is busy with {busy}; wait until that is done, or stop it")
            self._states[study] = job
            self._stopped.discard(study)
        threading.Thread(target=self._run, args=(study, work), daemon=True).start()

    def stop(self, study: str) -> None:
        """Ends a study's job at its next step; without one nothing happens."""
        with self._lock:
            self._stopped.add(study)

    def _run(self, study: str, work: Work) -> None:
        try:
            result = work(lambda done, total: self._step(study, done, total))
        except TaskStopped:
            self._put(
                study, ended=True, problem="Stopped. What was computed is kept, and the next start goes on there."
            )
        except REPORTED as problem:
            self._put(study, ended=True, problem=str(problem))
        except BaseException:
            self._put(study, ended=True, problem="An unexpected fault; the terminal has the details.")
            raise
        else:
            self._put(study, ended=True, result=result)

    def _step(self, study: str, done: int, total: int) -> None:
        self._put(study, done=done, total=total)
        with self._lock:
            if study in self._stopped:
                raise TaskStopped

    def _put(self, study: str, **changes: Any) -> None:
        with self._lock:
            self._states[study] = replace(self._states[study], **changes)
