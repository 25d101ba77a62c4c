"""Configuration: frozen, composed dataclasses; presets are values, not branches; YAML in and out.

A preset says what the model is (`ModelConfig`); a recipe says how it is trained (`TrainConfig`). Both are stored
with every checkpoint, so that a checkpoint says by itself what it is and how it was made.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class PerceptionConfig:
    """The frozen image-text tower.

    `family` names its class (`skinclip.model.towers`), `model` the architecture within the family. `pretrained` is a
    weights tag or a local path; None means that the checkpoint carries the tower.
    `levels` are the intermediate maps taken from the image tower, fine to coarse, as `forward_intermediates` counts
    them; `token_levels` are those of them that are resized to the finest of them and concatenated into patch tokens.
    `flips`: an Assessment averages what the tower sees of the photo and its three mirror images.
    """

    family: str = "open_clip"
    model: str = "derm-clip-mini"
    pretrained: str | None = None
    image_size: int = 160
    mean: tuple[float, float, float] = (127 / 255, 127 / 255, 127 / 255)
    std: tuple[float, float, float] = (128 / 255, 128 / 255, 128 / 255)
    levels: tuple[int, ...] = (0, 1, 2, 3, 4)
    token_levels: tuple[int, ...] = (2, 3, 4)
    flips: bool = True


@dataclass(frozen=True)
class EvidenceConfig:
    """`scale` multiplies cosine similarities into logits; `sharpness` is the exponent of the log-mean-exp pooling."""

    mask_width: int = 24
    mask_size: int = 80
    scale: float = 10.0
    sharpness: float = 2.0
    adapter_width: int = 256
    adapter_dropout: float = 0.3


@dataclass(frozen=True)
class LoraConfig:
    r: int = 16
    alpha: int = 32
    dropout: float = 0.05
    # Language layers only: a plain list of suffixes would also hit the vision tower's MLPs.
    target_modules: str = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


@dataclass(frozen=True)
class QwenArchitecture:
    """The shape of a Qwen2.5-VL made here rather than downloaded (the mini preset's reasoner)."""

    hidden_size: int = 256
    intermediate_size: int = 768
    layers: int = 6
    heads: int = 8
    kv_heads: int = 2
    mrope_section: tuple[int, int, int] = (4, 6, 6)


@dataclass(frozen=True)
class PromptConfig:
    """The words around photo, evidence and patient context; the big presets use Qwen's own chat template."""

    opening: str = "<|im_start|> user"
    closing: str = " <|im_end|> <|im_start|> assistant"


@dataclass(frozen=True)
class ReasonerConfig:
    """`base` is a hub id or directory of Qwen2.5-VL weights; None means `architecture`, carried by the checkpoint.

    `clip_grid` is the side of the square that CLIP tokens are pooled to before the language model reads them;
    `clip_dropout` the share of training photos whose CLIP tokens are hidden, so that evidence must carry the answer;
    `answer_dropout` acts on the answer's hidden state, or the head would learn photos that the tower knows by heart.
    """

    base: str | None = None
    revision: str | None = None
    architecture: QwenArchitecture = field(default_factory=QwenArchitecture)
    lora: LoraConfig = field(default_factory=LoraConfig)
    quantize: bool = True
    clip_grid: int = 5
    clip_dropout: float = 0.25
    answer_dropout: float = 0.5
    prompt: PromptConfig = field(default_factory=PromptConfig)
    own_vision: bool = False  # Qwen's own vision tower, frozen, reads the photo beside CLIP
    own_side: int = 448  # pixels at which it does; a multiple of 28
    cpu_weights: str = "fp32"  # how a CPU holds the NF4 layers: unpacked to fp32, or "int8" or "nf4" to save memory
    paraphrases: int = 64  # texts true to the findings among which the rationale is decoded; 0 decodes freely
    max_new_tokens: int = 96
    logit_scale: float = 10.0


@dataclass(frozen=True)
class ModelConfig:
    preset: str = "mini"
    perception: PerceptionConfig = field(default_factory=PerceptionConfig)
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    reasoner: ReasonerConfig = field(default_factory=ReasonerConfig)

    @property
    def photo_side(self) -> int:
        """Pixels at which the model takes a photo; CLIP reads it shrunk where Qwen's own tower wants it larger."""
        own = self.reasoner.own_side if self.reasoner.own_vision else 0
        return max(own, self.perception.image_size)

    @property
    def batch(self) -> int:
        """Photos looked at together where many are to be: the memory budget of a big preset is that of one."""
        return 32 if self.reasoner.base is None else 1


@dataclass(frozen=True)
class Stage0Config:
    """The contrastive training of the compact derm-CLIP.

    `phases`: (input side in pixels, epochs) in turn, under one cosine of the learning rate. Small photos first: they
    cost half as much, and resolution is not what is missing early on.
    """

    phases: tuple[tuple[int, int], ...] = ((96, 12), (128, 9))
    batch_size: int = 64
    lr: float = 1.5e-3
    weight_decay: float = 0.02
    draw_power: float = 0.35  # a photo of a class of n is drawn with probability ~ n^-draw_power
    criteria_share: float = 0.10  # of the photos drawn, those whose criteria are labelled
    mix_share: float = 0.7  # batches under mixup or cutmix
    label_smoothing: float = 0.05
    ema: float = 0.998
    paraphrases: int = 3  # texts a diagnosis that a batch is contrasted with
    held_out: float = 0.10  # training lesions that stage 0 never sees
    mask_photos: int = 24  # photos of a batch whose lesion mask is learnt from
    w_mask: float = 0.5
    w_criteria: float = 0.5
    w_text_to_image: float = 0.25


@dataclass(frozen=True)
class Stage1Config:
    """The language of rationales, learnt by the whole small reasoner from texts alone, before quantization."""

    steps: int = 300
    batch_size: int = 32
    lr: float = 1e-3


@dataclass(frozen=True)
class MaskConfig:
    """The lesion mask over a published tower, learnt alone; stage 0 learns it beside the tower it makes."""

    steps: int = 400
    batch_size: int = 16
    lr: float = 1e-3
    weight_decay: float = 0.02
    augmentation: float = 1.0  # strength
    log_every: int = 10
    save_every: int = 100


@dataclass(frozen=True)
class Stage2Config:
    """Evidence adapter, projector, LoRA and heads under CFA, over the frozen tower.

    A step looks at `batch_size + second_views` views. How many of them go through the language model at a time is
    `micro_batch`: it decides the memory needed, not the loss. `cached_views` keeps on disk what the frozen towers see
    of that many fixed views a photo.
    """

    steps: int = 600
    batch_size: int = 32
    second_views: int = 16  # photos of a batch that are seen under two augmentations
    rationale_targets: int = 8  # photos of a batch that also carry a rationale
    lr: float = 7e-4
    lora_rate: float = 1.0  # LoRA learns at this part of it
    weight_decay: float = 0.05
    held_out_repeat: float = 2.0  # how much likelier a lesion unseen by stage 0 is drawn
    draw_power: float = 0.35
    criteria_share: float = 0.3  # of the photos drawn, those whose criteria are labelled
    teacher_forcing: float = 0.5  # of the photos with labelled criteria, those where the reasoner reads the labels
    augmentation: float = 0.7  # strength
    paraphrases: int = 64  # texts a diagnosis among which descriptions are drawn
    micro_batch: int = 0  # views at a time; 0 is all at once
    gradient_checkpointing: bool = False  # language layers are computed twice, and need a fraction of the memory
    cached_views: int = 0  # 0 draws and looks at every view anew
    log_every: int = 5
    save_every: int = 50

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that do not go together."""
        for name in ("second_views", "rationale_targets"):
            if not 0 <= getattr(self, name) <= self.batch_size:
                raise ValueError(f"{name} must lie in 0 to batch_size ({self.batch_size}), got {getattr(self, name)}")
        for name in ("micro_batch", "cached_views"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.cached_views == 1 and self.second_views:
            raise ValueError("second views need another view of the photo: cached_views must be 0, or 2 or more")


@dataclass(frozen=True)
class LossConfig:
    """Weights and hyperparameters of CFA; a part whose weight is 0 is not computed."""

    w_align: float = 0.5
    w_cal: float = 3.0
    w_con: float = 0.5
    w_lang: float = 1.0
    gamma: float = 0.0
    beta: float = 0.0
    tau: float = 1.0
    label_smoothing: float = 0.0
    w_contrast: float = 1.0
    w_criteria: float = 3.0
    w_outside: float = 1.0
    contrast_temperature: float = 0.07
    outside_eps: float = 0.01
    calibration_queue: int = 512
    calibration_temperature: float = 1.0
    w_views: float = 1.0
    w_spelled: float = 1.0

    def __post_init__(self) -> None:
        """Raises ValueError for a negative weight; the parts check their own hyperparameters."""
        for name, value in dataclasses.asdict(self).items():
            if name.startswith("w_") and value < 0:
                raise ValueError(f"{name} must not be negative, got {value}")


@dataclass(frozen=True)
class TrainConfig:
    """A recipe. Presets that carry their own tower and language model go through stages 0 and 1, those built on
    published weights learn the lesion mask instead; stage 2 is the same for all."""

    seed: int = 0
    photo_size: int = 176  # side at which photos are kept in memory for augmentation
    share: float = 1.0  # of the training lesions, chosen by a hash of their names; less than 1 measures scarcity
    stage0: Stage0Config = field(default_factory=Stage0Config)
    stage1: Stage1Config = field(default_factory=Stage1Config)
    masks: MaskConfig = field(default_factory=MaskConfig)
    stage2: Stage2Config = field(default_factory=Stage2Config)
    loss: LossConfig = field(default_factory=LossConfig)


_OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
_OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
_VIT_L_14 = PerceptionConfig(
    model="ViT-L-14-quickgelu",  # as the OpenAI weights were trained
    pretrained="openai",
    image_size=224,
    mean=_OPENAI_MEAN,
    std=_OPENAI_STD,
    levels=(5, 11, 17, 22),
    token_levels=(22,),
    flips=False,
)


_QWEN_CHAT = PromptConfig(
    opening=(
        "<|im_start|>system\nYou describe dermoscopic photos of skin lesions to a dermatologist. Say nothing that the "
        "listed findings do not support. Research use only.<|im_end|>\n<|im_start|>user\n"
    ),
    closing="<|im_end|>\n<|im_start|>assistant\n",
)


def _qwen(preset: str, base: str, revision: str | None, lora: LoraConfig) -> ModelConfig:
    reasoner = ReasonerConfig(
        base=base,
        revision=revision,
        lora=lora,
        clip_grid=8,
        prompt=_QWEN_CHAT,
        own_vision=True,
        cpu_weights="int8",  # unpacked to fp32 the 3B model alone is 18 GB, and slower: a token reads all of it
        max_new_tokens=160,
    )
    return ModelConfig(preset=preset, perception=_VIT_L_14, reasoner=reasoner)


PRESETS: dict[str, ModelConfig] = {
    "mini": ModelConfig(),
    # r = 16 would train 1.16 % of all parameters, more than the 1 % that is promised; 12 is the largest that does not
    "qwen-3b": _qwen(
        "qwen-3b",
        "Qwen/Qwen2.5-VL-3B-Instruct",
        "66285546d2b821cf421d4f5eb2576359d3770cd3",
        LoraConfig(r=8, alpha=16),
    ),
    "qwen-7b": _qwen(
        "qwen-7b", "Qwen/Qwen2.5-VL-7B-Instruct", "cc594898137f460bfe9f0759e9844b3ce807cfb5", LoraConfig()
    ),
}


def preset(name: str) -> ModelConfig:
    """The preset of that name. Raises ValueError naming the presets there are."""
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain dicts and lists, ready for YAML or JSON."""
    return {
        f.name: to_dict(v) if dataclasses.is_dataclass(v) else _plain(v)
        for f in dataclasses.fields(config)
        for v in [getattr(config, f.name)]
    }


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, (tuple, list)) else value


