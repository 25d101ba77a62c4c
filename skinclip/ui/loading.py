"""An assessor that is loaded while the page is already there: photos and entries are taken at once.

The page shows the preset of a model, the hash of its weights and whether it has a vision tower of Qwen's: these are
read from its files. Everything else waits until the model is there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from skinclip import __version__
from skinclip.core.assessment import ModelInfo
from skinclip.core.config import ModelConfig
from skinclip.model.allocator import spare_loaded
from skinclip.model.checkpoint import read_config, weights_sha256
from skinclip.model.errors import CheckpointError
from skinclip.pipeline.assessor import Assessor


class LoadingAssessor:
    """Stands for an assessor until it is loaded, and from then on passes everything to it.

    Attributes:
        loaded: the assessor, or why there is none.

    Raises CheckpointError at once where the folder is no complete checkpoint, and later wherever an assessor is used
    that could not be loaded.

    Args:
        folder: the checkpoint.
        load: loads it.
    """

    def __init__(self, folder: Path, load: Callable[[], Assessor]) -> None:
        self.config: ModelConfig = read_config(folder)
        self.model_info = ModelInfo(self.config.preset, __version__, weights_sha256(folder))
        self.checkpoints = {self.model_info.weights_sha256: folder}
        self.loaded: Future[Assessor] = Future()
        self._load = load

    def start(self) -> None:
        """Begins to load, in a thread that does not keep the program from ending."""
        self.loaded.set_running_or_notify_cancel()  # from now on a server that stops does not cancel it
        threading.Thread(target=self._settle, daemon=True).start()

    def _settle(self) -> None:
        try:
            assessor = self._load()
        except Exception as problem:
            self.loaded.set_exception(problem)
            return
        spare_loaded()  # an embedded model is not replaced
        self.loaded.set_result(assessor)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "loaded" not in self.__dict__:
            raise AttributeError(name)
        try:
            assessor = self.loaded.result()
        except Exception as problem:
            raise CheckpointError("The model could not be loaded; the server's log has the details.") from problem
        return getattr(assessor, name)


def is_loading(assessor: Assessor) -> bool:
    """True until the assessor is there."""
    return isinstance(assessor, LoadingAssessor) and not assessor.loaded.done()
