"""The whole model: perception, evidence and reasoning, and how it is put together from its parts.

`skinclip.model.checkpoint` saves and loads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

from skinclip.core.config import ModelConfig, ReasonerConfig
from skinclip.core.vocabulary import DIAGNOSES, EVIDENCE_STATES
from skinclip.language.prompt import Prompts
from skinclip.model.allocator import release_large_blocks
from skinclip.model.errors import CheckpointError
from skinclip.model.evidence import Evidence
from skinclip.model.finders import feature_width, make_evidence_finder
from skinclip.model.foundation import Foundation
from skinclip.model.perception import LAST, Perception, VisualTokens
from skinclip.model.qwen import ADAPTER, add_lora, load_language_model, quantize_to, qwen_config
from skinclip.model.reasoner import InputWidths, Reasoner, Reasoning
from skinclip.model.tokenizer import mini_tokenizer

NEVER = -30.0  # the bias of a state that the model does not know: its probability is below 1e-6 whatever is seen
NO_LOGIT = -1e4  # in training, where a loss needs finite numbers, of a diagnosis that the model does not know
STATE_AXES = {  # of `heads` tensors, those with a place for every state, and on which axis
    "evidence.bias": -1,
    "reasoner.evidence_projector.state": 0,
    "reasoner.checklist.weight": 1,
}


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
        self.known = config.known
        self.evidence = make_evidence_finder(config.evidence, perception, len(EVIDENCE_STATES))
        with torch.no_grad():
            self.evidence.bias[..., list(self.known.unknown_states)] = NEVER
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
        known = list(self.known.states)  # alone: each direction depends on all of them
        own = self.evidence.directions(states[known])  # in the part of the joint space that maps are read in
        directions = states.new_zeros(len(states), own.shape[1]).index_copy(
            0, torch.tensor(known, device=states.device), own
        )
        return {
            "description_bank": bank,  # [C, P, E]
            "descriptions": F.normalize(bank.mean(1), dim=-1),  # [C, E]
            "state_embeddings": directions,  # [K, E], 0 for states that are not known
        }

    @torch.no_grad()
    def perceive(self, photos: Tensor, flips: bool = False, own_too: bool = True, look: int = LAST) -> VisualTokens:
        """[B, 3, side, side] in 0..1 -> VisualTokens; never any gradient, the towers are frozen.

        Args:
            photos: `config.photo_side` wide where the preset keeps Qwen's own vision tower, else of any side.
            flips: average over the photo and its mirror images.
            own_too: whether Qwen's own vision tower encodes the photo as well, where the preset keeps it.
            look: which look it is; see `Perception.forward`.
        """
        return self.perceive_with_gradients(photos, flips, own_too, look)

    def perceive_with_gradients(
        self, photos: Tensor, flips: bool = False, own_too: bool = True, look: int = LAST
    ) -> VisualTokens:
        """`perceive` for attribution: gradients reach the photos through CLIP, not through Qwen's own tower."""
        photos = photos.to(self.device)
        own = self.reasoner.own_tokens(photos) if own_too else None
        if self.config.reasoner.own_vision:
            side = self.config.perception.image_size
            photos = F.interpolate(photos, (side, side), mode="bilinear", antialias=True, align_corners=False)
        visual = self.perception.from_all_sides(photos, look) if flips else self.perception(photos, look)
        return replace(visual, own=own)

    @property
    def device(self) -> torch.device:
        return self.reasoner.device

    def find_evidence(self, visual: VisualTokens, style: Tensor | None = None) -> Evidence:
        """The evidence in photos, with what a readout makes of it where the model has one.

        Args:
            style: [B, S] of the photos in which the evidence lies, where `visual` is of others beside them too.
        """
        visual = visual.to(self.device)
        evidence = self.evidence.find(visual, self.state_embeddings)
        if self.reasoner.readout is None:
            return evidence
        style = visual.style if style is None else style.to(self.device)
        return replace(evidence, read=self.reasoner.readout.criterion_scores(style, evidence.scores))

    def reason(
        self,
        prompts: Prompts,
        visual: VisualTokens | None,
        evidence: Evidence | None,
        show_clip: Tensor | None = None,
        descriptions: Tensor | None = None,
        keep: bool = False,
    ) -> Reasoning:
        """The answer, by the model's own descriptions unless others [C, E] are given; see `Reasoner.forward`.

        The logit of a diagnosis that the model does not know is -inf, in training a finite number as good as that.

        What is given may lie on any device; the answer lies on the model's.
        """
        there = self.device
        reasoning = self.reasoner(
            prompts.to(there),
            None if visual is None else visual.to(there),
            None if evidence is None else evidence.to(there),
            self.descriptions if descriptions is None else descriptions.to(there),
            None if show_clip is None else show_clip.to(there),
            keep,
        )
        return self._without_unknown(reasoning)

    def _without_unknown(self, reasoning: Reasoning) -> Reasoning:
        """The answer without the diagnoses that the model does not know."""
        if not self.known.unknown_columns:
            return reasoning
        unknown = torch.zeros(reasoning.logits.shape[1], dtype=torch.bool, device=reasoning.logits.device)
        unknown[list(self.known.unknown_columns)] = True
        fill = NO_LOGIT if self.training else -torch.inf
        spelled = None if reasoning.spelled is None else reasoning.spelled.masked_fill(unknown, fill)
        read = None if reasoning.read is None else reasoning.read.masked_fill(unknown, fill)
        return replace(reasoning, logits=reasoning.logits.masked_fill(unknown, fill), spelled=spelled, read=read)

    def heads(self) -> dict[str, Tensor]:
        """Tensors that stage 2 trains beside LoRA, by name."""
        own = {k: v for k, v in self.reasoner.state_dict().items() if not k.startswith("language_model.")}
        return {f"evidence.{k}": v for k, v in self.evidence.state_dict().items()} | {
            f"reasoner.{k}": v for k, v in own.items()
        }

    def load_heads(self, state: Mapping[str, Tensor]) -> None:
        """Takes over what `heads` gives, also of a checkpoint from before the vocabulary had states that it lacks.

        Raises CheckpointError where names are missing or unknown, or a shape does not fit.
        """
        own = self.heads()
        if set(own) != set(state):
            raise CheckpointError(mismatch("heads.safetensors", set(own), set(state)))
        state = {name: self._padded(name, value, own[name]) for name, value in state.items()}
        for name, part in (("evidence.", self.evidence), ("reasoner.", self.reasoner)):
            values = {k.removeprefix(name): v for k, v in state.items() if k.startswith(name)}
            part.load_state_dict(values, strict=False)  # strictness was checked above, language model aside

    def _padded(self, name: str, value: Tensor, own: Tensor) -> Tensor:
        """A tensor of `heads` with a place for every state. Raises CheckpointError where its shape does not fit."""
        if value.shape == own.shape:
            return value
        states, axis = list(self.known.states), STATE_AXES.get(name)
        if axis is None or value.shape != own.index_select(axis, torch.tensor(states, device=own.device)).shape:
            raise CheckpointError(
                f"heads.safetensors does not fit the model: {name} is {list(value.shape)}, expected {list(own.shape)}; "
                "use a checkpoint made for this preset and version, with the config.yaml that belongs to it"
            )
        fill = NEVER if name == "evidence.bias" else 0.0
        return torch.full_like(own, fill, dtype=value.dtype).index_copy(
            axis, torch.tensor(states, device=own.device), value.to(own.device)
        )

    def trainable(self) -> dict[str, list[nn.Parameter]]:
        """Parameters that stage 2 trains: "lora" and "heads"."""
        lora = [p for p in self.reasoner.language_model.parameters() if p.requires_grad]
        own = [p for n, p in self.reasoner.named_parameters() if not n.startswith("language_model.")]
        return {"lora": lora, "heads": [*own, *self.evidence.parameters()]}

    def replaced_by(self, other: SkinClipVL) -> None:
        """Activates the model that `checkpoint.load_adapter` returned; this one cannot answer any more."""
        language_model = self.reasoner.language_model
        language_model.set_adapter(other.reasoner.adapter)
        language_model.delete_adapter(self.reasoner.adapter)


def mismatch(part: str, expected: set[str], given: set[str]) -> str:
    """The words for a file whose tensors are not those that the model has."""
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
        release_large_blocks()
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
    widths = InputWidths(
        tokens=perception.width,
        embedding=perception.embed_dim,
        adapter=feature_width(config.evidence, config.perception),
        states=len(EVIDENCE_STATES),
        known=config.known,
        style=perception.style_width,
    )
    return Reasoner(config.reasoner, language_model, tokenizer, widths, adapter)


def default_device(config: ModelConfig) -> str:
    """The device of a preset by default: the embedded one on the CPU, those with a base on a GPU, if any."""
    return "cuda" if config.reasoner.base is not None and torch.cuda.is_available() else "cpu"
