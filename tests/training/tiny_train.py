"""The command line with a tiny `qwen-3b`, in a process of its own: tests start it, stop it and multiply it.

    python tests/training/tiny_train.py FOLDER [--no-dropout] [--fsdp] [--die-after STEP] train --preset qwen-3b ...

FOLDER holds the base and the CLIP that `tests.helpers.tiny_hub` wrote.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import warnings
from pathlib import Path

from accelerate.state import AcceleratorState, DistributedType, PartialState

from skinclip.cli import main as cli
from skinclip.core import config
from skinclip.core.config import ModelConfig
from skinclip.training.csv_log import CsvLog
from tests.helpers.tiny_hub import registered_clip, tiny_preset


def die_after(last: int) -> None:
    """Ends this process as a power cut would, once stage 2 has logged the step."""
    write = CsvLog.write

    def wrapped(self, step, values):
        write(self, step, values)
        if self.stage == "stage2" and step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    CsvLog.write = wrapped


def share_out() -> None:
    """FSDP on the CPU: Accelerate offers it for GPUs only, and is told that it does."""
    init = AcceleratorState.__init__

    def wrapped(self, *args, fsdp_plugin=None, **kwargs):
        init(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = wrapped


def without_dropout(of: ModelConfig) -> ModelConfig:
    return dataclasses.replace(
        of,
        evidence=dataclasses.replace(of.evidence, adapter_dropout=0.0),
        reasoner=dataclasses.replace(of.reasoner, answer_dropout=0.0),
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    folder, words = Path(sys.argv[1]), sys.argv[2:]
    tiny = tiny_preset(folder / "base", registered_clip(folder / "clip"))
    if words[0] == "--no-dropout":
        tiny, words = without_dropout(tiny), words[1:]
    if words[0] == "--fsdp":
        share_out()
        tiny = dataclasses.replace(tiny, reasoner=dataclasses.replace(tiny.reasoner, cpu_weights="nf4"))
        words = words[1:]
    if words[0] == "--die-after":
        die_after(int(words[1]))
        words = words[2:]
    config.PRESETS["qwen-3b"] = tiny
    sys.exit(cli.main(words))
