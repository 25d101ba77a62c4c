"""Checkpoints: the model saved, validated and loaded, and the factory that returns it together with its transform.

A checkpoint is a directory:

    config.yaml              what the model is (`ModelConfig`)
    perception.safetensors   the CLIP model, where the preset carries its own
    heads.safetensors        evidence finder and the reasoner's own layers
    adapter.safetensors      LoRA, where it is not merged into the language model
    tokenizer/               the reasoner's tokenizer
    reasoner/                Qwen2.5-VL, where the checkpoint carries its own: in NF4, in 16 bit where LoRA is merged in
    base.json                which Qwen2.5-VL and CLIP the adapter was made for, where they lie elsewhere
    trust.safetensors        calibration, sets, shift, referral; fitted on the calib split
    findings.json            from which probability a criterion is cited
    recipe.yaml, README.md   how it was trained, model card
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from skinclip.core.config import ModelConfig, load_yaml, save_yaml
from skinclip.core.config import preset as preset_config
from skinclip.hub import checkpoint_folder, find_base, no_checkpoint
from skinclip.imaging.transform import PhotoTransform
from skinclip.model import foundation
from skinclip.model.errors import CheckpointError
from skinclip.model.foundation import Foundation
from skinclip.model.integrity import verify
from skinclip.model.perception import Perception
from skinclip.model.qwen import ADAPTER, lora_settings
from skinclip.model.skinclip_vl import SkinClipVL, assemble, make_reasoner, mismatch
from skinclip.model.tokenizer import load_tokenizer

CARRIED = "./reasoner"  # the base of a checkpoint with a 16-bit language model of its own, LoRA merged into it


def create_model(
    preset: str = "mini", weights: Path | None = None, device: str | None = None
) -> tuple[SkinClipVL, PhotoTransform]:
    """The model of a preset and the transform that belongs to it.

    Args:
        weights: a checkpoint directory; by default the preset's own (`hub.checkpoint_folder`).
        device: see `assemble`.

    Raises ValueError for an unknown preset, CheckpointError where its weights are not there or do not fit,
    MissingWeights where those that it is built on are not.
    """
    preset_config(preset)  # an unknown name is an error before anything is read
    folder = Path(weights) if weights else checkpoint_folder(preset)
    if not (folder / "config.yaml").exists():
        raise CheckpointError(no_checkpoint(preset, folder))
    model = load_model(folder, device)
    return model, PhotoTransform(model.config.photo_side)


def load_model(folder: Path, device: str | None = None) -> SkinClipVL:
    """The model saved in `folder`, in eval mode.

    Args:
        device: see `assemble`.

    Raises CheckpointError saying what is missing or does not fit, MissingWeights for what the preset is built on.
    """
    verify(folder)
    config = read_config(folder)
    reasoner = config.reasoner  # its base first: what is missing is reported before gigabytes are read
    if reasoner.base is None:
        base = folder / "reasoner"
    else:
        base = folder / CARRIED if reasoner.base == CARRIED else find_base(reasoner.base, reasoner.revision)
    perception = Perception(config.perception)
    if config.perception.pretrained is None:
        state = {
            k: v.float() if v.is_floating_point() else v
            for k, v in load_file(folder / "perception.safetensors").items()
        }
        expected = set(perception.tower.weights())
        if expected != set(state):
            raise CheckpointError(mismatch("perception.safetensors", expected, set(state)))
        perception.tower.load_weights(state)
    perception.freeze()
    if reasoner.base is not None:
        stands_on = Foundation.of(base, perception)
        if problem := read_foundation(folder).differences(stands_on):
            raise CheckpointError(f"{folder} does not fit: it was {problem}")
    model = assemble(config, perception, base, load_tokenizer(folder / "tokenizer"), device)
    load_weights(model, folder)
    return model.eval()


def load_weights(model: SkinClipVL, folder: Path) -> None:
    """Loads heads and LoRA of a checkpoint. Raises CheckpointError where they do not fit."""
    model.load_heads(load_file(folder / "heads.safetensors"))
    model.reasoner.load_adapter_state(load_file(folder / "adapter.safetensors") if model.reasoner.adapted else {})


def load_adapter(model: SkinClipVL, folder: Path) -> SkinClipVL:
    """The checkpoint in `folder` on `model`'s own language model and tower, which are not loaded again.

    `model` answers as before until it is `replaced_by` the other.

    Raises CheckpointError where the checkpoint is not whole, or was made for something else.
    """
    config = read_config(folder)
    refuse(folder, config, model)
    language_model = model.reasoner.language_model
    name = next(n for n in (ADAPTER, "other") if n != model.reasoner.adapter)
    language_model.add_adapter(name, lora_settings(config.reasoner))
    try:
        tokenizer = load_tokenizer(folder / "tokenizer")
        reasoner = make_reasoner(config, language_model, tokenizer, model.perception, name)
        names = ("description_bank", "descriptions", "state_embeddings")
        kind, criteria = config.evidence.kind, config.criteria  # which decide the directions of the states
        same = (kind, criteria) == (model.config.evidence.kind, model.config.criteria)
        vocabulary = {n: getattr(model, n) for n in names} if same else None
        other = SkinClipVL(config, model.perception, reasoner, model.base_dir, model.foundation, vocabulary)
        load_weights(other, folder)
        return other.to(model.device).eval()
    except BaseException:
        language_model.delete_adapter(name)
        raise


def save_model(model: SkinClipVL, out: Path) -> None:
    """Writes the checkpoint; what is loaded from it gives the same numbers exactly."""
    out.mkdir(parents=True, exist_ok=True)
    save_yaml(model.config, out / "config.yaml")
    save_file(_plain(model.heads()), out / "heads.safetensors")
    if model.reasoner.adapted:
        save_file(_plain(model.reasoner.adapter_state()), out / "adapter.safetensors")
    if model.foundation is not None:
        (out / foundation.FILE).write_text(model.foundation.to_json(), encoding="utf-8")
    model.reasoner.tokenizer.save_pretrained(out / "tokenizer")
    if model.config.perception.pretrained is None:
        tower = model.perception.tower.weights()
        save_file(_plain({k: v.half() if v.ndim > 1 else v for k, v in tower.items()}), out / "perception.safetensors")
    if (
        model.config.reasoner.base in (None, CARRIED)
        and model.base_dir is not None
        and model.base_dir != out / "reasoner"
    ):
        shutil.copytree(model.base_dir, out / "reasoner", dirs_exist_ok=True)


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().cpu().clone().contiguous() for k, v in state.items()}


def read_config(folder: Path) -> ModelConfig:
    """Reads the config of the checkpoint in `folder`. Raises CheckpointError naming what of it is missing."""
    if not (folder / "config.yaml").exists():
        raise CheckpointError(f"{folder} is not a complete checkpoint: config.yaml is missing")
    config = load_yaml(ModelConfig, folder / "config.yaml")
    parts = ["heads.safetensors", "tokenizer"]
    parts += ["adapter.safetensors"] if config.reasoner.lora.r else []
    parts += [foundation.FILE] if config.reasoner.base is not None else []
    for name in parts:
        if not (folder / name).exists():
            raise CheckpointError(f"{folder} is not a complete checkpoint: {name} is missing")
    return config


def read_foundation(folder: Path) -> Foundation:
    """Reads the foundation of the adapter in `folder`. Raises CheckpointError where it does not say so."""
    try:
        return Foundation.from_json((folder / foundation.FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise CheckpointError(f"{folder / foundation.FILE} cannot be read: {problem}") from problem


def refuse(folder: Path, config: ModelConfig, model: SkinClipVL) -> None:
    """Raises CheckpointError, with the reason, where the checkpoint in `folder` cannot stand on what `model` does."""
    if model.foundation is None or not model.reasoner.adapted:
        raise CheckpointError("this model carries its own base, which no other adapter fits; load the other by itself")
    if config.reasoner.base in (None, CARRIED):
        raise CheckpointError(f"{folder} carries its own base; load it by itself")
    problem = read_foundation(folder).differences(model.foundation)
    if problem is None and config.reasoner.quantize != model.config.reasoner.quantize:
        kinds = {True: "a quantized base", False: "a base in full precision"}
        problem = f"made on {kinds[config.reasoner.quantize]}, while here is {kinds[model.config.reasoner.quantize]}"
    if problem is None and replace(config.perception, pretrained=None) != replace(
        model.config.perception, pretrained=None
    ):
        problem = "made to read CLIP in another way: `perception` in its config.yaml differs"
    if problem:
        raise CheckpointError(f"{folder} does not fit: it was {problem}")


def weights_sha256(folder: Path) -> str:
    """One hash over all weight files of a checkpoint, names included."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
