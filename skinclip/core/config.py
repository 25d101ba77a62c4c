"""Configuration: frozen, composed Pydantic dataclasses; presets are values, not branches; YAML in and out.

A preset says what the model is (`ModelConfig`); a recipe says how it is trained (`TrainConfig`). Both are stored
with every checkpoint, so that a checkpoint says by itself what it is and how it was made.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from skinclip.core.known import FIRST_CRITERIA, FIRST_DIAGNOSES, KnownVocabulary
from skinclip.core.strict_yaml import ConfigError, FieldPath, read_yaml
from skinclip.core.vocabulary import CRITERION_CODES, DIAGNOSIS_CODES

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
PartialShare = Annotated[float, Field(ge=0, lt=1)]  # all of it would leave nothing
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**62)]


@dataclass(frozen=True, config=STRICT)
class PerceptionConfig:
    """The frozen image-text tower.

    `family` names its class (`skinclip.model.towers`), `model` the architecture within the family. `pretrained` is a
    weights tag or a local path; None means that the checkpoint carries the tower. `members` counts the models of an
    ensemble.
    `levels` are the intermediate maps taken from the image tower, fine to coarse, as `forward_intermediates` counts
    them; `token_levels` are those of them that are resized to the finest of them and concatenated into patch tokens.
    `flips`: an Assessment averages what the tower sees of the photo and its three mirror images.
    `looks`: 1 looks at the photo, 2 at the lesion found in it as well (`skinclip.model.looks`); of an ensemble of two
    the first member then takes the first look, the second the other.
    """

    family: str = "open_clip"
    model: str = "derm-clip-mini"
    pretrained: str | None = None
    members: Count = 1
    image_size: Count = 160
    mean: tuple[float, float, float] = (127 / 255, 127 / 255, 127 / 255)
    std: tuple[float, float, float] = (128 / 255, 128 / 255, 128 / 255)
    levels: Annotated[tuple[Natural, ...], Field(min_length=1)] = (0, 1, 2, 3, 4)
    token_levels: Annotated[tuple[Natural, ...], Field(min_length=1)] = (2, 3, 4)
    flips: bool = True
    looks: Literal[1, 2] = 1

    def __post_init__(self) -> None:
        """Raises ValueError where looks and members do not go together."""
        if self.looks > 1 and self.members not in (1, self.looks):
            raise ValueError(f"members must be 1 or one for each of {self.looks} looks, got {self.members}")

    @property
    def member_per_look(self) -> bool:
        """True where each look is taken by a member of its own."""
        return self.looks > 1 and self.members > 1


@dataclass(frozen=True, config=STRICT)
class EvidenceConfig:
    """`kind` says what maps are read from: "adapter", patch tokens one by one, or "pyramid", all levels of the tower.

    `scale` multiplies cosine similarities into logits; `sharpness` is the exponent of the log-mean-exp pooling.
    `coarse_width` and `fine_width` are a pyramid's channels at strides 8 and 4, `mask_*` and `adapter_*` the adapter's.
    """

    kind: str = "adapter"
    coarse_width: Count = 160
    fine_width: Count = 96
    mask_width: Count = 24
    mask_size: Count = 80
    scale: Positive = 10.0
    sharpness: Positive = 2.0
    adapter_width: Count = 256
    adapter_dropout: PartialShare = 0.3


@dataclass(frozen=True, config=STRICT)
class LoraConfig:
    r: Natural = 16
    alpha: Count = 32
    dropout: PartialShare = 0.05
    # Language layers only: a plain list of suffixes would also hit the vision tower's MLPs.
    target_modules: str = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


@dataclass(frozen=True, config=STRICT)
class QwenArchitecture:
    """The shape of a Qwen2.5-VL made here rather than downloaded (the mini preset's reasoner)."""

    hidden_size: Count = 256
    intermediate_size: Count = 768
    layers: Count = 6
    heads: Count = 8
    kv_heads: Count = 2
    mrope_section: tuple[int, int, int] = (4, 6, 6)


@dataclass(frozen=True, config=STRICT)
class PromptConfig:
    """The words around photo, evidence and patient context; the big presets use Qwen's own chat template."""

    opening: str = "<|im_start|> user"
    closing: str = " <|im_end|> <|im_start|> assistant"


@dataclass(frozen=True, config=STRICT)
class ReasonerConfig:
    """`base` is a hub id or directory of Qwen2.5-VL weights; None means `architecture`, carried by the checkpoint.

    `clip_grid` is the side of the square that CLIP tokens are pooled to before the language model reads them;
    `clip_dropout` the share of training photos whose CLIP tokens are hidden, so that evidence must carry the answer;
    `answer_dropout` acts on the answer's hidden state, or the head would learn photos that the tower knows by heart.
    With `readout` the answer starts from a linear readout of the tower, and not from the similarity of its embedding
    with the descriptions; of what the language model then changes, `language_share` counts.
    """

    base: str | None = None
    revision: str | None = None
    architecture: QwenArchitecture = field(default_factory=QwenArchitecture)
    lora: LoraConfig = field(default_factory=LoraConfig)
    quantize: bool = True
    clip_grid: Count = 5
    clip_dropout: PartialShare = 0.25
    answer_dropout: PartialShare = 0.5
    prompt: PromptConfig = field(default_factory=PromptConfig)
    own_vision: bool = False  # Qwen's own vision tower, frozen, reads the photo beside CLIP
    own_side: Count = 448  # pixels at which it does; a multiple of 28
    # how a CPU holds the NF4 layers: unpacked to fp32, or "int8" or "nf4" to save memory
    cpu_weights: Literal["fp32", "int8", "nf4"] = "fp32"
    paraphrases: Natural = 64  # texts true to the findings among which the rationale is decoded; 0 decodes freely
    max_new_tokens: Count = 96
    logit_scale: Positive = 10.0
    readout: bool = False
    language_share: Share = 1.0


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """The whole model, and the part of the vocabulary that it knows.

    `diagnoses` and `criteria` are codes of `skinclip.core.vocabulary`, in its order. A new model knows all of them; a
    config file without these fields is of a checkpoint made before they were, and knows `FIRST_DIAGNOSES` and
    `FIRST_CRITERIA`.
    """

    preset: str = "mini"
    perception: PerceptionConfig = field(default_factory=PerceptionConfig)
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    reasoner: ReasonerConfig = field(default_factory=ReasonerConfig)
    diagnoses: tuple[str, ...] = DIAGNOSIS_CODES
    criteria: tuple[str, ...] = CRITERION_CODES

    def __post_init__(self) -> None:
        """Raises ValueError where `diagnoses` or `criteria` are not a part of the vocabulary in its order."""
        KnownVocabulary(self.diagnoses, self.criteria)

    @property
    def known(self) -> KnownVocabulary:
        """The part of the vocabulary that the model knows."""
        return KnownVocabulary(self.diagnoses, self.criteria)

    @property
    def photo_side(self) -> int:
        """Pixels at which the model takes a photo; CLIP reads it shrunk where Qwen's own tower wants it larger."""
        own = self.reasoner.own_side if self.reasoner.own_vision else 0
        return max(own, self.perception.image_size)

    @property
    def batch(self) -> int:
        """Photos encoded together in a batch; the memory budget of a big preset allows one."""
        return 32 if self.reasoner.base is None else 1


@dataclass(frozen=True, config=STRICT)
class Stage0Config:
    """The contrastive training of the compact derm-CLIP.

    `phases`: (input side in pixels, epochs) in turn, under one cosine of the learning rate. Small photos first: they
    cost half as much, and resolution is not what is missing early on.
    """

    phases: Annotated[tuple[tuple[Count, Count], ...], Field(min_length=1)] = ((96, 12), (128, 9))
    batch_size: Count = 64
    lr: Positive = 1.5e-3
    weight_decay: NotNegative = 0.02
    draw_power: NotNegative = 0.35  # a photo of a class of n is drawn with probability ~ n^-draw_power
    criteria_share: Share = 0.10  # of the photos drawn, those whose criteria are labelled
    mix_share: Share = 0.7  # batches under mixup or cutmix
    label_smoothing: PartialShare = 0.05
    ema: PartialShare = 0.998
    paraphrases: Natural = 3  # texts per diagnosis that a batch is contrasted with
    held_out: PartialShare = 0.10  # training lesions that stage 0 never sees
    # the sources it holds them out of, None for all; a tower that was trained elsewhere may have seen others whole
    held_out_sources: tuple[str, ...] | None = None
    mask_photos: Natural = 24  # photos of a batch whose lesion mask is learnt from
    w_mask: NotNegative = 0.5
    w_criteria: NotNegative = 0.5
    w_text_to_image: NotNegative = 0.25


@dataclass(frozen=True, config=STRICT)
class Stage1Config:
    """The language of rationales, learnt by the whole small reasoner from texts alone, before quantization."""

    steps: Count = 300
    batch_size: Count = 32
    lr: Positive = 1e-3


@dataclass(frozen=True, config=STRICT)
class MaskConfig:
    """The lesion mask over a published tower, learnt alone; stage 0 learns it beside the tower it makes."""

    steps: Count = 400
    batch_size: Count = 16
    lr: Positive = 1e-3
    weight_decay: NotNegative = 0.02
    augmentation: NotNegative = 1.0  # strength
    log_every: Count = 10
    save_every: Count = 100


@dataclass(frozen=True, config=STRICT)
class Stage2Config:
    """Evidence adapter, projector, LoRA and heads under CFA, over the frozen tower.

    A step looks at `batch_size + second_views` views. How many of them go through the language model at a time is
    `micro_batch`: it decides the memory needed, not the loss. `cached_views` keeps on disk what the frozen towers see
    of that many fixed views per photo.
    """

    steps: Count = 600
    batch_size: Count = 32
    second_views: Natural = 16  # photos of a batch that are seen under two augmentations
    rationale_targets: Natural = 8  # photos of a batch that also carry a rationale
    lr: Positive = 7e-4
    lora_rate: NotNegative = 1.0  # LoRA learns at this part of it
    weight_decay: NotNegative = 0.05
    held_out_repeat: Positive = 2.0  # how much likelier a lesion unseen by stage 0 is drawn
    seen_share: Share = 1.0  # chance of a photo that stage 0 learnt from to be drawn, of what it would be
    draw_power: NotNegative = 0.35
    criteria_share: Share = 0.3  # of the photos drawn, those whose criteria are labelled
    teacher_forcing: Share = 0.5  # of the photos with labelled criteria, those where the reasoner reads the labels
    augmentation: NotNegative = 0.7  # strength
    paraphrases: Natural = 64  # texts per diagnosis among which descriptions are drawn
    micro_batch: Natural = 0  # views at a time; 0 is all at once
    gradient_checkpointing: bool = False  # language layers are computed twice, and need a fraction of the memory
    cached_views: Natural = 0  # 0 draws and encodes every view anew
    encode_in: Literal["float32", "bfloat16"] = "float32"  # what the frozen towers compute views in
    pair_share: Share = 0.0  # of the views of lesions with two photos, those that are seen beside the other photo
    # penalties on the squared weights of the linear readout, where the model has one
    readout_decay: Positive = 0.03
    context_decay: Positive = 0.01
    criteria_decay: Positive = 0.1
    log_every: Count = 5
    save_every: Count = 50

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that do not go together."""
        for name in ("second_views", "rationale_targets"):
            if getattr(self, name) > self.batch_size:
                raise ValueError(f"{name} must lie in 0 to batch_size ({self.batch_size}), got {getattr(self, name)}")
        if self.cached_views == 1 and self.second_views:
            raise ValueError("second views need another view of the photo: cached_views must be 0, or 2 or more")


@dataclass(frozen=True, config=STRICT)
class LossConfig:
    """Weights and hyperparameters of CFA; a part whose weight is 0 is not computed."""

    w_align: NotNegative = 0.5
    w_cal: NotNegative = 3.0
    w_con: NotNegative = 0.5
    w_lang: NotNegative = 1.0
    w_departure: NotNegative = 0.0  # from the linear readout, where the model has one
    gamma: NotNegative = 0.0
    beta: PartialShare = 0.0
    tau: NotNegative = 1.0
    by_source: bool = False  # adjust by the prior of each photo's source and kind, not by that of all photos
    label_smoothing: PartialShare = 0.0
    w_contrast: NotNegative = 1.0
    w_criteria: NotNegative = 3.0
    w_outside: NotNegative = 1.0
    contrast_temperature: Positive = 0.07
    outside_eps: Positive = 0.01
    calibration_queue: Natural = 512
    calibration_temperature: Positive = 1.0
    w_views: NotNegative = 1.0
    w_spelled: NotNegative = 1.0


@dataclass(frozen=True, config=STRICT)
class TrainConfig:
    """A recipe. Presets that carry their own tower and language model go through stages 0 and 1, those built on
    published weights learn the lesion mask instead; stage 2 is the same for all."""

    seed: Seed = 0
    photo_size: Count = 176  # side at which photos are kept in memory for augmentation
    # of the training lesions, chosen by a hash of their names; less than 1 measures scarcity
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
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
        paraphrases=0,  # it writes freely under the rules of citation; what is not sound is decoded anew
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


def from_dict(cls: type, values: dict[str, Any], source: str = "", lines: dict[FieldPath, int] | None = None) -> Any:
    """The config of class `cls` again; fields left out keep their default, or what files without them meant.

    Args:
        source: the file, for messages.
        lines: of its fields, for messages.

    Raises ConfigError naming every field that is unknown, of the wrong type or out of range.
    """
    todays = _IMPLIED.get(cls, {}) | _renamed(cls, values, (), lines or {})
    try:
        return TypeAdapter(cls).validate_json(json.dumps(todays))
    except ValidationError as error:
        raise ConfigError("; ".join(_problem(e, source, lines or {}) for e in error.errors())) from error


def _problem(error: Any, source: str, lines: dict[FieldPath, int]) -> str:
    """One of Pydantic's problems in words: file, line, field, what is wrong and what was given."""
    place: FieldPath = tuple(error["loc"])
    formers = {today: former for former, today in _FORMER_NAMES.items()}
    former = tuple(formers.get(str(part), part) for part in place)
    line = lines.get(place) or lines.get(former)
    name = ".".join(map(str, place))
    where = ", ".join(part for part in (source, f"line {line}" if line else "") if part)
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        what = f"there is no field {name}"
    else:
        given = "" if error["type"] in ("value_error", "missing") else f", got {error['input']!r}"
        what = f"{name}: {error['msg'].removeprefix('Value error, ')}{given}".removeprefix(": ")
    return f"{where}: {what}" if where else what


# Names that fields had in checkpoints and recipes of version 0.1: those still load.
_FORMER_NAMES: dict[str, str] = {
    "wordings": "paraphrases",
    "stories": "rationale_targets",
    "told_criteria": "teacher_forcing",
}


# What a file means that was written before a field was there, where that is not what a new config says.
_IMPLIED: dict[type, dict[str, Any]] = {
    ModelConfig: {"diagnoses": list(FIRST_DIAGNOSES), "criteria": list(FIRST_CRITERIA)},
}


def _renamed(cls: type, values: dict[str, Any], place: FieldPath, lines: dict[FieldPath, int]) -> dict[str, Any]:
    """The values under today's names. Raises ConfigError where a field is given under its old and its new name."""
    hints = typing.get_type_hints(cls)
    renamed: dict[str, Any] = {}
    for name, value in values.items():
        today = _FORMER_NAMES.get(name, name) if name not in hints else name
        today = today if today in hints else name
        if today in renamed:
            line = lines.get((*place, name))
            where = f"line {line}: " if line else ""
            raise ConfigError(f"{where}{today} is given twice, once under its former name; keep {today}")
        inner = hints.get(today)
        nested = isinstance(value, dict) and dataclasses.is_dataclass(inner) and isinstance(inner, type)
        renamed[today] = _renamed(inner, value, (*place, name), lines) if nested else value  # type: ignore[arg-type]
    return renamed


def save_yaml(config: Any, path: Path) -> None:
    """Writes a config, every field of it."""
    path.write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")


def load_yaml(cls: type, path: Path, defaults: dict[str, Any] | None = None) -> Any:
    """Reads a config written by `save_yaml`, or by hand.

    Args:
        defaults: values of fields that the file leaves out, where they are not those that files without them meant.

    Raises ConfigError naming the file, line and field of every problem.
    """
    file = read_yaml(path)
    if not isinstance(file.values, dict):
        raise ConfigError(f"{path} does not hold a mapping of fields; see `skinclip.core.config.{cls.__name__}`")
    return from_dict(cls, (defaults or {}) | file.values, str(path), file.lines)


def new_config(path: Path) -> ModelConfig:
    """Reads the config of a model that is to be made: where the file does not say what it knows, it knows everything.

    Raises ConfigError as `load_yaml` does.
    """
    everything = {"diagnoses": list(DIAGNOSIS_CODES), "criteria": list(CRITERION_CODES)}
    config: ModelConfig = load_yaml(ModelConfig, path, everything)
    return config
