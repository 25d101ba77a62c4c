"""Qwen2.5-VL at the true size of the big presets, with random weights, on a GPU: memory, speed, a training step.

    python -m eval_study.gpu.full_size --preset qwen-3b qwen-7b --seconds 45 --out OUT

Speed and memory do not depend on what the weights are, so none are downloaded: each is drawn on the GPU, and a language
layer's is packed into NF4 before the next one is drawn. Beside torch it needs transformers, peft and bitsandbytes, and
of this repository nothing. OUT/full_size_<preset>.json is written anew after every measurement. What would not fit into
`--seconds` a preset is recorded as skipped, what fails with its error. `--tiny` tries every step on a CPU.

Held as the project serves and trains them: vision tower, embeddings, norms and lm_head in bf16, LoRA in fp32, training
under bf16 autocast with the loss taken at the rationale's tokens alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import peft
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import GenerationConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

GB = 10**9
STD = 0.02  # of every matrix, as Qwen initialises them
SIDE = 448  # pixels of a photo
PATCHES = SIDE // 14  # a side, of which two by two make a token
PHOTO_TOKENS = (PATCHES // 2) ** 2
TEXT, WRITTEN, TRAINED = 300, 96, 700  # tokens: of the prompt's text, generated, of a training sequence
TRIAL = 13  # tokens generated to see whether there is time for all
FIRST_TEXT, VISION_START, VISION_END, IMAGE = 1000, 151_652, 151_653, 151_655  # token ids
LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


@dataclass(frozen=True)
class Shape:
    """The shapes that set one preset apart from another, from Qwen's published `config.json`, and its LoRA layers."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool
    r: int
    alpha: int
    depth: int = 32  # of the vision tower, like the two after it
    vision_hidden: int = 1280
    vision_intermediate: int = 3420

    def tiny(self) -> Shape:
        """The same at two layers and small widths."""
        return replace(
            self,
            hidden=512,
            intermediate=768,
            layers=2,
            heads=4,
            kv_heads=2,
            depth=2,
            vision_hidden=256,
            vision_intermediate=384,
        )

    def config(self) -> Qwen2_5_VLConfig:
        """The configuration of these shapes."""
        text = {
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 128_000,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "type": "default",
                "mrope_section": [16, 24, 24],
                "rope_theta": 1_000_000.0,
            },
            "tie_word_embeddings": self.tied,
            "eos_token_id": None,  # every generation is as long as it was asked to be
        }
        vision = {
            "depth": self.depth,
            "hidden_size": self.vision_hidden,
            "intermediate_size": self.vision_intermediate,
            "num_heads": 16,
            "out_hidden_size": self.hidden,
            "fullatt_block_indexes": [i for i in (7, 15, 23, 31) if i < self.depth] or [self.depth - 1],
            "tokens_per_second": 2,
        }
        return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=self.tied)


SHAPES = {
    "qwen-3b": Shape(2048, 11008, 36, 16, 2, 151_936, tied=True, r=8, alpha=16),
    "qwen-7b": Shape(3584, 18944, 28, 28, 4, 152_064, tied=False, r=16, alpha=32),
}


# ---- the model -------------------------------------------------------------------------------------------------------


def build(shape: Shape, device: torch.device) -> Any:
    """The language model in NF4 with LoRA, the rest in bf16, as a PeftModel; no more than one matrix is unpacked."""
    config = shape.config()
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(config).eval()
    for name, module in list(model.named_modules()):
        if "language_model" in name and isinstance(module, nn.Linear):
            model.set_submodule(name, nf4(module, device))
    for name, module in list(model.named_modules()):
        if "Rotary" in type(module).__name__:  # its buffers are computed, not stored: once more, not on meta
            model.set_submodule(name, type(module)(module.config).to(device))
        for key, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta and not (shape.tied and name == "lm_head"):
                setattr(module, key, drawn(f"{name}.{key}", parameter.shape, device))
    if shape.tied:
        model.lm_head.weight = model.get_input_embeddings().weight
    model.generation_config.eos_token_id = None
    model.is_loaded_in_4bit = True  # or peft would take the layers for ordinary ones
    lora = peft.LoraConfig(
        r=shape.r, lora_alpha=shape.alpha, lora_dropout=0.05, target_modules=LORA_TARGETS, task_type="CAUSAL_LM"
    )
    with torch.device(device):
        return peft.get_peft_model(model, lora).eval()


def drawn(name: str, size: torch.Size, device: torch.device) -> nn.Parameter:
    """A frozen bf16 parameter: norms one, biases zero, all else normal."""
    value = torch.empty(size, device=device, dtype=torch.bfloat16)
    if name.endswith(".bias"):
        value.zero_()
    elif len(size) == 1:
        value.fill_(1.0)
    else:
        value.normal_(0.0, STD)
    return nn.Parameter(value, requires_grad=False)


