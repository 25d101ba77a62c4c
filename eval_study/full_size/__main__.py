"""The big presets at true size with random weights: parameters, bytes, memory, speed, cosines.

    python -m eval_study.full_size --preset qwen-3b --device cpu --out eval_study/results/full_size

Every measurement runs in a process of its own and is kept in OUT/<preset>-<device>.json as soon as it is made, so that
an interrupted run goes on where it stopped; FULL_SIZE.md is written anew from all files in OUT. A measurement waits
until there is memory for it. Random weights of the preset's size (7.5 GB for qwen-3b, 17 GB for qwen-7b) lie in a work
folder meanwhile and are deleted in the end. `--preset 0.3b` and `0.8b` are smaller models of the same architecture, on
which the budget is tested.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers.utils import logging as transformers_logging

from eval_study.full_size.base import INDEX, SMALLER, model_config, shape_config, write_base
from eval_study.full_size.table import write_report
from skinclip.core.config import ModelConfig
from skinclip.model.memory import (
    GB,
    PURPOSES,
    MemoryPlan,
    count_statement,
    free_bytes,
    inventory,
    predict,
    weight_bytes,
)

WAYS = {"cpu": ("nf4", "int8", "fp32"), "cuda": ("nf4",)}
DENSE = {"cpu": ("dense-bf16", "dense-fp32"), "cuda": ("dense-bf16",)}
TRAINED = {"cpu": "int8", "cuda": "nf4"}  # how the weights are held in the training step
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


@dataclass
class PresetRun:
    """One preset on one device: where its weights lie, and what was found so far."""

    preset: str
    device: str
    work: Path
    out: Path
    threads: int
    patience: float

    @property
    def base(self) -> Path:
        """Folder of the preset's random weights."""
        return self.work / self.preset

    @property
    def config(self) -> ModelConfig:
        """Configuration of the model on these weights."""
        return model_config(self.preset, self.base)

    @property
    def file(self) -> Path:
        """File of the results."""
        return self.out / f"{self.preset}-{self.device}.json"

    def results(self) -> dict[str, Any]:
        """Results so far, none measured where there is no file yet."""
        return json.loads(self.file.read_text()) if self.file.exists() else {"measured": {}}

    def keep(self, key: str, value: Any) -> None:
        """Writes one more result to the file."""
        results = self.results()
        results["measured"][key] = value
        self.file.write_text(json.dumps(results, indent=1) + "\n")

    def command(self, name: str, way: str) -> list[str]:
        """Command line of one measurement in a process of its own."""
        module = "eval_study.full_size.measures"
        settings = ["--preset", self.preset, "--base", str(self.base), "--device", self.device]
        logits = ["--logits", str(self.logits(way))] if name == "language" else []
        return [sys.executable, "-m", module, name, way, *settings, "--threads", str(self.threads), *logits]

    def logits(self, way: str) -> Path:
        """File of the logits that one way of holding the weights gives."""
        return self.work / f"{self.preset}-{self.device}-{way}.safetensors"


