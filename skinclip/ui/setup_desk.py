"""The parts that the set-up page works with: studies in preparation, long work, readers' pages, and who may ask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from skinclip.study.workspace import Workspace
from skinclip.ui.guard.setup_access import SetupAccess
from skinclip.ui.readers_page import ReadersPages
from skinclip.ui.study_jobs import StudyJobs

if TYPE_CHECKING:
    from skinclip.pipeline.assessor import Assessor


@dataclass(frozen=True)
class SetupDesk:
    """Everything behind the set-up page. `load` loads the model, once, when the first study is built."""

    workspace: Workspace
    access: SetupAccess
    load: Callable[[], Assessor]
    jobs: StudyJobs = field(default_factory=StudyJobs)
    pages: ReadersPages = field(default_factory=ReadersPages)

    @cached_property
    def assessor(self) -> Assessor:
        """The model. Raises CheckpointError or ValueError where there is none."""
        return self.load()

    def is_busy(self, study: str) -> bool:
        """True while a job of the study runs: its photos and protocol must stay as they are."""
        state = self.jobs.state(study)
        return state is not None and not state.ended
