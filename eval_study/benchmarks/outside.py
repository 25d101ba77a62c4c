"""Other systems: how large they are beside the presets, and where their predictions would enter.

The paper compares itself with a 13B system. Nobody's predictions of that system are public, so its row says "not
measured here"; whoever has them scores them with `python -m skinclip evaluate --predictions FILE.csv`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from eval_study.benchmarks.common import Bench

NAME = "outside"
COMPARED = 13e9  # parameters of the system that the paper compares itself with (a 13B model, by its name)

# The published shapes of Qwen2.5-VL (its model cards' config.json), of which only widths and depths matter here.
QWEN = {
    "qwen-3b": {"hidden": 2048, "inner": 11008, "layers": 36, "heads": 16, "kv": 2, "tied": True},
    "qwen-7b": {"hidden": 3584, "inner": 18944, "layers": 28, "heads": 28, "kv": 4, "tied": False},
}
VOCABULARY = {"qwen-3b": 151_936, "qwen-7b": 152_064}
VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
CLIP_VIT_L_14 = 427_616_513  # ViT-L/14 with its text tower, as open_clip's model profile counts it


def qwen_parameters(name: str) -> dict[str, int]:
    """Parameters of a Qwen2.5-VL of that size by part, counted on a model without storage."""
    shape = QWEN[name]
    heads = int(shape["heads"])
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": shape["hidden"],
            "intermediate_size": shape["inner"],
            "num_hidden_layers": shape["layers"],
            "num_attention_heads": heads,
            "num_key_value_heads": shape["kv"],
            "vocab_size": VOCABULARY[name],
            "tie_word_embeddings": bool(shape["tied"]),
        },
        vision_config={**VISION, "out_hidden_size": shape["hidden"]},
        tie_word_embeddings=bool(shape["tied"]),
    )
    with init_empty_weights():
        model = Qwen2_5_VLForConditionalGeneration(config)
    model.tie_weights()
    parts = {"vision": model.model.visual, "language": model.model.language_model}
    found = {part: sum(p.numel() for p in module.parameters()) for part, module in parts.items()}
    found["head"] = 0 if shape["tied"] else model.lm_head.weight.numel()
    return found


def mini_parameters(model: torch.nn.Module) -> dict[str, int]:
    """Parameters of the embedded preset by part; those of the dequantized language model count as they are stored."""
    total = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    return {"perception": total["perception"], "evidence": total["evidence"], "language": total["reasoner"]}


def run(bench: Bench) -> dict[str, Any]:
    """Counts by preset and the share of 13B each is."""
    counted = {"mini": mini_parameters(bench.assessor.model)}
    for name in QWEN:
        counted[name] = {"perception": CLIP_VIT_L_14, **qwen_parameters(name)}
    rows = {
        name: {"parts": parts, "total": sum(parts.values()), "share_of_13b": sum(parts.values()) / COMPARED}
        for name, parts in counted.items()
    }
    return {"meta": bench.meta(), "presets": rows}


def section(result: dict[str, Any], folder: Path) -> str:
    text = [
        "## Size, and systems of others",
        "",
        "| system | parameters | against 13B | figures |",
        "|---|---|---|---|",
    ]
    for name, row in result["presets"].items():
        figures = "this report" if name == "mini" else "not measured here: weights not at hand"
        text.append(f"| {name} | {row['total'] / 1e6:,.1f} M | {row['share_of_13b']:.2%} | {figures} |")
    text += [
        "| the 13B system that the paper compares itself with | 13,000 M | 100 % | not measured here |",
        "",
        "Whoever has a system's predictions scores them on the same photos with the same metrics and paired tests: "
        "`python -m skinclip evaluate --data DIR --layout LAYOUT --split test --predictions FILE.csv`.",
    ]
    return "\n".join(text)
