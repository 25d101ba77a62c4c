"""The whole model, and the factory that returns it together with its transform.

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
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from skinclip.core.config import ModelConfig, ReasonerConfig, load_yaml, save_yaml
from skinclip.core.config import preset as preset_config
from skinclip.core.vocabulary import DIAGNOSES, EVIDENCE_STATES
from skinclip.hub import checkpoint_folder, find_base, no_checkpoint
from skinclip.imaging.transform import PhotoTransform
from skinclip.language.prompt import Prompts
from skinclip.model import foundation
from skinclip.model.allocator import give_back_large_blocks
from skinclip.model.evidence import Evidence, EvidenceFinder, symmetric_orthogonalize
from skinclip.model.foundation import Foundation
from skinclip.model.perception import Perception, VisualTokens
from skinclip.model.reasoner import (
    ADAPTER,
    Reasoner,
    Reasoning,
    add_lora,
    load_language_model,
    lora_settings,
    quantize_to,
    qwen_config,
)
from skinclip.model.tokenizer import load_tokenizer, mini_tokenizer

CARRIED = "./reasoner"  # the base of a checkpoint with a 16-bit language model of its own, LoRA merged into it


class CheckpointError(RuntimeError):
    """A checkpoint that is incomplete or made for another model; the message says which part."""


class SkinClipVL(nn.Module):
    """Perception, evidence and reasoning; `perceive`, `find_evidence` and `reason` are the steps of the path."""

    description_bank: Tensor
    descriptions: Tensor
    state_embeddings: Tensor

    def __init__(
        self,
        config: ModelConfig,
        perception: Perception,
        reasoner: Reasoner,
        base_dir: Path | None,
        foundation: Foundation | None = None,
        vocabulary: Mapping[str, Tensor] | None = None,
    ) -> None:
        """
        Args:
            foundation: what its adapter is made for, None where the checkpoint carries all of it.
            vocabulary: that of a model with the same tower, or the descriptions are embedded anew.
        """
        super().__init__()
        self.config = config
        self.perception = perception
        self.evidence = EvidenceFinder(
            config.evidence, perception.width, perception.embed_dim, perception.level_widths, len(EVIDENCE_STATES)
        )
        self.reasoner = reasoner
        self.base_dir = base_dir  # where the language model's own weights lie
        self.foundation = foundation
        for name, embedded in (vocabulary or self.embed_vocabulary()).items():
            self.register_buffer(name, embedded, persistent=False)

    @torch.no_grad()
    def embed_vocabulary(self) -> dict[str, Tensor]:
        """Embeds all descriptions, once: they change only with the text tower, which is frozen."""
        bank = torch.stack([self.perception.embed_texts(d.descriptions) for d in DIAGNOSES])
        states = self.perception.embed_texts([s.descriptions[0] for s in EVIDENCE_STATES])
        return {
            "description_bank": bank,  # [C, P, E]
            "descriptions": F.normalize(bank.mean(1), dim=-1),  # [C, E]
            "state_embeddings": symmetric_orthogonalize(states),  # [K, E]
        }

    @torch.no_grad()
    def perceive(self, photos: Tensor, flips: bool = False, own_too: bool = True) -> VisualTokens:
        """[B, 3, side, side] in 0..1 -> VisualTokens; never any gradient, the towers are frozen.

        Args:
            photos: `config.photo_side` wide where the preset keeps Qwen's own vision tower, else of any side.
            flips: average over the photo and its mirror images.
            own_too: let Qwen's own vision tower look as well, where the preset keeps it.
        """
        return self.perceive_with_gradients(photos, flips, own_too)

    def perceive_with_gradients(self, photos: Tensor, flips: bool = False, own_too: bool = True) -> VisualTokens:
        """`perceive` for attribution: gradients reach the photos through CLIP, not through Qwen's own tower."""
        photos = photos.to(self.device)
        own = self.reasoner.own_tokens(photos) if own_too else None
        if self.config.reasoner.own_vision:
            side = self.config.perception.image_size
            photos = F.interpolate(photos, (side, side), mode="bilinear", antialias=True, align_corners=False)
        seen = self.perception.from_all_sides(photos) if flips else self.perception(photos)
        return replace(seen, own=own)

    @property
    def device(self) -> torch.device:
        return self.reasoner.device

    def find_evidence(self, seen: VisualTokens) -> Evidence:
        return self.evidence.find(seen.to(self.device), self.state_embeddings)

    def reason(
        self,
        prompts: Prompts,
        seen: VisualTokens | None,
        evidence: Evidence | None,
        show_clip: Tensor | None = None,
        descriptions: Tensor | None = None,
        keep: bool = False,
    ) -> Reasoning:
        """The answer, by the model's own descriptions unless others [C, E] are given; see `Reasoner.forward`.

        What is given may lie on any device; the answer lies on the model's.
        """
        there = self.device
        return self.reasoner(
            prompts.to(there),
            None if seen is None else seen.to(there),
            None if evidence is None else evidence.to(there),
            self.descriptions if descriptions is None else descriptions.to(there),
            None if show_clip is None else show_clip.to(there),
            keep,
        )

    def heads(self) -> dict[str, Tensor]:
        """What stage 2 trains beside LoRA, by name."""
        own = {k: v for k, v in self.reasoner.state_dict().items() if not k.startswith("language_model.")}
        return {f"evidence.{k}": v for k, v in self.evidence.state_dict().items()} | {
            f"reasoner.{k}": v for k, v in own.items()
        }

    def load_heads(self, state: Mapping[str, Tensor]) -> None:
        expected, given = set(self.heads()), set(state)
        if expected != given:
            raise CheckpointError(_mismatch("heads.safetensors", expected, given))
        for name, part in (("evidence.", self.evidence), ("reasoner.", self.reasoner)):
            own = {k.removeprefix(name): v for k, v in state.items() if k.startswith(name)}
            part.load_state_dict(own, strict=False)  # strictness was checked above, language model aside

    def trainable(self) -> dict[str, list[nn.Parameter]]:
        """Parameters that stage 2 trains: "lora" and "heads"."""
        lora = [p for p in self.reasoner.language_model.parameters() if p.requires_grad]
        own = [p for n, p in self.reasoner.named_parameters() if not n.startswith("language_model.")]
        return {"lora": lora, "heads": [*own, *self.evidence.parameters()]}

    def save(self, out: Path) -> None:
        """Writes the checkpoint; what is loaded from it gives the same numbers exactly."""
        out.mkdir(parents=True, exist_ok=True)
        save_yaml(self.config, out / "config.yaml")
        save_file(_plain(self.heads()), out / "heads.safetensors")
        if self.reasoner.adapted:
            save_file(_plain(self.reasoner.adapter_state()), out / "adapter.safetensors")
        if self.foundation is not None:
            (out / foundation.FILE).write_text(self.foundation.to_json(), encoding="utf-8")
        self.reasoner.tokenizer.save_pretrained(out / "tokenizer")
        if self.config.perception.pretrained is None:
            tower = self.perception.tower.weights()
            save_file(
                _plain({k: v.half() if v.ndim > 1 else v for k, v in tower.items()}), out / "perception.safetensors"
            )
        if (
            self.config.reasoner.base in (None, CARRIED)
            and self.base_dir is not None
            and self.base_dir != out / "reasoner"
        ):
            shutil.copytree(self.base_dir, out / "reasoner", dirs_exist_ok=True)

    def with_adapter(self, folder: Path) -> SkinClipVL:
        """Another model on the same language model and CLIP, which are not loaded again: the checkpoint in `folder`.

        This model answers as before until it is `replaced_by` the other.

        Raises CheckpointError where the checkpoint is not whole, or was made for something else.
        """
        config = read_config(folder)
        refuse(folder, config, self)
        language_model = self.reasoner.language_model
        name = next(n for n in (ADAPTER, "other") if n != self.reasoner.adapter)
        language_model.add_adapter(name, lora_settings(config.reasoner))
        try:
            tokenizer = load_tokenizer(folder / "tokenizer")
            reasoner = make_reasoner(config, language_model, tokenizer, self.perception, name)
            vocabulary = {n: getattr(self, n) for n in ("description_bank", "descriptions", "state_embeddings")}
            model = SkinClipVL(config, self.perception, reasoner, self.base_dir, self.foundation, vocabulary)
            model.load_weights(folder)
            return model.to(self.device).eval()
        except BaseException:
            language_model.delete_adapter(name)
            raise

    def replaced_by(self, other: SkinClipVL) -> None:
        """Puts a model that came `with_adapter` in force; this one cannot answer any more."""
        language_model = self.reasoner.language_model
        language_model.set_adapter(other.reasoner.adapter)
        language_model.delete_adapter(self.reasoner.adapter)

    def load_weights(self, folder: Path) -> None:
        """Heads and LoRA of a checkpoint. Raises CheckpointError where they do not fit."""
        self.load_heads(load_file(folder / "heads.safetensors"))
        self.reasoner.load_adapter_state(load_file(folder / "adapter.safetensors") if self.reasoner.adapted else {})


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().cpu().clone().contiguous() for k, v in state.items()}


