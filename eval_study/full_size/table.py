"""FULL_SIZE.md: what was measured, where, and what was not, from the files that the measurements left."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eval_study.full_size.base import SMALLER
from skinclip.core.config import preset
from skinclip.model.memory import GB, PARTS, MemoryPlan, count_statement, inventory, plan_for, predict, workload
from skinclip.reporting.markdown import markdown_table

BIG = ("qwen-3b", "qwen-7b")
ANSWERING = ("load", "assess", "explain")
GPU_LIMITS = {("qwen-3b", "train"): 12, ("qwen-7b", "train"): 24} | {
    (name, purpose): 12 for name in BIG for purpose in ANSWERING
}
CPU_LIMITS = {("int8", "train"): 12, ("nf4", "explain"): 10} | {
    (way, purpose): limit for way, limit in (("fp32", 20), ("int8", 10), ("nf4", 10)) for purpose in ("load", "assess")
}
WHAT = {
    "load": "load",
    "assess": "one Assessment",
    "explain": "a Grad-CAM map of it",
    "train": "a training step, one photo",
}


def write_report(folder: Path) -> None:
    """FULL_SIZE.md from all results in `folder`."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    parts = [opening(results), parameters(), gpu_memory(results), cpu_memory(results), small_sizes(results)]
    parts += [speed(results), logits(results), layers(results), missing(results)]
    (folder / "FULL_SIZE.md").write_text("\n\n".join(part for part in parts if part) + "\n")


NO_GPU = (
    "No GPU was at hand for this command: every figure for a GPU here is computed. What was measured on one, of the "
    "language model alone, is in `docs/gpu_training.md`."
)


def opening(results: dict[str, Any]) -> str:
    """Title and conditions of the measurements."""
    gpus = sorted({gpu for r in results.values() for gpu in [_machine(r).get("gpu")] if gpu})
    where = f"Measured on: {', '.join(gpus)}." if gpus else NO_GPU
    return (
        "# The big presets at full size\n\n"
        "**Research use only - not a medical device.** Made by `python -m eval_study.full_size`, with random weights "
        "of the published shapes: speed and memory are those of the real models, answers are not. GB are 10^9 bytes. "
        f"{where} CPU figures are from two cores; each table says how busy the machine was."
    )


def parameters() -> str:
    """Table of parameters by part."""
    counted = {name: inventory(preset(name)) for name in BIG}
    rows = [[part, *(f"{counted[name].parameters(part) / 1e6:,.2f} M" for name in BIG)] for part in PARTS]
    rows.append(["**all**", *(f"{counted[name].parameters() / 1e6:,.2f} M" for name in BIG)])
    rows.append(["trained (lora, heads)", *(f"{counted[name].trained_share:.2%}" for name in BIG)])
    rows.append(["LoRA's rank", *(str(preset(name).reasoner.lora.r) for name in BIG)])
    statements = "\n".join(f"- {count_statement(preset(name))}." for name in ("mini", *BIG))
    why = (
        "With rank 16 the 3B model would train 1.16 %, more than the 1 % that is promised: its projectors alone are "
        "0.45 %. 12 is the largest rank that fits; 8 leaves room, and where all linear layers carry LoRA the rank "
        "matters little (QLoRA, arXiv 2305.14314)."
    )
    parts = "## Parameters", "Counted on the real classes.", markdown_table(["part", *BIG], rows), statements, why
    return "\n\n".join(parts)


# ---- memory ----------------------------------------------------------------------------------------------------------


def gpu_memory(results: dict[str, Any]) -> str:
    """Table of computed and measured peaks on a GPU."""
    rows = []
    for name in BIG:
        for purpose in WHAT:
            peak = predict(preset(name), plan_for(preset(name), "cuda"), purpose)
            figures = results.get(f"{name}-cuda", {}).get("measured", {})
            measured = _gpu_peak(figures, purpose)
            cell = "not measured" if measured is None else f"{measured / GB:.1f} GB"
            rows.append([name, WHAT[purpose], f"{peak.gb:.1f} GB", cell, f"{GPU_LIMITS[name, purpose]} GB"])
    text = "NF4 language layers with fp32 scales, all else of Qwen in bf16, CLIP, heads and LoRA in fp32."
    return f"## Memory on a GPU\n\n{text}\n\n" + markdown_table(
        ["preset", "peak of", "computed", "measured", "target"], rows
    )


