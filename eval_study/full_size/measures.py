"""Runs one measurement in this process: `python -m eval_study.full_size.measures NAME WAY --preset P ...`.

Prints one JSON object. NAME is `language` (bytes by part, load, prefill, decode, logits), `whole` (load, then assess
with CLIP, evidence and rationale) or `train` (a QLoRA step with one photo). WAY is how the weights of the language
layers are held: "nf4", "int8" or "fp32", all quantized to NF4 first (`cpu_weights` of `load_language_model`), or, for
`language` alone, "dense-bf16" or "dense-fp32" without any quantization.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import DynamicCache, Qwen2_5_VLForConditionalGeneration
from transformers.utils import logging as transformers_logging

from eval_study.full_size.base import model_config
from eval_study.full_size.meter import Meter, PeakReading, held_bytes, machine, resident
from skinclip.core.assessment import Context, Differential
from skinclip.core.config import ModelConfig
from skinclip.explain.saliency import DiagnosisPath
from skinclip.language.prompt import RationaleTarget
from skinclip.language.rationale import write_rationale
from skinclip.model.allocator import release_large_blocks
from skinclip.model.perception import Perception
from skinclip.model.qwen import load_language_model
from skinclip.model.skinclip_vl import SkinClipVL, assemble
from skinclip.model.tokenizer import mini_tokenizer

LOGITS_KEPT = 16  # last positions of the prompt whose logits are compared
DENSE = {"dense-bf16": torch.bfloat16, "dense-fp32": torch.float32}
FINDINGS = ("pigment_network:atypical", "streaks:irregular", "blue_whitish_veil:present")


def main() -> None:
    """Runs one measurement and prints it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(MEASURES))
    parser.add_argument("way")
    parser.add_argument("--preset", required=True)
    parser.add_argument("--base", type=Path, required=True, help="directory of random weights, made by `write_base`")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=350, help="tokens of the prompt that is timed")
    parser.add_argument("--tokens", type=int, default=8, help="tokens decoded one after another")
    parser.add_argument("--logits", type=Path, help="file that `language` writes its logits to")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    result = {"machine": machine(args.device), "start": resident(), **MEASURES[args.name](args)}
    result["machine"]["load_after"] = round(os.getloadavg()[0], 2)
    print(json.dumps(result))


# ---- the language model alone ----------------------------------------------------------------------------------------


def language(args: argparse.Namespace) -> dict[str, Any]:
    """Measures loading, bytes by part, prefill and decode, the latter two as the faster of two runs."""
    release_large_blocks()
    with Meter(args.device) as load:
        model = load_base(args.base, args.way, args.device)
    vocabulary = model.config.text_config.vocab_size
    ids = torch.randint(vocabulary, (1, args.prompt + args.tokens), device=args.device)
    with Meter(args.device) as use, torch.inference_mode():
        last_logits(model, ids[:, :8])  # warm-up
        runs = [prefill_and_decode(model, ids, args.prompt, args.device) for _ in range(2)]
    if args.logits:
        save_file({"logits": runs[0][2].float().cpu().contiguous()}, args.logits)
    prefill, decode = (min((run[i] for run in runs), key=lambda peak: peak.seconds) for i in (0, 1))
    return {
        "bytes": held_bytes(model),
        "load": asdict(load),
        "use": asdict(use),
        "prefill": asdict(prefill) | {"tokens": args.prompt, "tokens_per_s": args.prompt / prefill.seconds},
        "decode": asdict(decode) | {"tokens": args.tokens, "tokens_per_s": args.tokens / decode.seconds},
    }


def load_base(base: Path, way: str, device: str) -> Any:
    """The language model, dense or quantized in the named way."""
    if way in DENSE:
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(base, dtype=DENSE[way], device_map={"": device})
        return model.eval()
    return load_language_model(base, quantize=True, device=device, **({"cpu_weights": way} if device == "cpu" else {}))


def last_logits(model: Any, ids: Tensor, cache: DynamicCache | None = None) -> Tensor:
    """Runs the model on `ids` [1, L]; logits [min(L, LOGITS_KEPT), V] of the last positions."""
    out = model(input_ids=ids, past_key_values=cache, use_cache=cache is not None, logits_to_keep=LOGITS_KEPT)
    return out.logits[0]