def nf4(layer: nn.Linear, device: torch.device) -> bnb.nn.Linear4bit:
    """A layer of that shape in NF4; its bias is drawn later."""
    with torch.device("meta"):
        packed = bnb.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            layer.bias is not None,
            torch.bfloat16,
            compress_statistics=False,
            quant_type="nf4",
        )
    weight = drawn("weight", layer.weight.shape, device).data
    unpacked: Any = bnb.nn.Params4bit(weight, False, compress_statistics=False, quant_type="nf4")
    packed.weight = unpacked.to(device)  # packs it
    packed.support_avx512bf16_for_cpu = False  # that way of packing has no backward pass
    return packed


def part_of(name: str) -> str:
    """Part of the model that a parameter belongs to."""
    inside = {"lora_": "lora", ".visual.": "vision", "embed_tokens": "embeddings", "lm_head": "lm_head"}
    return next((part for mark, part in inside.items() if mark in name), "language norms and biases")


def inventory(model: nn.Module) -> dict[str, dict[str, int]]:
    """Parameters and bytes by part; the bytes of NF4 with its scales and code tables."""
    numbers: dict[str, int] = {}
    sizes: dict[str, int] = {}
    for name, parameter in model.named_parameters():  # a tied lm_head is named once, as the embeddings
        state = getattr(parameter, "quant_state", None)
        part = part_of(name) if state is None else "language linears"
        numbers[part] = numbers.get(part, 0) + (parameter.numel() if state is None else state.shape.numel())
        beside = 0 if state is None else state.absmax.nbytes + state.code.nbytes
        sizes[part] = sizes.get(part, 0) + parameter.nbytes + beside
    return {"parameters": numbers, "bytes": sizes | {"all": sum(sizes.values())}}


def prompt(batch: int, text: int, device: torch.device) -> dict[str, Tensor]:
    """A photo each and `text` tokens after it, at random: what the model's own processor would return."""
    photo = torch.full((batch, PHOTO_TOKENS), IMAGE, device=device)
    start, end = (torch.full((batch, 1), token, device=device) for token in (VISION_START, VISION_END))
    words = torch.randint(FIRST_TEXT, VISION_START, (batch, text), device=device)
    ids = torch.cat([start, photo, end, words], 1)  # [B, L]
    pixels = torch.randn(batch * PATCHES**2, 3 * 2 * 14 * 14, device=device, dtype=torch.bfloat16)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == IMAGE).int(),
        "pixel_values": pixels,
        "image_grid_thw": torch.tensor([[1, PATCHES, PATCHES]] * batch, device=device),
    }


# ---- a run -----------------------------------------------------------------------------------------------------------


@dataclass
class TimedRun:
    """One preset on one device: what was found so far, and until when there is time."""

    device: torch.device
    seconds: float
    file: Path
    results: dict[str, Any]
    began: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        """Seconds left of the run."""
        return self.seconds - (time.perf_counter() - self.began)

    def once(self, call: Callable[[], Any]) -> float:
        """Seconds that `call` takes, until the GPU is done."""
        self.synchronize()
        start = time.perf_counter()
        call()
        self.synchronize()
        return time.perf_counter() - start

    def repeat(self, call: Callable[[], Any], repeats: int = 3, share: float = 1.0) -> dict[str, Any]:
        """Median of up to `repeats` runs of `call`, as many as fit into this share of the time left, at least one."""
        until = self.left * (1 - share)
        times: list[float] = []
        while len(times) < repeats and (not times or self.left - times[-1] > until):
            times.append(self.once(call))
        return {"seconds": statistics.median(times), "runs": times}

    def measure(self, key: str, call: Callable[[], dict[str, Any]], least: float = 1.0) -> None:
        """Keeps what `call` returns under `key`, with the peak of GPU memory; its error where it fails.

        Args:
            least: seconds that it takes at least; with less time left it is skipped.
        """
        if self.left < least:
            self.keep(key, {"skipped": f"{self.left:.1f} s left"})
            return
        start = time.perf_counter()
        try:
            self.reset()
            value = call() | self.peak()
        except Exception as error:
            value = {"error": f"{type(error).__name__}: {error}"[:600]}
        self.keep(key, value | {"took": round(time.perf_counter() - start, 2)})

    def keep(self, key: str, value: dict[str, Any]) -> None:
        """Adds a result and writes all of them to the file."""
        self.results["measured"][key] = value
        self.file.write_text(json.dumps(self.results, indent=1) + "\n")
        print(f"{key}: {json.dumps(value)}", flush=True)

    def synchronize(self) -> None:
        """Waits until the GPU is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def reset(self) -> None:
        """Frees cached GPU memory and restarts the measurement of its peak."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> dict[str, int]:
        """Bytes: `peak` of tensors, `peak_reserved` of what torch held for them, the CUDA context not counted."""
        if self.device.type != "cuda":
            return {}
        return {"peak": torch.cuda.max_memory_allocated(), "peak_reserved": torch.cuda.max_memory_reserved()}