def cpu_memory(results: dict[str, Any]) -> str:
    """Table of computed and measured peaks on a CPU."""
    rows = []
    for name in BIG:
        figures = results.get(f"{name}-cpu", {}).get("measured", {})
        for way in ("fp32", "int8", "nf4"):
            for purpose in WHAT:
                peak = predict(preset(name), MemoryPlan("cpu", way, "fp32"), purpose)
                measured = cpu_peak(figures, way, purpose)
                limit = CPU_LIMITS.get((way, purpose)) if name == "qwen-3b" else None
                if measured is not None or limit:
                    target = f"{limit} GB" if limit else "-"
                    rows.append(
                        [name, way, WHAT[purpose], f"{peak.gb:.2f} GB", *_against(peak.total, measured), target]
                    )
    work = workload(preset("qwen-3b"))
    text = (
        f"The whole model: CLIP, evidence, Qwen with its own vision tower at {work.own_side} pixels, a prompt of up to "
        f"{work.prompt} tokens. Measured is what the process could not give back; pages of the weight files, which are "
        "mapped while they are read, come and go beside it."
    )
    header = ["preset", "`cpu_weights`", "peak of", "computed", "measured", "difference", "target"]
    return f"## Memory on a CPU\n\n{text}\n\n{markdown_table(header, rows)}"


def small_sizes(results: dict[str, Any]) -> str:
    """Table of computed and measured peaks of the smaller shapes."""
    rows = []
    for name in SMALLER:
        result = results.get(f"{name}-cpu")
        for way, purposes in (result or {}).get("budget", {}).items():
            for purpose, parts in purposes.items():
                measured = cpu_peak(result["measured"], way, purpose)
                if measured is not None:
                    total = sum(parts.values())
                    rows.append([name, way, WHAT[purpose], f"{total / GB:.2f} GB", *_against(total, measured)])
    if not rows:
        return ""
    text = "The same architecture in smaller sizes, every way to hold it; the target is a difference within 10 %."
    header = ["size", "`cpu_weights`", "peak of", "computed", "measured", "difference"]
    return f"## The budget held against measurements\n\n{text}\n\n{markdown_table(header, rows)}"


def cpu_peak(figures: dict[str, Any], way: str, purpose: str) -> int | None:
    """Bytes that the process held at the peak of `purpose`, with the pages of the libraries; None if not measured."""
    result = figures.get(f"{'train' if purpose == 'train' else 'whole'}-{way}", {})
    if "not_measured" in result or not result:
        return None
    stretches = {"train": ["first", "step"]}.get(purpose, [purpose])
    if any(s not in result for s in stretches):
        return None
    return max(result[s]["own"] for s in stretches) + result["start"]["files"]


def _gpu_peak(figures: dict[str, Any], purpose: str) -> int | None:
    result = figures.get("train-nf4" if purpose == "train" else "whole-nf4", {})
    if "not_measured" in result or not result:
        return None
    return max(v["gpu"] for v in result.values() if isinstance(v, dict) and v.get("gpu") is not None)


def _against(predicted: int, measured: int | None) -> list[str]:
    if measured is None:
        return ["not measured", "-"]
    return [f"{measured / GB:.2f} GB", f"{predicted / measured - 1:+.1%}"]


# ---- speed and exactness ---------------------------------------------------------------------------------------------


def speed(results: dict[str, Any]) -> str:
    """Table of the language model's speed; empty where none was measured."""
    rows = []
    for name, result in _big(results):
        for key, figures in result["measured"].items():
            if key.startswith("language-") and "not_measured" not in figures:
                rows.append([name, key.removeprefix("language-"), *_spoken(figures)])
    if not rows:
        return ""
    header = ["preset, device", "held as", "weights", "load", "prompt", "decoding", "load average"]
    steps = _steps(results)
    text = (
        "The language model with its vision tower alone. `nf4`, `int8` and `fp32` are what `cpu_weights` makes of NF4; "
        "`dense` never was NF4. Tokens a second by the clock, and in brackets by processor time (what two cores with "
        "nothing else to do would reach); the better of two runs. `dense` in bf16 is used from the mapped files, which "
        "are read at the first use and not in its load time."
    )
    return f"## Speed\n\n{text}\n\n{markdown_table(header, rows)}\n\n{steps}"


def _spoken(figures: dict[str, Any]) -> list[str]:
    threads = figures["machine"]["threads"]

    def rate(peak: dict[str, Any]) -> str:
        alone = peak["tokens"] * threads / max(peak["cpu_seconds"], 1e-9)
        return f"{peak['tokens_per_s']:.2f} ({alone:.2f}) tokens/s"

    return [
        f"{sum(figures['bytes'].values()) / GB:.2f} GB",
        f"{figures['load']['seconds']:.0f} s",
        rate(figures["prefill"]),
        rate(figures["decode"]),
        f"{figures['machine']['load_before']} to {figures['machine']['load_after']}",
    ]


