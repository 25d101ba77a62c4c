"""Published weights that presets are built on: hub repository, revision, licence, sizes and hashes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from skinclip.core.config import preset as preset_config
from skinclip.hub.layout import MissingWeights, read_shape

CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Source:
    """A repository of published weights.

    Attributes:
        licence: its name and what it allows, shown before the download.
        size: total bytes of the downloaded files.
        weights: file name -> (size in bytes, sha256) of each weight file at `revision`.
        files: the files to download; empty downloads the whole repository.
        shape: values in config.json that distinguish this model from others of its family.
        tensors: the same for weights without a config.json: shapes of tensors in the weight file.
    """

    hub_id: str
    revision: str
    licence: str
    size: int
    weights: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    shape: Mapping[str, int] = field(default_factory=dict)
    tensors: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


# Revisions are those of the public projects maveryn/trace (Qwen) and waltstephen/UMM-Reflection (CLIP). Sizes and
# sha256 are the hub's, alike in several public projects that pin the same revisions. Licences are those of the model
# cards on the hub; see also discussion 12 of Qwen2.5-VL-3B-Instruct there, and openai/CLIP, issue 203.
_BASES = (
    Source(
        "Qwen/Qwen2.5-VL-3B-Instruct",
        "66285546d2b821cf421d4f5eb2576359d3770cd3",
        "Qwen Research License Agreement: for research and evaluation only, no commercial use. It also applies to "
        "anyone who redistributes the weights or a model made from them; see the LICENSE file beside the weights",
        7_520_919_614,
        {
            "model-00001-of-00002.safetensors": (
                3_982_649_232,
                "41a8895c164b4d32bae6b302f4603fcbc1797f32dafa45c7e9bcda23c6755df8",
            ),
            "model-00002-of-00002.safetensors": (
                3_526_688_744,
                "365531ff8752420e89dee707b79d021fb2d6e25abafe486f080555a4fe6972e4",
            ),
        },
        shape={
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "vocab_size": 151_936,
        },
    ),
    Source(
        "Qwen/Qwen2.5-VL-7B-Instruct",
        "cc594898137f460bfe9f0759e9844b3ce807cfb5",
        "Apache License 2.0: free use, commercial too",
        16_595_981_281,
        {
            "model-00001-of-00005.safetensors": (
                3_900_233_256,
                "e97b877e47fde53a6c6e77aafb36e58e91ee9d95c4a3eeac6f1b5c0e6a1c986e",
            ),
            "model-00002-of-00005.safetensors": (
                3_864_726_320,
                "a9a300a43b4724eee2abe7c18ceb26768d0ab011eb0cad19d9bfd2476a24d024",
            ),
            "model-00003-of-00005.safetensors": (
                3_864_726_424,
                "111223d173e00bbee81cba1216fad28668df3476706b7fd26f4d5b50f8b3a507",
            ),
            "model-00004-of-00005.safetensors": (
                3_864_733_680,
                "ef47f634fa57d46ee134edcc09f34085a47da1e16c12a2abe0d67118be6d72ed",
            ),
            "model-00005-of-00005.safetensors": (
                1_089_994_880,
                "0c859795ad3a627a9b95bcb762e059d5b768a4a36fdd4affeff269d93fdecc67",
            ),
        },
        shape={
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152_064,
        },
    ),
)
BASES: dict[str, Source] = {source.hub_id: source for source in _BASES}

# (open_clip model, tag) -> the file that open_clip 3.3.0 downloads (`open_clip.pretrained`), at a fixed revision.
CLIPS: dict[tuple[str, str], Source] = {
    ("ViT-L-14-quickgelu", "openai"): Source(
        "timm/vit_large_patch14_clip_224.openai",
        "18d0535469bb561bf468d76c1d73aa35156c922b",
        "MIT in OpenAI's CLIP repository, Apache-2.0 on the model card of this copy; OpenAI's model card calls any "
        "deployed use out of scope",
        1_710_524_000,
        {CLIP_FILES[0]: (1_710_517_724, "9ce2e8a8ebfff3793d7d375ad6d3c35cb9aebf3de7ace0fc7308accab7cd207e")},
        files=(CLIP_FILES[0], "README.md"),
        tensors={"visual.conv1.weight": (1024, 3, 14, 14), "visual.proj": (1024, 768)},
    )
}


def sources(preset: str) -> list[Source]:
    """Sources that a preset is built on: its base language model, then its CLIP.

    Raises ValueError for an unknown preset, MissingWeights for one with nothing to download: its weights come with the
    package or lie in local folders.
    """
    config = preset_config(preset)
    if config.reasoner.base is None:
        raise MissingWeights(f"the preset {preset!r} is embedded: nothing to fetch")
    base, clip = config.reasoner.base, (config.perception.model, config.perception.pretrained or "")
    if base not in BASES or clip not in CLIPS:
        raise MissingWeights(f"the preset {preset!r} stands on folders of its own: nothing to fetch")
    return [BASES[base], CLIPS[clip]]


def check_shape(source: Source, folder: Path) -> None:
    """Raises MissingWeights if config.json in `folder` describes another model than `source`."""
    shape = read_shape(folder)
    wrong = [f"{k} is {shape.get(k)}, not {v}" for k, v in source.shape.items() if shape.get(k) != v]
    if not wrong:
        return
    sibling = next((s.hub_id for s in BASES.values() if all(shape.get(k) == v for k, v in s.shape.items())), None)
    what = f"; it has the shape of {sibling}" if sibling else ""
    raise MissingWeights(f"{folder} is not {source.hub_id}: {', '.join(wrong)} in its config.json{what}")