def _mismatch(part: str, expected: set[str], given: set[str]) -> str:
    missing, unknown = sorted(expected - given), sorted(given - expected)
    return (
        f"{part} does not fit the model: {len(missing)} keys missing {missing[:3]}, "
        f"{len(unknown)} unexpected {unknown[:3]}; use a checkpoint made for this preset and version"
    )


def new_model(config: ModelConfig, work: Path, perception: Perception | None = None) -> SkinClipVL:
    """An untrained model of the true classes: random reasoner quantized to NF4, fresh LoRA and heads.

    Args:
        work: a directory for the quantized reasoner, which the model keeps reading from when it is saved.
    """
    perception = (perception or Perception(config.perception)).freeze()
    tokenizer = mini_tokenizer()
    if not (work / "reasoner").exists():
        from transformers import Qwen2_5_VLForConditionalGeneration

        quantize_to(Qwen2_5_VLForConditionalGeneration(qwen_config(config.reasoner, tokenizer)), work / "reasoner")
    return assemble(config, perception, work / "reasoner", tokenizer)


def assemble(
    config: ModelConfig,
    perception: Perception,
    base: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    device: str | None = None,
    shared_out: bool = False,
) -> SkinClipVL:
    """The model from its parts: a tower, a language model's directory, and a tokenizer.

    Args:
        device: None is a GPU where there is one and the preset keeps a base of its own, else the CPU.
        shared_out: FSDP is to share it out among processes.

    Raises CheckpointError where the tokenizer says more than the language model can read.
    """
    reasoner_config: ReasonerConfig = config.reasoner
    device = device or default_device(config)
    if reasoner_config.base is not None:
        give_back_large_blocks()
    language_model = load_language_model(
        base,
        reasoner_config.quantize,
        reasoner_config.revision,
        device,
        shared_out,
        reasoner_config.cpu_weights,
    )
    language_model.requires_grad_(False)
    rows = len(language_model.lm_head.weight)
    if len(tokenizer) > rows:
        raise CheckpointError(
            f"the tokenizer has {len(tokenizer)} tokens, ours included, the language model in {base} only {rows} rows "
            "for them; use the tokenizer that came with it"
        )
    reasoner = make_reasoner(config, add_lora(language_model, reasoner_config), tokenizer, perception)
    base_dir = Path(base) if Path(base).is_dir() else None
    elsewhere = base_dir is not None and reasoner_config.base is not None
    stands_on = Foundation.of(Path(base), perception) if elsewhere else None
    return SkinClipVL(config, perception, reasoner, base_dir, stands_on).to(device)


