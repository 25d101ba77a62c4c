"""Time, memory and the machine: what a measurement needs beside the thing it measures.

On Linux the resident memory of a process is divided into its own pages and pages of mapped files. Shards that are
being read are mapped: those pages count as resident but are given back whenever memory is short, so a peak is reported
both ways, and the budget is held against the first, with the libraries' own pages added.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn

from skinclip.model.int8 import Int8Linear
from skinclip.model.memory import PARTS, part_of

STATUS = Path("/proc/self/status")
EVERY = 0.01  # seconds between two looks


def resident() -> dict[str, int]:
    """{"own", "files"} bytes resident in this process."""
    fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return {"own": _kib(fields["RssAnon"]), "files": _kib(fields["RssFile"])}


def _kib(text: str) -> int:
    return 1024 * int(text.split()[0])


@dataclass
class PeakReading:
    """Bytes at the highest point of a stretch: `own` memory, and `resident` with mapped files; on a GPU, allocated."""

    own: int = 0
    resident: int = 0
    gpu: int | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of all threads: what it would take alone, whatever else the machine was busy with


class Meter:
    """`with Meter(device) as peak:` measures a stretch of work; `peak` is filled when it ends."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.peak = PeakReading()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakReading:
        if self.device != "cpu":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self._thread.start()
        self._start, self._cpu = time.perf_counter(), time.process_time()
        return self.peak

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()
            self.peak.gpu = torch.cuda.max_memory_reserved()
        self.peak.seconds = time.perf_counter() - self._start
        self.peak.cpu_seconds = time.process_time() - self._cpu
        self._stop.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._stop.wait(EVERY):
            self._look()

    def _look(self) -> None:
        now = resident()
        self.peak.own = max(self.peak.own, now["own"])
        self.peak.resident = max(self.peak.resident, now["own"] + now["files"])


def machine(device: str) -> dict[str, object]:
    """The machine that the figures were measured on, and how busy it was."""
    description: dict[str, object] = {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "load_before": round(os.getloadavg()[0], 2),
        "torch": torch.__version__.split("+")[0],
    }
    if device != "cpu":
        description["gpu"] = torch.cuda.get_device_name()
    return description


def held_bytes(language_model: nn.Module) -> dict[str, int]:
    """Bytes of a language model's weights by part of the budget, with the scales and code tables beside packed ones."""
    held = dict.fromkeys(PARTS, 0)
    for name, parameter in language_model.named_parameters():
        part = part_of(f"reasoner.language_model.{name}", parameter.ndim)
        held[part] += parameter.untyped_storage().nbytes() + _scales(getattr(parameter, "quant_state", None))
    for layer in language_model.modules():
        if isinstance(layer, Int8Linear):
            held["language linears"] += layer.scale.nbytes
    return {part: size for part, size in held.items() if size}


def _scales(state: Any) -> int:
    """The arrays that bitsandbytes keeps beside a packed weight."""
    if state is None:
        return 0
    nested = state.state2.absmax.nbytes + state.state2.code.nbytes + state.offset.nbytes if state.nested else 0
    return int(state.absmax.nbytes + state.code.nbytes + nested)
