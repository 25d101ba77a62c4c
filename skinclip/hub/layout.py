"""Contents of a folder of Qwen2.5-VL weights: completeness, shape and identity.

Reads headers and samples only, never gigabytes, so that it can stand before every load.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SOURCE_FILE = "skinclip-source.json"  # where a folder of the store came from, and the sha256 of its files
_NEEDED = (  # beside the weights; one name of each line
    ("config.json",),
    ("tokenizer.json", "vocab.json"),
    ("tokenizer_config.json",),
    ("preprocessor_config.json", "processor_config.json"),
)
CALIBRATION_ARRAYS = frozenset(
    [
        *("calibration.temperature", "calibration.bias", "conformal.coverage", "conformal.quantiles"),
        *("referral.threshold", "referral.sensitivity", "referral.specificity", "natural_prior"),
        *("shift.mean", "shift.scale", "shift.directions", "shift.variances", "shift.residual_variance"),
        "shift.calibration_distances",
    ]
)  # of every checkpoint's trust.safetensors
OPTIONAL_CALIBRATION_ARRAYS = frozenset(
    [
        *("kinds", "prevalence", "abstention.min_confidence", "referral.groups", "referral.by_group"),
        *("criteria.slope", "criteria.bias", "criteria.state_slope", "criteria.state_bias", "skin_tone.ita_range"),
        *("photos.logits", "photos.labels", "photos.malignant", "photos.group", "photos.lesion", "photos.groups"),
    ]
)  # of those made since they are stored; a further kind of photo has its arrays as KIND/NAME
_LONGEST_HEADER = 100_000_000  # bytes; the limit that the format itself sets
_SAMPLES, _SAMPLE = 16, 4096  # places of a weight file, and bytes at each, that go into its fingerprint


def is_calibration_array(name: str) -> bool:
    """Says that a checkpoint's trust.safetensors may hold an array of this name."""
    return name.rpartition("/")[2] in CALIBRATION_ARRAYS | OPTIONAL_CALIBRATION_ARRAYS


class MissingWeights(RuntimeError):
    """Weights that a preset is built on are not there, or not whole; the message says what to run."""


class IncompleteWeights(MissingWeights):
    """A folder lacks a file, or a file is shorter than it says itself."""


class WrongRevision(MissingWeights):
    """Weights are there, but of another revision than asked for."""


def check_complete(folder: Path) -> list[Path]:
    """The weight files of a folder of Qwen2.5-VL, all there with the size that their headers say.

    Also asks for config, tokenizer and image settings. Reads headers only. Raises IncompleteWeights naming what is
    missing or cut short.
    """
    missing = [names[0] for names in _NEEDED if not any((folder / name).is_file() for name in names)]
    if (folder / "vocab.json").is_file() and not any((folder / n).is_file() for n in ("tokenizer.json", "merges.txt")):
        missing.append("merges.txt")
    where = _weight_map(folder)
    missing += [name for name in sorted(set(where.values())) if not (folder / name).is_file()]
    if missing:
        raise IncompleteWeights(f"{folder} is not whole: {', '.join(missing)} missing")
    files = [folder / name for name in sorted(set(where.values()))]
    for path in files:
        held = set(read_header(path)[1])
        lost = [tensor for tensor, name in where.items() if name == path.name and tensor and tensor not in held]
        if lost:
            raise IncompleteWeights(f"{path} lacks {len(lost)} tensors that {INDEX} places in it, such as {lost[0]}")
    return files