def _steps(results: dict[str, Any]) -> str:
    rows = []
    for name, result in _big(results):
        for key, figures in result["measured"].items():
            kind, way = key.split("-", 1)
            stretch = {"whole": "assess", "train": "step"}.get(kind)
            if stretch and "not_measured" not in figures:
                seconds = figures[stretch]["seconds"], figures[stretch]["cpu_seconds"] / figures["machine"]["threads"]
                busy = f"{figures['machine']['load_before']} to {figures['machine']['load_after']}"
                rows.append([name, way, WHAT["train" if kind == "train" else kind.replace("whole", "assess")]])
                rows[-1] += [f"{seconds[0]:.0f} ({seconds[1]:.0f}) s", busy]
    return markdown_table(["preset, device", "`cpu_weights`", "what", "time", "load average"], rows) if rows else ""


def logits(results: dict[str, Any]) -> str:
    """Table of agreement with the dense model; empty where none was measured."""
    rows = []
    for name, result in _big(results):
        for key, comparison in result["measured"].items():
            if key.startswith("logits-"):
                figures = [f"{comparison[k]:.4f}" for k in ("cosine_mean", "cosine_least")]
                same = f"{comparison['same_token']:.0%}"
                rows.append([name, key.removeprefix("logits-"), comparison["with"], *figures, same])
    if not rows:
        return ""
    text = (
        "Logits of 24 positions after all layers. Random weights are the hard case: they are as hard to round as "
        "normal numbers are, and no training has made the model indifferent to it, so errors of all layers add up."
    )
    header = ["preset, device", "held as", "against", "mean cosine", "least", "same most probable token"]
    return f"## Logits against the dense model\n\n{text}\n\n{markdown_table(header, rows)}"


def layers(results: dict[str, Any]) -> str:
    """Tables of one layer's speed by each way to hold it; empty where none was measured."""
    parts = []
    for name, result in _big(results):
        for key, title in (("layers-native", "all instructions"), ("layers-avx2", "AVX2 only")):
            figures = result["measured"].get(key)
            if figures and "ways" in figures:
                busy = f"load average {figures['load']}"
                parts.append(f"{name}, {title}, {busy}:\n\n{_layer_table(figures['ways'])}")
    if not parts:
        return ""
    text = (
        "One decoder layer of the true shape, processor milliseconds of one core, mean cosine with the dense layer: of "
        "one linear layer's output, of what the decoder layer adds to the residual stream, the same where six channels "
        "of its input are twenty times the others, and of the stream itself. bitsandbytes' NF4 kernel for evaluation "
        "needs AVX-512 with bf16; where a processor lacks it, the weights are unpacked at every step as in training. "
        "Adopted: int8 of NF4 on a CPU. 8-bit activations are faster but lose their precision to outliers; torchao "
        "(installed for this measurement alone) without a compiler decodes more slowly than fp32, and its int4 "
        "needs a library that a CPU lacks."
    )
    return "## Ways to hold a layer on a CPU\n\n" + "\n\n".join([text, *parts])


def _layer_table(by_way: dict[str, Any]) -> str:
    keys = ("cosine_linear", "cosine", "cosine_outliers", "cosine_output")
    rows = []
    for way, figures in by_way.items():
        if "not_measured" in figures:
            rows.append([way, f"not measured: {figures['not_measured']}", *[""] * 5])
        else:
            times = [f"{figures[k]:.1f} ms" for k in ("decode_ms", "prefill_ms")]
            rows.append([way, *times, *(f"{figures[k]:.4f}" for k in keys)])
    header = ["held as", "1 token", "350 tokens", "one linear", "the layer adds", "with outliers", "stream"]
    return markdown_table(header, rows)


def missing(results: dict[str, Any]) -> str:
    """List of what was not measured."""
    lines = []
    if not any(name.endswith("-cuda") for name in results):
        lines.append("- anything on a GPU: tokens a second there, and peaks (computed above)")
    for name in BIG:
        if f"{name}-cpu" not in results:
            lines.append(f"- {name} on a CPU")
    for name, result in results.items():
        for key, figures in result["measured"].items():
            if "not_measured" in figures:
                lines.append(f"- {name}, {key}: {figures['not_measured']}")
    lines.append(
        "- a training step of the dense bf16 model; its language layers alone are 5.5 GB (3B) and 13.1 GB (7B)"
    )
    lines.append("- the data and activations of several photos at a time: every figure is for one")
    lines.append("- any answer's quality: the published weights were not at hand")
    return "## Not measured\n\n" + "\n".join(lines)


def _big(results: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for result in results.values():
        if result["preset"] in BIG:
            yield f"{result['preset']}, {result['device']}", result


def _machine(result: dict[str, Any]) -> dict[str, Any]:
    machines: Sequence[dict[str, Any]] = [f["machine"] for f in result["measured"].values() if "machine" in f]
    return machines[0] if machines else {}