def make_reasoner(
    config: ModelConfig,
    language_model: Any,
    tokenizer: PreTrainedTokenizerBase,
    perception: Perception,
    adapter: str = ADAPTER,
) -> Reasoner:
    """A reasoner with fresh heads around a language model that has its LoRA layers."""
    return Reasoner(
        config.reasoner,
        language_model,
        tokenizer,
        perception.width,
        perception.embed_dim,
        config.evidence.adapter_width,
        len(EVIDENCE_STATES),
        sum(perception.level_widths),
        adapter,
    )


def default_device(config: ModelConfig) -> str:
    """Where a preset runs unless told otherwise: the embedded one on the CPU, those with a base on a GPU, if any."""
    return "cuda" if config.reasoner.base is not None and torch.cuda.is_available() else "cpu"


def load_model(folder: Path, device: str | None = None) -> SkinClipVL:
    """The model saved in `folder`, in eval mode.

    Args:
        device: see `assemble`.

    Raises CheckpointError saying what is missing or does not fit, MissingWeights for what the preset is built on.
    """
    config = read_config(folder)
    reasoner = config.reasoner  # its base first: what is missing is said before gigabytes are read
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
            raise CheckpointError(_mismatch("perception.safetensors", expected, set(state)))
        perception.tower.load_weights(state)
    perception.freeze()
    if reasoner.base is not None:
        stands_on = Foundation.of(base, perception)
        if problem := read_foundation(folder).differences(stands_on):
            raise CheckpointError(f"{folder} does not fit: it was {problem}")
    model = assemble(config, perception, base, load_tokenizer(folder / "tokenizer"), device)
    model.load_weights(folder)
    return model.eval()


def read_config(folder: Path) -> ModelConfig:
    """What the checkpoint in `folder` is. Raises CheckpointError naming what of it is missing."""
    if not (folder / "config.yaml").exists():
        raise CheckpointError(f"{folder} is no whole checkpoint: config.yaml is missing")
    config = load_yaml(ModelConfig, folder / "config.yaml")
    parts = ["heads.safetensors", "tokenizer"]
    parts += ["adapter.safetensors"] if config.reasoner.lora.r else []
    parts += [foundation.FILE] if config.reasoner.base is not None else []
    for name in parts:
        if not (folder / name).exists():
            raise CheckpointError(f"{folder} is no whole checkpoint: {name} is missing")
    return config


def read_foundation(folder: Path) -> Foundation:
    """What the adapter in `folder` was made for. Raises CheckpointError where it does not say so."""
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


def weights_sha256(folder: Path) -> str:
    """One hash over all weight files of a checkpoint, names included."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