def _weight_map(folder: Path) -> dict[str, str]:
    """File of every tensor by the index; of the one file, without naming tensors, where there is no index."""
    if not (folder / INDEX).is_file():
        shards = sorted(folder.glob("model-*-of-*.safetensors"))
        return {"": INDEX if shards else SINGLE}
    try:
        return dict(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise IncompleteWeights(f"{folder / INDEX} is not a shard index: {error!r}") from error


def read_header(path: Path) -> tuple[bytes, dict[str, tuple[int, ...]]]:
    """Header of a safetensors file, as it stands there, and the shape of every tensor by it.

    Raises IncompleteWeights where the file is shorter or longer than the header says, or none of the kind.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if start == b"version ":
            raise IncompleteWeights(f"{path} is a git-lfs pointer, not the weights; run `git lfs pull` there")
        if length > _LONGEST_HEADER:
            raise IncompleteWeights(f"{path} is not a safetensors file")
        header = file.read(length)
    if len(header) < length or len(start) < 8:
        raise IncompleteWeights(f"{path} is cut short: {size} bytes do not even hold its header")
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        whole = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        shapes = {name: tuple(entry["shape"]) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IncompleteWeights(f"{path} is not a safetensors file: {error!r}") from error
    if size != whole:
        kind = "is cut short" if size < whole else "is damaged"
        raise IncompleteWeights(f"{path} {kind}: {size} bytes, {whole} by its own header")
    return header, shapes


def read_source(folder: Path) -> dict[str, Any]:
    """Reads what `SOURCE_FILE` says of a folder; empty where it is not there or unreadable."""
    try:
        return dict(json.loads((folder / SOURCE_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def read_shape(folder: Path) -> dict[str, Any]:
    """The fields of config.json that decide the shape of Qwen2.5-VL; vision's are prefixed.

    Through transformers, which reads both the published flat form and the nested one that it writes itself.
    """
    from transformers import Qwen2_5_VLConfig

    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        if kind != "qwen2_5_vl":
            raise MissingWeights(f"{folder} is not Qwen2.5-VL: model_type is {kind!r} in its config.json")
        config = Qwen2_5_VLConfig.from_pretrained(folder, local_files_only=True)
    except (ValueError, OSError, AttributeError) as error:
        raise IncompleteWeights(f"{folder / 'config.json'} cannot be read: {error}") from error
    parts: Any = config
    text, vision = parts.text_config.to_dict(), parts.vision_config.to_dict()
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    always = ("depth", "hidden_size", "intermediate_size", "num_heads", "out_hidden_size", "patch_size", "window_size")
    more = ("spatial_merge_size", "temporal_patch_size", "fullatt_block_indexes")
    shape = {name: text[name] for name in (*names, "vocab_size")}
    shape["tie_word_embeddings"] = bool(config.tie_word_embeddings)
    return shape | {f"vision_{name}": vision[name] for name in (*always, *more)}


@dataclass(frozen=True)
class BaseIdentity:
    """Tells one base from another without reading its gigabytes.

    Attributes:
        hub_id, revision: where it came from, None where the folder does not say.
        architecture: hash of the fields of config.json that decide its shape.
        weights: hash of every weight file's header, size and a sample of its bytes.
        layers, width: of the language model, for the words of `differences`.
    """

    hub_id: str | None
    revision: str | None
    architecture: str
    weights: str
    layers: int
    width: int

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> BaseIdentity:
        """Raises ValueError for a text that is none."""
        try:
            return cls(**json.loads(text))
        except TypeError as error:
            raise ValueError(f"no identity of a base: {error}") from error

    def __str__(self) -> str:
        name = self.hub_id or "a base of unknown origin"
        at = f" at {self.revision[:12]}" if self.revision else ""
        return f"{name}{at} ({self.layers} layers, {self.width} wide, weights {self.weights[:12]})"

    def differences(self, other: BaseIdentity) -> str | None:
        """Why what was made for this base does not fit `other`, in words; None where the two are the same."""
        if self.architecture != other.architecture:
            return f"made for {self}, but the base here is of another shape: {other}"
        if self.weights != other.weights:
            return f"made for {self}, but the base here has the same shape and other weights: {other}"
        return None  # the same bytes are the same base, whatever they are called


def base_identity(folder: Path) -> BaseIdentity:
    """The identity of a whole folder of Qwen2.5-VL. Raises IncompleteWeights."""
    files, shape, origin = check_complete(folder), read_shape(folder), read_source(folder)
    architecture = hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()
    return BaseIdentity(
        origin.get("hub_id"),
        origin.get("revision"),
        architecture,
        _fingerprint(files),
        shape["num_hidden_layers"],
        shape["hidden_size"],
    )


def _fingerprint(files: Sequence[Path]) -> str:
    """One hash of all weight files: headers alone would not tell a model from its fine-tuned copy."""
    digest = hashlib.sha256()
    for path in files:
        header, _ = read_header(path)
        begin, size = 8 + len(header), path.stat().st_size
        digest.update(f"{path.name} {size} ".encode() + header)
        with path.open("rb") as file:
            for i in range(_SAMPLES):
                file.seek(begin + (size - begin) * i // _SAMPLES)
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()
