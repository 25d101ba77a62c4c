"""Other systems: how large they are beside the presets, and where their predictions would enter.

The paper compares itself with a 13B system. Nobody's predictions of that system are public, so its row says "not
measured here"; whoever has them scores them with `python -m skinclip evaluate --predictions FILE.csv`.
"""

from __future__ import annotations

from typing import Any

import torch

from eval_study.benchmarks.blocks import table
from eval_study.benchmarks.common import Bench
from skinclip.core.config import preset
from skinclip.model.memory import COMPARED, inventory
from skinclip.reporting.document import Section

NAME = "outside"
BIG = ("qwen-3b", "qwen-7b")


def qwen_parameters(name: str) -> dict[str, int]:
    """Parameters of a big preset by part as published: without LoRA and the heads that are trained here."""
    counted = inventory(preset(name))
    return {
        "perception": counted.parameters("clip"),
        "vision": counted.parameters("vision"),
        "language": counted.parameters("embeddings", "language linears", "language norms and biases"),
        "head": counted.parameters("lm_head"),
    }


def mini_parameters(model: torch.nn.Module) -> dict[str, int]:
    """Parameters of the embedded preset by part; those of the dequantized language model count as they are stored."""
    total = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    return {"perception": total["perception"], "evidence": total["evidence"], "language": total["reasoner"]}


def run(bench: Bench) -> dict[str, Any]:
    """Counts by preset and the share of 13B each is."""
    counted = {"mini": mini_parameters(bench.assessor.model)} | {name: qwen_parameters(name) for name in BIG}
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
            f"{row['total'] / 1e6:,.1f} M",
            f"{row['share_of_13b']:.2%}",
            "this report" if name == "mini" else "not measured here: weights not at hand",
        ]
        for name, row in result["presets"].items()
    ]
    rows.append(["the 13B system that the paper compares itself with", "13,000 M", "100 %", "not measured here"])
    return Section.of(
        "Size, and systems of others",
        [
            table(["system", "parameters", "against 13B", "figures"], rows),
            "Whoever has a system's predictions scores them on the same photos with the same metrics and paired tests: "
            "`python -m skinclip evaluate --data DIR --layout LAYOUT --split test --predictions FILE.csv`.",
        ],
    )