def machine(device: torch.device) -> dict[str, Any]:
    """Device and library versions of the measurement."""
    description: dict[str, Any] = {
        "device": "cpu",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "bitsandbytes": bnb.__version__,
    }
    if device.type == "cuda":
        of = torch.cuda.get_device_properties(device)
        cuda = {"cc": f"{of.major}.{of.minor}", "memory": of.total_memory, "cuda": torch.version.cuda}
        description |= {"device": of.name, **cuda}
    return description


# ---- what is measured ------------------------------------------------------------------------------------------------


def generation(run: TimedRun, model: Any, batch: int, share: float) -> dict[str, Any]:
    """Time to the first token, and tokens a second after it, of the whole batch; greedy."""
    inputs = prompt(batch, TEXT, run.device)
    length = inputs["input_ids"].shape[1]

    @torch.no_grad()
    def write(tokens: int) -> None:
        settings = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0)
        ids = model.generate(**inputs, generation_config=settings)
        if ids.shape[1] != length + tokens:
            raise RuntimeError(f"{ids.shape[1] - length} tokens were generated, not {tokens}")

    figures: dict[str, Any] = {"batch": batch, "prompt": length, "warm_up": run.once(partial(write, 2))}
    if 4 * figures["warm_up"] > run.left:
        return figures | {"skipped": f"{run.left:.1f} s left after the warm-up"}
    first = run.repeat(partial(write, 1), share=0.2)
    trial = run.once(partial(write, TRIAL))
    rate = (trial - first["seconds"]) / (TRIAL - 1)
    tokens, whole = TRIAL, {"seconds": trial, "runs": [trial]}
    if first["seconds"] + rate * (WRITTEN - 1) < run.left:
        tokens, whole = WRITTEN, run.repeat(partial(write, WRITTEN), share=share)
    later = whole["seconds"] - first["seconds"]
    speed = batch * (tokens - 1) / later if later > 0 else None
    return figures | {"first_token": first, "tokens": tokens, "whole": whole, "tokens_per_second": speed}


def vision(run: TimedRun, model: Any) -> dict[str, Any]:
    """The vision tower's tokens of one photo."""
    inputs = prompt(1, TEXT, run.device)

    def look() -> None:
        photo_embeddings(model, inputs)

    return {"warm_up": run.once(look), **run.repeat(look)}


@torch.no_grad()
def photo_embeddings(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """[B * 256, H]."""
    features = model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True)
    return torch.cat(list(features.pooler_output))


def gradient_map(run: TimedRun, model: Any, recompute: bool) -> dict[str, Any]:
    """Grad-CAM of one photo: from the likeliest next token's logit back to the photo's embeddings."""
    inputs = prompt(1, TEXT, run.device)
    ids = inputs["input_ids"]
    others = {key: inputs[key] for key in ("attention_mask", "mm_token_type_ids", "image_grid_thw")}

    def explain() -> None:
        photo = photo_embeddings(model, inputs).requires_grad_()
        embeds = model.get_input_embeddings()(ids)
        embeds = embeds.masked_scatter((ids == IMAGE).unsqueeze(-1), photo.to(embeds.dtype))
        hidden = model.model(input_ids=ids, inputs_embeds=embeds, use_cache=False, **others).last_hidden_state
        (slope,) = torch.autograd.grad(model.lm_head(hidden[:, -1]).float().max(), photo)
        cam = (slope.float() * photo.float()).sum(-1).relu().view(PATCHES // 2, -1)  # [16, 16]
        if not cam.isfinite().all() or not slope.any():
            raise RuntimeError("no finite gradient reached the photo's embeddings")

    with recomputing(model, recompute):
        return {"warm_up": run.once(explain), **run.repeat(explain)}


@contextmanager
def recomputing(model: Any, recompute: bool) -> Iterator[None]:
    """Language layers keep their inputs only and compute the rest again in the backward pass."""
    layers = model.model.language_model.layers if recompute else ()
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # of the instance; that of its class is there again


def training_step(run: TimedRun, model: Any, recompute: bool) -> dict[str, Any]:
    """One photo's step: the frozen vision tower, forward, backward to LoRA, AdamW."""
    inputs = prompt(1, TRAINED - PHOTO_TOKENS - 2, run.device)
    labels = inputs["input_ids"][:, -WRITTEN:]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)

    def step() -> None:
        with torch.autocast(run.device.type, torch.bfloat16):
            hidden = model.model(**inputs, use_cache=False).last_hidden_state
            logits = model.lm_head(hidden[:, -WRITTEN - 1 : -1])
        F.cross_entropy(logits[0].float(), labels[0]).backward()
        optimizer.step()
        optimizer.zero_grad()

    model.train()  # LoRA's dropout
    try:
        with recomputing(model, recompute):
            return {"tokens": TRAINED, "warm_up": run.once(step), **run.repeat(step)}
    finally:
        model.eval()
        optimizer.zero_grad()


