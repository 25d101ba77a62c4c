"""Other systems: how large they are beside the presets, and where their predictions would enter.

The paper compares itself with a 13B system. Nobody's predictions of that system are public, so its row says "not
measured here"; whoever has them scores them with `python -m skinclip evaluate --predictions FILE.csv`.
"""

from __future__ import annotations

from typing import Any

from eval_study.benchmarks.blocks import table
from eval_study.benchmarks.common import Bench
from skinclip.core.config import ModelConfig, preset
from skinclip.core.formatting import MISSING
from skinclip.model.memory import COMPARED, inventory
from skinclip.reporting.document import Section

NAME = "outside"
PRESETS = ("mini", "qwen-3b", "qwen-7b")
COUNTED = {
    "perception": ("clip",),
    "vision tower": ("vision",),
    "language": ("embeddings", "language linears", "language norms and biases", "lm_head"),
    "LoRA": ("lora",),
    "evidence and heads": ("heads",),
}


def parameters(config: ModelConfig) -> dict[str, int]:
    """Parameters of a model by part, counted on the real classes: everything that runs, LoRA and heads included."""
    counted = inventory(config)
    return {title: counted.parameters(*parts) for title, parts in COUNTED.items()}


def run(bench: Bench) -> dict[str, Any]:
    """Counts of the measured checkpoint and of the other presets, and the share of 13B each is."""
    measured = bench.assessor.config
    configs = {name: measured if name == measured.preset else preset(name) for name in PRESETS}
    counted = {name: parameters(config) for name, config in configs.items()}
    rows = {
        name: {"parts": parts, "total": sum(parts.values()), "share_of_13b": sum(parts.values()) / COMPARED}
        for name, parts in counted.items()
    }
    return {"meta": bench.meta(), "presets": rows}


def section(result: dict[str, Any]) -> Section:
    """The result as a section of the report."""
    rows = [
        [
            name,
            *(f"{row['parts'][part] / 1e6:,.1f} M" for part in COUNTED),
            f"{row['total'] / 1e6:,.1f} M",
            f"{row['share_of_13b']:.2%}",
            "this report" if name == "mini" else "not measured here: weights not at hand",
        ]
        for name, row in result["presets"].items()
    ]
    unknown = ["the 13B system that the paper compares itself with", *[MISSING] * len(COUNTED)]
    rows.append([*unknown, "13,000 M", "100 %", "not measured here"])
    return Section.of(
        "Size, and systems of others",
        [
            table(["system", *COUNTED, "all parameters", "against 13B", "figures"], rows),
            "Whoever has a system's predictions scores them on the same photos with the same metrics and paired tests: "
            "`python -m skinclip evaluate --data DIR --layout LAYOUT --split test --predictions FILE.csv`.",
        ],
    )