def from_dict(cls: type, values: dict[str, Any]) -> Any:
    """The config of class `cls` again; fields left out keep their default.

    Raises ValueError for a field that `cls` does not have: a typing error in a recipe must not pass silently.
    """
    hints = typing.get_type_hints(cls)
    values = _renamed(cls.__name__, values, set(hints))
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(hints)}")
    return cls(
        **{k: from_dict(hints[k], v) if dataclasses.is_dataclass(hints[k]) else _frozen(v) for k, v in values.items()}
    )


# Names that fields had in checkpoints and recipes of version 0.1: those still load.
_FORMER_NAMES: dict[str, str] = {
    "wordings": "paraphrases",
    "stories": "rationale_targets",
    "told_criteria": "teacher_forcing",
}


def _renamed(config: str, values: dict[str, Any], fields: set[str]) -> dict[str, Any]:
    """The values under today's names. Raises ValueError where a field is given under its old and its new name."""
    renamed: dict[str, Any] = {}
    for name, value in values.items():
        today = _FORMER_NAMES.get(name, name) if name not in fields else name
        today = today if today in fields else name
        if today in renamed:
            raise ValueError(f"{config}: {today} is given twice, once under its former name {name}; keep {today}")
        renamed[today] = value
    return renamed


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def save_yaml(config: Any, path: Path) -> None:
    path.write_text(yaml.safe_dump(to_dict(config), sort_keys=False))


def load_yaml(cls: type, path: Path) -> Any:
    """Reads a config written by `save_yaml`. Raises ValueError for unknown fields or a file that is no mapping."""
    values = yaml.safe_load(path.read_text())
    if not isinstance(values, dict):
        raise ValueError(f"{path} does not hold a mapping of fields; see `skinclip.core.config.{cls.__name__}`")
    return from_dict(cls, values)