def measure_preset(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Everything of one preset, what matters most first."""
    torch.manual_seed(0)
    device = torch.device(args.device)
    file = args.out / f"full_size_{name}{'-tiny' if args.tiny else ''}.json"
    run = TimedRun(device, args.seconds, file, {"preset": name, "tiny": args.tiny, **machine(device), "measured": {}})
    shape = SHAPES[name].tiny() if args.tiny else SHAPES[name]
    held: list[Any] = []

    def load() -> dict[str, Any]:
        before = torch.cuda.memory_allocated() if device.type == "cuda" else None  # 0, or the last preset is still held
        seconds = run.once(lambda: held.append(build(shape, device)))
        layer = held[0].base_model.model.model.language_model.layers[0].self_attn.q_proj
        kind = f"{type(layer).__module__}.{type(layer).__name__} in {layer.lora_A['default'].weight.dtype}"
        allocated = torch.cuda.memory_allocated() if device.type == "cuda" else None
        return {"seconds": seconds, "lora_layer": kind, "before": before, "allocated": allocated, **inventory(held[0])}

    run.measure("load", load)
    if held:
        adapted = held.pop()
        measure_model(run, adapted)
    run.keep("all", {"took": round(time.perf_counter() - run.began, 1)})
    return run.results


def measure_model(run: TimedRun, adapted: Any) -> None:
    """Measures generation, training and gradient maps of one model."""
    model = adapted.get_base_model()  # with the LoRA layers inside
    run.measure("generate 1", lambda: generation(run, model, 1, share=0.35), least=3)
    run.measure("train, recomputed", lambda: training_step(run, model, True))
    run.measure("train", lambda: training_step(run, model, False))
    run.measure("gradient map", lambda: gradient_map(run, model, False))
    run.measure("gradient map, recomputed", lambda: gradient_map(run, model, True))
    run.measure("vision", lambda: vision(run, model), least=0.5)
    run.measure("generate 8", lambda: generation(run, model, 8, share=0.7), least=3)

    def unadapted() -> dict[str, Any]:
        with adapted.disable_adapter():
            return generation(run, model, 1, share=0.5)

    run.measure("generate 1, LoRA off", unadapted, least=3)


def row(key: str, value: dict[str, Any]) -> str:
    """One measurement as a line of the printed table."""
    if "skipped" in value or "error" in value:
        return f"{key:26} {'skipped, ' if 'skipped' in value else ''}{value.get('skipped') or value.get('error')}"
    peaks = "".join(f"{value[k] / GB:9.2f}" if k in value else f"{'-':>9}" for k in ("peak", "peak_reserved"))
    seconds = value.get("first_token", value).get("seconds")
    runs = len(value.get("whole", value).get("runs", [0]))
    speed = f"{value['tokens_per_second']:9.1f}" if value.get("tokens_per_second") else f"{'-':>9}"
    return f"{key:26}{seconds:9.3f}{speed}{peaks}{runs:6}"


def table(results: dict[str, Any]) -> str:
    """The printed table of a run; seconds are those to the first token where tokens are generated."""
    title = f"\n{results['preset']}{' (tiny)' if results['tiny'] else ''} on {results['device']}"
    head = f"{'':26}{'seconds':>9}{'tokens/s':>9}{'peak GB':>9}{'reserved':>9}{'runs':>6}"
    rows = [row(key, value) for key, value in results["measured"].items() if key != "all"]
    return "\n".join([title, head, *rows, f"{results['measured']['all']['took']} s in all"])


def main() -> None:
    """Measures each preset and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="+", default=["qwen-3b"], choices=list(SHAPES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=45.0, help="per preset, imports not counted")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")))
    parser.add_argument("--tiny", action="store_true", help="two layers and small widths, to try every step")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tables = []
    for name in args.preset:
        tables.append(table(measure_preset(name, args)))
        gc.collect()
    print("\n".join(tables))


if __name__ == "__main__":
    main()
