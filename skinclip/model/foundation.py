"""The foundation of an adapter: the Qwen2.5-VL under its LoRA layers, and the CLIP whose tokens its heads read.

A checkpoint of a big preset holds neither. It holds their identity instead (`base.json`), so that an adapter is never
put on another base than the one it was trained on, which would answer, and wrongly.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from skinclip.core.config import PerceptionConfig
from skinclip.hub.layout import BaseIdentity, base_identity
from skinclip.model.perception import Perception

FILE = "base.json"
_SAMPLES = 64  # values of each tensor that go into the fingerprint of CLIP


@dataclass(frozen=True)
class ClipIdentity:
    """Tells one open_clip model from another.

    Attributes:
        model, pretrained: as in `PerceptionConfig`; of a path, its last part.
        weights: hash of all tensors' names, shapes and a sample of their values.
    """

    model: str
    pretrained: str
    weights: str

    def __str__(self) -> str:
        return f"{self.model} ({self.pretrained}, weights {self.weights[:12]})"


@dataclass(frozen=True)
class Foundation:
    base: BaseIdentity
    clip: ClipIdentity

    @classmethod
    def of(cls, base: Path, perception: Perception) -> Foundation:
        """Of a whole folder of Qwen2.5-VL and a tower. Raises IncompleteWeights."""
        config = perception.config
        clip = ClipIdentity(config.model, _tag(config), fingerprint(perception.tower.weights()))
        return cls(base_identity(base), clip)

    def differences(self, other: Foundation) -> str | None:
        """Why what was made for this does not fit `other`, in words; None where the two are the same."""
        if self.clip.weights != other.clip.weights:
            return f"made for another CLIP: {self.clip}, while the one here is {other.clip}"
        return self.base.differences(other.base)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Foundation:
        """Raises ValueError for a text that is none."""
        try:
            stored = json.loads(text)
            return cls(BaseIdentity(**stored["base"]), ClipIdentity(**stored["clip"]))
        except (TypeError, KeyError) as error:
            raise ValueError(f"it does not say what the adapter was made for: {error!r}") from error


def fingerprint(state: dict[str, Tensor]) -> str:
    """One hash of a tower's weights as a checkpoint would store them (`Perception.freeze`), on whatever device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        sample = tensor.flatten()[:: max(1, tensor.numel() // _SAMPLES)]
        rounded = sample.half() if tensor.ndim > 1 and tensor.is_floating_point() else sample
        digest.update(rounded.float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _tag(config: PerceptionConfig) -> str:
    """The weights tag; of a path only its last part, which says nothing about the computer it was on."""
    return Path(config.pretrained or "").name