def prefill_and_decode(model: Any, ids: Tensor, prompt: int, device: str) -> tuple[PeakReading, PeakReading, Tensor]:
    """Runs the prompt at once, then the remaining ids one by one; time and memory of both, and the logits kept."""
    cache = DynamicCache(config=model.config.text_config)
    with Meter(device) as prefill:
        logits = [last_logits(model, ids[:, :prompt], cache)]
    with Meter(device) as decode:
        logits += [last_logits(model, ids[:, i : i + 1], cache) for i in range(prompt, ids.shape[1])]
    return prefill, decode, torch.cat(logits)


# ---- the whole model -------------------------------------------------------------------------------------------------


def build(args: argparse.Namespace) -> SkinClipVL:
    """The preset's model on the random base, with fresh LoRA and heads."""
    config = model_config(args.preset, args.base)
    config = replace(config, reasoner=replace(config.reasoner, cpu_weights=args.way))
    return assemble(config, Perception(config.perception).freeze(), args.base, mini_tokenizer())


def photo(config: ModelConfig) -> Tensor:
    """[1, 3, side, side] noise: speed and memory do not depend on what is in it."""
    own = config.reasoner.own_vision
    side = config.reasoner.own_side if own else config.perception.image_size
    return torch.rand(1, 3, side, side)


def whole(args: argparse.Namespace) -> dict[str, Any]:
    """Measures loading, one assessment (perception, evidence, diagnosis, rationale) and the gradients for Grad-CAM."""
    with Meter(args.device) as load:
        model = build(args).eval()
    with Meter(args.device) as assess, torch.no_grad():  # not inference mode: its prompts are used with gradients below
        context = Context(55, "male", "back")
        tokens = model.perceive(photo(model.config))
        evidence = model.find_evidence(tokens)
        prompts = model.reasoner.writer.write([context])
        reasoning = model.reason(prompts, tokens, evidence, keep=True)
        text = model.reasoner.explain(context, tokens, evidence, FINDINGS, Differential("mel", "nv"), reasoning.prefix)
    with Meter(args.device) as explain:
        path = DiagnosisPath(model, prompts)
        pixels = photo(model.config).requires_grad_()
        path(pixels)[0, 0].backward()
    length = prompts.input_ids.shape[1]
    peaks = {"load": asdict(load), "assess": asdict(assess), "explain": asdict(explain)}
    return {**peaks, "prompt_tokens": length, "words": len(text.split())}


def train(args: argparse.Namespace) -> dict[str, Any]:
    """Measures two AdamW steps on LoRA and heads, with one photo that carries a rationale; the second is the result.

    Activations of the language layers are checkpointed; logits are computed at rationale tokens only.
    """
    with Meter(args.device) as load:
        model = build(args)
    model.reasoner.save_memory(torch.bfloat16 if args.device == "cuda" else None)
    model.train()
    parts = model.trainable()
    optimizer = torch.optim.AdamW([*parts["lora"], *parts["heads"]], lr=1e-5)
    with Meter(args.device) as first:
        step(model, optimizer)
    with Meter(args.device) as second:
        loss = step(model, optimizer)
    trained = {part: sum(p.numel() for p in parameters) for part, parameters in parts.items()}
    return {"load": asdict(load), "first": asdict(first), "step": asdict(second), "loss": loss, "trained": trained}


def step(model: SkinClipVL, optimizer: torch.optim.Optimizer) -> float:
    """One training step on diagnosis and rationale of a noise photo; its loss."""
    findings = [*FINDINGS, "dots_and_globules:irregular", "regression_structures:present"]
    rationale = write_rationale("mel", "nv", findings, random.Random(0))
    prompts = model.reasoner.writer.write(
        [Context(55, "male", "back")], [RationaleTarget(findings, "mel", "nv", rationale)]
    )
    tokens = model.perceive(photo(model.config))
    reasoning = model.reason(prompts, tokens, model.find_evidence(tokens))
    assert reasoning.language_loss is not None
    loss = F.cross_entropy(reasoning.logits, torch.zeros(1, dtype=torch.long, device=reasoning.logits.device))
    loss = loss + reasoning.language_loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


MEASURES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "language": language,
    "whole": whole,
    "train": train,
}

if __name__ == "__main__":
    main()
