"""The model card of a checkpoint on published weights: written from its config, its recipe, and what was measured.

`results.json` beside it holds the figures of evaluation reports of these very weights. The card says nothing that is
not in those files, so it can be made again at any time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from skinclip import RESEARCH_USE_ONLY, __version__
from skinclip.core.config import ModelConfig, TrainConfig, load_yaml
from skinclip.core.formatting import count
from skinclip.core.measures import MEASURES
from skinclip.core.vocabulary import DIAGNOSES
from skinclip.hub.sources import BASES, CLIPS
from skinclip.model.checkpoint import CARRIED, read_config, read_foundation, weights_sha256
from skinclip.model.errors import CheckpointError

FILE, RESULTS = "README.md", "results.json"
_TITLE = "Model card: "
TERMS = {
    "HAM10000 (Tschandl et al. 2018)": "CC BY-NC 4.0",
    "ISIC 2017 (Codella et al. 2018)": "ISIC archive, terms by photo",
    "Derm7pt (Kawahara et al. 2019)": "academic research only",
}


def card_name(folder: Path) -> str:
    """Name that a checkpoint gives itself: the title of its card, or else its preset and folder."""
    path = folder / FILE
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        if line.startswith("# "):
            return line.removeprefix("# ").removeprefix(_TITLE).strip()
    return _name(folder, read_config(folder))


def write_card(folder: Path, reports: Sequence[Path] = ()) -> None:
    """Writes README.md and, of evaluation reports, results.json.

    Raises CheckpointError for a report of other weights, and where the checkpoint is not whole.
    """
    if reports:
        results = [_result(json.loads(path.read_text(encoding="utf-8")), path, folder) for path in reports]
        (folder / RESULTS).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (folder / FILE).write_text(model_card(folder), encoding="utf-8")


def model_card(folder: Path) -> str:
    """The card as Markdown, with the YAML block that the hub reads. Raises CheckpointError."""
    config = read_config(folder)
    if config.reasoner.base is None:
        raise CheckpointError(f"{folder} carries all its weights; its card is written by hand")
    parts = [
        _front_matter(folder),
        f"# {_TITLE}{_name(folder, config)}",
        f"**{RESEARCH_USE_ONLY}.** For non-commercial research only: the terms below bind whoever uses or passes on "
        "these weights.",
        f"Dermoscopy photos in, calibrated probabilities of {count(len(DIAGNOSES))} diagnoses and a rationale whose "
        f"findings are located in the photo out, by SkinCLIP-VL {__version__}. This folder holds "
        + ("no base: it is found or fetched by the program." if config.reasoner.base != CARRIED else "its own base."),
        "## Made of",
        _sources(folder, config),
        "## Trained by",
        _recipe(folder),
        "## Data and terms",
        _data(),
        "## Numbers",
        _numbers(folder),
        "## Limits",
        "Trained on dermoscopy photos, mostly of light skin: not for smartphone photos, mucosa, nails or anything that "
        f"is not one skin lesion. {count(len(DIAGNOSES)).capitalize()} classes; a diagnosis outside them is not known. "
        "Probabilities are at the prevalence of the training photos. Use it with the program, which checks that base "
        "and adapter belong together: thresholds and calibration hold for that pair alone.",
    ]
    return "\n\n".join(parts) + "\n"


def _name(folder: Path, config: ModelConfig) -> str:
    own = folder.resolve().name
    return f"SkinCLIP-VL {config.preset}" + ("" if own == config.preset else f", {own}")


def _front_matter(folder: Path) -> str:
    base = read_foundation(folder).base
    front: dict[str, Any] = {
        "license": "other",
        "license_name": "research-only",
        "tags": ["dermatology", "vision-language", "lora", "research-only"],
    }
    if base.hub_id:
        front["base_model"] = base.hub_id
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---"


def _sources(folder: Path, config: ModelConfig) -> str:
    made_for = read_foundation(folder)
    base, clip, lora = made_for.base, made_for.clip, config.reasoner.lora
    source = BASES.get(base.hub_id or "")
    tower = CLIPS.get((clip.model, clip.pretrained))
    revision = f", revision `{base.revision}`" if base.revision else ""
    kept = "its linear language layers in NF4" if config.reasoner.quantize else "in 16 bit or more"
    adapter = (
        f"rank {lora.r}, alpha {lora.alpha}, on the linear language layers: `adapter.safetensors`"
        if lora.r
        else "merged into the base in `reasoner/`"
    )
    rows = [
        ("language model", f"{base.hub_id or 'Qwen2.5-VL of unknown origin'}{revision}, {kept}", _licence(source)),
        ("perception", f"open_clip {clip.model}, weights `{clip.pretrained}`, frozen", _licence(tower)),
        ("LoRA", adapter, "these terms"),
        ("evidence and heads", "`heads.safetensors`", "these terms"),
        ("calibration, sets, shift, referral", "`trust.safetensors`, `findings.json`", "these terms"),
    ]
    table = ["| part | what | terms |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]
    identity = f"Weights `{weights_sha256(folder)[:12]}`, made for {base} and {clip}; see `base.json`."
    return "\n".join(table) + f"\n\n{identity}"


def _licence(source: Any) -> str:
    return source.licence if source is not None else "those of where it came from"


def _recipe(folder: Path) -> str:
    path = folder / "recipe.yaml"
    if not path.is_file():
        return "No recipe lies beside these weights."
    recipe: TrainConfig = load_yaml(TrainConfig, path)
    s, loss = recipe.stage2, recipe.loss
    return (
        f"`python -m skinclip train` with `recipe.yaml`, seed {recipe.seed}: {s.steps} steps of {s.batch_size} photos "
        f"under the Consistency-aware Focal Alignment loss (alignment {loss.w_align:g}, calibration {loss.w_cal:g}, "
        f"consistency {loss.w_con:g}, language {loss.w_lang:g}), learning rate {s.lr:g}; then calibration, sets, shift "
        "and referral on the `calib` split."
    )


def _data() -> str:
    rows = "\n".join(f"| {name} | {terms} |" for name, terms in TERMS.items())
    return (
        "Trained on those of these sets that lay below the data folder, never on a test split. No photo, mask or label "
        f"of them is part of this folder.\n\n| data set | terms |\n|---|---|\n{rows}"
    )


def _numbers(folder: Path) -> str:
    if not (folder / RESULTS).is_file():
        return (
            "None were measured yet. `python -m skinclip evaluate` measures, `python -m skinclip adapter card` writes "
            "what it found in here."
        )
    return "\n\n".join(_table(result) for result in json.loads((folder / RESULTS).read_text(encoding="utf-8")))


def _table(result: dict[str, Any]) -> str:
    rows = [
        f"| {MEASURES[name][0]} | {f['value']:.3f} ({f['low']:.3f} to {f['high']:.3f}) |"
        for name, f in result["figures"].items()
    ]
    where = f"**{', '.join(result['data'])}, split `{result['split'] or 'all'}`**, {result['n']} photos"
    return "\n".join(
        [f"{where}, 95 % intervals.", "", "| figure | value |", "|---|---|", *rows, "", f"By `{result['command']}`."]
    )


def _result(report: dict[str, Any], path: Path, folder: Path) -> dict[str, Any]:
    """Excerpt of a report for a card; paths of the computer where it was made are left out."""
    try:
        meta = report["meta"]
        measured, own = meta["system"]["sha256"], weights_sha256(folder)
        figures = {name: report[name] for name in MEASURES if report.get(name) and report[name].get("low") is not None}
        command = re.sub(r"(?<=[\s=])(?:/|~|[A-Za-z]:\\)\S*[/\\](?=\S)", ".../", f" {meta['command']}").strip()
        origin = {key: meta[key] for key in ("data", "split", "seed")}
    except (KeyError, TypeError) as problem:
        raise CheckpointError(f"{path} is not an evaluation report: {problem!r} is missing") from problem
    if measured != own:
        raise CheckpointError(f"{path} is of the weights {measured[:12]}, {folder} holds {own[:12]}")
    return {**origin, "n": report["n"], "command": command, "figures": figures}
