"""A Qwen2.5-VL directory laid out as the hub lays it out, and a CLIP to go with it, made on the spot.

The true architecture in tiny dimensions with random weights in several shards, a byte-pair tokenizer trained here on
the project's own sentences in the form in which Qwen's is stored, the true image processor's settings.
"""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2TokenizerFast, Qwen2VLImageProcessor
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from skinclip.calibration.calibrator import Calibrator, StyleSample
from skinclip.calibration.outputs import DERMOSCOPY, LabelledOutputs
from skinclip.core.assessment import ModelInfo
from skinclip.core.config import LoraConfig, ModelConfig, PerceptionConfig, preset
from skinclip.core.vocabulary import CRITERION_CODES, DIAGNOSES
from skinclip.imaging.transform import PhotoTransform
from skinclip.language.rationale import random_example, vocabulary, write_rationale
from skinclip.model.checkpoint import save_model
from skinclip.model.perception import Perception
from skinclip.model.skinclip_vl import SkinClipVL, assemble
from skinclip.model.tokenizer import load_tokenizer
from skinclip.pipeline.assessor import Assessor

SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
ROWS = 448  # of the embedding: more than the tokenizer has, as in the published models
CLIP = "tiny-vit-for-tests"
OWN_SIDE = 112  # a window of Qwen's tower, and more than one


def tiny_base(folder: Path, seed: int = 0, hidden: int = 64, layers: int = 2, tied: bool = True) -> Path:
    """Writes the directory and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_pair_tokenizer()
    tokenizer.save_pretrained(folder)
    number = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": ROWS,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "type": "default",
                "mrope_section": [hidden // 32, hidden // 32 + 1, hidden // 8 - 2 * (hidden // 32) - 1],
                "rope_theta": 1_000_000.0,
            },
            "tie_word_embeddings": tied,
            "bos_token_id": None,
            "eos_token_id": number("<|im_end|>"),
            "pad_token_id": number("<|endoftext|>"),
        },
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": hidden,
            "window_size": 56,
            "fullatt_block_indexes": [2],
        },
        image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
        tie_word_embeddings=tied,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="200KB")
    Qwen2VLImageProcessor().save_pretrained(folder)
    return folder


def byte_pair_tokenizer() -> Qwen2TokenizerFast:
    """A byte-pair tokenizer in the form of Qwen's, trained on rationales; its words are in pieces, as with any."""
    core = Tokenizer(BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    rng = random.Random(0)
    texts = list(vocabulary())
    for _ in range(200):
        _, leading, runner_up, findings = random_example(rng)
        texts.append(write_rationale(leading, runner_up, findings, rng))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core.train_from_iterator(texts, BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    stored = json.loads(core.to_str())["model"]
    tokenizer = Qwen2TokenizerFast(vocab=stored["vocab"], merges=[tuple(m) for m in stored["merges"]])
    tokenizer.add_special_tokens({"additional_special_tokens": [t for t in SPECIAL if t != "<|endoftext|>"]})
    return tokenizer


def tiny_clip(folder: Path) -> Path:
    """Registers the tower with open_clip, writes random weights and returns their file."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 3, "width": 48, "head_width": 16, "patch_size": 4},
        "text_cfg": {"context_length": 48, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    (folder / f"{CLIP}.json").write_text(json.dumps(shape))
    weights = registered_clip(folder)
    torch.manual_seed(5)
    save_file({k: v.contiguous() for k, v in open_clip.create_model(CLIP).state_dict().items()}, weights)
    return weights


def registered_clip(folder: Path) -> Path:
    """Registers what `tiny_clip` wrote to the folder and returns its weights, all of it only read.

    For further processes: where each wrote it anew, one would read what another has half written.
    """
    open_clip.add_model_config(folder / f"{CLIP}.json")
    return folder / "open_clip_model.safetensors"


def tiny_preset(base: Path, clip: Path, name: str = "qwen-3b") -> ModelConfig:
    """The preset `name` on a tiny base and a tiny CLIP, its rationales decoded among true texts."""
    config = preset(name)
    perception = PerceptionConfig(
        model=CLIP, pretrained=str(clip), image_size=64, levels=(0, 1, 2), token_levels=(2,), flips=False
    )
    return dataclasses.replace(
        config,
        perception=perception,
        evidence=dataclasses.replace(config.evidence, adapter_width=32),
        reasoner=dataclasses.replace(
            config.reasoner,
            base=str(base),
            revision=None,
            own_side=OWN_SIDE,
            clip_grid=4,
            lora=LoraConfig(r=2, alpha=4, dropout=0.0),
            paraphrases=64,  # random weights babble: a free text would be thrown away and decoded anew
        ),
    )


def tiny_qwen(config: ModelConfig, seed: int = 2) -> SkinClipVL:
    """The model of a `tiny_preset`, its adapter and heads random, so that each seed answers differently."""
    torch.manual_seed(seed)
    base = Path(str(config.reasoner.base))
    model = assemble(config, Perception(config.perception).freeze(), base, load_tokenizer(base))
    for name, parameter in model.reasoner.language_model.named_parameters():
        if "lora_B" in name:  # LoRA starts as the identity; a test of it needs it to do something
            torch.nn.init.normal_(parameter, std=0.05)
    torch.nn.init.normal_(model.reasoner.checklist.weight, std=0.2)  # and so do the checklist's directions
    return model.eval()


def tiny_checkpoint(folder: Path, config: ModelConfig, seed: int = 2) -> Path:
    """A whole checkpoint of a `tiny_preset` that abstains from no photo and cites something of most."""
    model = tiny_qwen(config, seed)
    rng = np.random.default_rng(seed)
    c = len(DIAGNOSES)
    style = rng.normal(size=(8, sum(model.perception.level_widths)))
    prior = rng.dirichlet(np.full(c, 9.0))
    photos = LabelledOutputs.of_diagnoses(rng.normal(size=(40, c)), np.arange(40) % c)
    trust = Calibrator.fit(photos, {DERMOSCOPY: StyleSample(style, style)}, prior, np.zeros(c))
    usual = dataclasses.replace(trust.shift, calibration_distances=np.array([np.inf], np.float32))
    trust = dataclasses.replace(trust, by_kind={DERMOSCOPY: dataclasses.replace(trust.first, shift=usual)})
    thresholds = {code: round(float(rng.uniform(0.05, 0.3)), 3) for code in CRITERION_CODES}
    save_model(model, folder)
    info = ModelInfo(config.preset, "0", "0" * 64)
    Assessor(model, PhotoTransform(config.photo_side), trust, thresholds, info).save_calibration(folder)
    return folder
