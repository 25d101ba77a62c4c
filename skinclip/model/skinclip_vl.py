"""The whole model, and the factory that returns it together with its transform.

A checkpoint is a directory:

    config.yaml              what the model is (`ModelConfig`)
    perception.safetensors   the CLIP model, where the preset carries its own
    heads.safetensors        evidence finder and the reasoner's own layers
    adapter.safetensors      LoRA
    tokenizer/               the reasoner's tokenizer
    reasoner/                Qwen2.5-VL in NF4, where the preset carries its own
    trust.safetensors        calibration, sets, shift, referral; fitted on the calib split
    findings.json            score threshold of every criterion state
    recipe.yaml, README.md   how it was trained, model card
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from skinclip.clinical import DIAGNOSES, EVIDENCE_STATES
from skinclip.config import ModelConfig, ReasonerConfig, load_yaml, save_yaml
from skinclip.config import preset as preset_config
from skinclip.model.allocator import give_back_large_blocks
from skinclip.model.evidence import Evidence, EvidenceFinder, told_apart
from skinclip.model.perception import Perception, VisualTokens
from skinclip.model.prompt import Prompts, load_tokenizer, mini_tokenizer
from skinclip.model.reasoner import Reasoner, Reasoning, add_lora, load_language_model, quantize_to, qwen_config
from skinclip.model.transform import PhotoTransform

ASSETS = Path(__file__).resolve().parents[2] / "assets"


class CheckpointError(RuntimeError):
    """A checkpoint that is incomplete or made for another model; the message says which part."""


class SkinClipVL(nn.Module):
    """Perception, evidence and reasoning; `perceive`, `find_evidence` and `reason` are the steps of the path."""

    description_bank: Tensor
    descriptions: Tensor
    state_embeddings: Tensor

    def __init__(self, config: ModelConfig, perception: Perception, reasoner: Reasoner, base_dir: Path | None) -> None:
        super().__init__()
        self.config = config
        self.perception = perception
        self.evidence = EvidenceFinder(
            config.evidence, perception.width, perception.embed_dim, perception.level_widths, len(EVIDENCE_STATES)
        )
        self.reasoner = reasoner
        self.base_dir = base_dir  # where the language model's own weights lie
        self.embed_vocabulary()

    @torch.no_grad()
    def embed_vocabulary(self) -> None:
        """Embeds all descriptions once: they change only with the text tower, which is frozen."""
        bank = torch.stack([self.perception.embed_texts(d.descriptions) for d in DIAGNOSES])
        states = self.perception.embed_texts([s.descriptions[0] for s in EVIDENCE_STATES])
        self.register_buffer("description_bank", bank, persistent=False)  # [C, P, E]
        self.register_buffer("descriptions", F.normalize(bank.mean(1), dim=-1), persistent=False)  # [C, E]
        self.register_buffer("state_embeddings", told_apart(states), persistent=False)  # [K, E]

    @torch.no_grad()
    def perceive(self, photos: Tensor, flips: bool = False) -> VisualTokens:
        """[B, 3, side, side] in 0..1 -> VisualTokens; never any gradient, the tower is frozen.

        Args:
            flips: average over the photo and its mirror images.
        """
        return self.perception.from_all_sides(photos) if flips else self.perception(photos)

    def find_evidence(self, seen: VisualTokens) -> Evidence:
        return self.evidence.find(seen, self.state_embeddings)

    def reason(
        self,
        prompts: Prompts,
        seen: VisualTokens | None,
        evidence: Evidence | None,
        show_clip: Tensor | None = None,
        descriptions: Tensor | None = None,
    ) -> Reasoning:
        """The answer, by the model's own descriptions unless others [C, E] are given; see `Reasoner.forward`."""
        return self.reasoner(
            prompts, seen, evidence, self.descriptions if descriptions is None else descriptions, show_clip
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
        save_file(_plain(self.reasoner.adapter_state()), out / "adapter.safetensors")
        self.reasoner.tokenizer.save_pretrained(out / "tokenizer")
        if self.config.perception.pretrained is None:
            tower = self.perception.clip.state_dict()
            save_file(
                _plain({k: v.half() if v.ndim > 1 else v for k, v in tower.items()}), out / "perception.safetensors"
            )
        if self.config.reasoner.base is None and self.base_dir is not None and self.base_dir != out / "reasoner":
            shutil.copytree(self.base_dir, out / "reasoner", dirs_exist_ok=True)


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
    config: ModelConfig, perception: Perception, base: str | Path, tokenizer: PreTrainedTokenizerBase
) -> SkinClipVL:
    """The model from its parts: a tower, a language model's directory or hub id, and a tokenizer."""
    reasoner_config: ReasonerConfig = config.reasoner
    if reasoner_config.base is not None:
        give_back_large_blocks()
    language_model = load_language_model(
        base, reasoner_config.quantize, reasoner_config.revision, cpu_weights=reasoner_config.cpu_weights
    )
    language_model.requires_grad_(False)
    reasoner = Reasoner(
        reasoner_config,
        add_lora(language_model, reasoner_config),
        tokenizer,
        perception.width,
        perception.embed_dim,
        config.evidence.adapter_width,
        len(EVIDENCE_STATES),
        sum(perception.level_widths),
    )
    return SkinClipVL(config, perception, reasoner, Path(base) if Path(base).is_dir() else None)


def load_model(folder: Path) -> SkinClipVL:
    """The model saved in `folder`, in eval mode. Raises CheckpointError saying what is missing or does not fit."""
    for name in ("config.yaml", "heads.safetensors", "adapter.safetensors", "tokenizer"):
        if not (folder / name).exists():
            raise CheckpointError(f"{folder} is no whole checkpoint: {name} is missing")
    config = load_yaml(ModelConfig, folder / "config.yaml")
    perception = Perception(config.perception)
    if config.perception.pretrained is None:
        state = {
            k: v.float() if v.is_floating_point() else v
            for k, v in load_file(folder / "perception.safetensors").items()
        }
        expected = set(perception.clip.state_dict())
        if expected != set(state):
            raise CheckpointError(_mismatch("perception.safetensors", expected, set(state)))
        perception.clip.load_state_dict(state)
    perception.freeze()
    base = config.reasoner.base or folder / "reasoner"
    model = assemble(config, perception, base, load_tokenizer(folder / "tokenizer"))
    model.load_heads(load_file(folder / "heads.safetensors"))
    model.reasoner.load_adapter_state(load_file(folder / "adapter.safetensors"))
    return model.eval()


def create_model(preset: str = "mini", weights: Path | None = None) -> tuple[SkinClipVL, PhotoTransform]:
    """The model of a preset and the transform that belongs to it.

    Args:
        weights: a checkpoint directory; by default the one embedded in assets/.

    Raises ValueError for an unknown preset, CheckpointError where its weights are not there or do not fit.
    """
    preset_config(preset)  # an unknown name is an error before anything is read
    folder = Path(weights) if weights else ASSETS / preset
    if not (folder / "config.yaml").exists():
        raise CheckpointError(
            f"there are no weights for the preset {preset!r} in {folder}; train them with "
            f"`python -m skinclip train --preset {preset}` or give a checkpoint with --weights"
        )
    model = load_model(folder)
    return model, PhotoTransform(model.config.perception.image_size)


def weights_sha256(folder: Path) -> str:
    """One hash over all weight files of a checkpoint, names included."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