def main() -> None:
    """Measures a preset, then writes the table of all presets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", required=True, choices=["qwen-3b", "qwen-7b", *SMALLER])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path, default=Path("eval_study/results/full_size"))
    parser.add_argument("--work", type=Path, help="folder for the random weights; kept if given")
    parser.add_argument("--only", nargs="+", help="names like whole-int8; they are measured again")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--patience", type=float, default=600.0, help="seconds to wait for memory")
    args = parser.parse_args()
    transformers_logging.disable_progress_bar()
    args.out.mkdir(parents=True, exist_ok=True)
    work = args.work or Path(tempfile.mkdtemp(prefix="full-size-"))
    try:
        run = PresetRun(args.preset, args.device, work, args.out, args.threads, args.patience)
        measure_all(run, args.only)
    finally:
        if args.work is None:
            shutil.rmtree(work, ignore_errors=True)
    write_report(args.out)


def measure_all(run: PresetRun, only: list[str] | None) -> None:
    """Measures what is planned and not yet measured, or `only` what is named."""
    if not (run.base / INDEX).exists():
        print(f"writing random weights to {run.base}", flush=True)
        write_base(shape_config(run.preset), run.base)
    results = run.results()
    results |= {"preset": run.preset, "device": run.device, **counts(run)}
    run.file.write_text(json.dumps(results, indent=1) + "\n")
    for key in plan(run):
        known = run.results()["measured"].get(key, {})
        if key in only if only else "not_measured" in known or not known:
            value = measure(run, key)
            print(f"{key}: {value.get('not_measured', 'measured')}", flush=True)
            run.keep(key, value)
    cosines(run)


def counts(run: PresetRun) -> dict[str, Any]:
    """Parameters by part, and what the budget says of each way and purpose."""
    counted = inventory(run.config)
    parts = {part: counted.parameters(part) for part in counted.shapes}
    rest = "fp32" if run.device == "cpu" else "bf16"
    plans = {way: MemoryPlan(run.device, way, rest) for way in WAYS[run.device]}
    return {
        "statement": count_statement(run.config),
        "parameters": parts,
        "trained_share": counted.trained_share,
        "bytes": {way: weight_bytes(run.config, plan) for way, plan in plans.items()},
        "budget": {
            way: {purpose: dict(predict(run.config, plan, purpose).parts) for purpose in PURPOSES}
            for way, plan in plans.items()
        },
    }


def plan(run: PresetRun) -> list[str]:
    """The measurements of a run, in order."""
    ways, dense = WAYS[run.device], () if run.preset in SMALLER else DENSE[run.device]
    trained = ways if run.preset in SMALLER else (TRAINED[run.device],)
    layers = [] if run.preset in SMALLER or run.device != "cpu" else ["layers-native", "layers-avx2"]
    return [
        *layers,
        *(f"language-{way}" for way in (*ways, *dense) if run.preset not in SMALLER),
        *(f"whole-{way}" for way in ways),
        *(f"train-{way}" for way in trained),
    ]


def measure(run: PresetRun, key: str) -> dict[str, Any]:
    """One measurement, in a process of its own; {"not_measured": reason} where it cannot be made."""
    name, way = key.split("-", 1)
    if name == "layers":
        return in_process(
            [sys.executable, "-m", "eval_study.full_size.layers", run.preset], AVX2 if way == "avx2" else {}
        )
    needed = need(run, name, way)
    waited = time.monotonic()
    while free_bytes(run.device) < needed:
        if time.monotonic() - waited > run.patience:
            return {"not_measured": f"needs {needed / GB:.1f} GB, {free_bytes(run.device) / GB:.1f} GB free"}
        time.sleep(10)
    return in_process(run.command(name, way), {"CUDA_VISIBLE_DEVICES": ""} if run.device == "cpu" else {})


def need(run: PresetRun, name: str, way: str) -> int:
    """Bytes that a measurement takes by the budget, with a tenth to spare."""
    rest = "bf16" if run.device == "cuda" or way == "dense-bf16" else "fp32"
    memory = MemoryPlan(run.device, way.removeprefix("dense-"), rest)
    purpose = "train" if name == "train" else "load"
    parts = dict(predict(run.config, memory, purpose).parts)
    if name == "language":
        parts |= {"clip": 0, "heads": 0, "lora": 0}
    return int(1.1 * sum(parts.values()))


def in_process(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Result that a command prints as JSON, or the reason why there is none."""
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no words"])[-1]
        return {"not_measured": f"ended with status {done.returncode}: {last[:200]}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def cosines(run: PresetRun) -> None:
    """Logits of each way held against those of the dense model, where both were measured in this work folder."""
    reference = next((way for way in reversed(DENSE[run.device]) if run.logits(way).exists()), None)
    if reference is None:
        return
    dense = load_file(run.logits(reference))["logits"]
    for way in (*WAYS[run.device], *DENSE[run.device]):
        if way != reference and run.logits(way).exists():
            run.keep(f"logits-{way}", compared(load_file(run.logits(way))["logits"], dense) | {"with": reference})
    nf4, int8 = run.logits("fp32"), run.logits("int8")
    if nf4.exists() and int8.exists():
        both = compared(load_file(int8)["logits"], load_file(nf4)["logits"])
        run.keep("logits-int8-of-nf4", both | {"with": "fp32"})


def compared(a: torch.Tensor, b: torch.Tensor) -> dict[str, float]:
    """Cosine of logits [L, V] position by position, and how often the most probable token is the same."""
    cosine = F.cosine_similarity(a, b, dim=-1)
    agree = (a.argmax(-1) == b.argmax(-1)).float().mean().item()
    return {"cosine_mean": cosine.mean().item(), "cosine_least": cosine.min().item(), "same_token": agree}


if __name__ == "__main__":
    main()
