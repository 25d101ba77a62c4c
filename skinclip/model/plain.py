"""The plain fine-tuned classifier: what a user would build instead, with the same trunk, data and augmentation.

It explains nothing by itself. It stands beside the model as a baseline: for the diagnosis, and as the network whose
Grad-CAM map the rationale is compared with. A checkpoint is a folder with `model.safetensors` and `plain.json`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import load_file, save_file
from scipy.special import softmax
from torch import Tensor, nn

from skinclip.core.config import PerceptionConfig
from skinclip.core.known import FIRST_DIAGNOSES, KnownVocabulary
from skinclip.core.paths import ASSETS
from skinclip.core.vocabulary import DIAGNOSIS_CODES
from skinclip.model.errors import CheckpointError
from skinclip.model.integrity import verify

TRUNK = "tf_efficientnet_lite0"
IMAGE_SIZE = 160
PLAIN_FOLDER = ASSETS / "plain"  # the embedded one


class PlainClassifier(nn.Module):
    """A timm trunk, dropout and one linear layer; photos [B, 3, side, side] in 0..1 to logits [B, C]."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, dropout: float = 0.3, drop_path: float = 0.2, diagnoses: Sequence[str] = DIAGNOSIS_CODES
    ) -> None:
        """
        Args:
            diagnoses: those that it knows.
        """
        super().__init__()
        trunk: Any = timm.create_model(TRUNK, pretrained=False, num_classes=0, drop_path_rate=drop_path)
        self.trunk = trunk
        self.diagnoses = tuple(diagnoses)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(trunk.num_features, len(self.diagnoses)))
        defaults = PerceptionConfig()  # the trunk is the same, so its normalisation is
        self.register_buffer("mean", torch.tensor(defaults.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(defaults.std).view(1, 3, 1, 1), persistent=False)
        self.temperature: float | None = None  # calibration: p = softmax(logits / temperature + bias)
        self.bias: tuple[float, ...] = ()
        self.natural_prior: tuple[float, ...] | None = None

    def forward(self, photos: Tensor) -> Tensor:
        x = ((photos - self.mean) / self.std).to(memory_format=torch.channels_last)
        return self.in_columns(self.head(self.trunk(x)))

    def in_columns(self, logits: Tensor) -> Tensor:
        """[B, C] the logits of the diagnoses that it knows, in the vocabulary's columns; -inf for the others."""
        if self.diagnoses == DIAGNOSIS_CODES:
            return logits
        columns = torch.tensor([DIAGNOSIS_CODES.index(code) for code in self.diagnoses], device=logits.device)
        every = logits.new_full((len(logits), len(DIAGNOSIS_CODES)), -torch.inf)
        return every.index_copy(1, columns, logits)

    def probabilities(self, logits: Tensor) -> np.ndarray:
        """Calibrated probabilities [n, C] at natural prevalence. Raises ValueError before calibration was fitted."""
        if self.temperature is None:
            raise ValueError("this classifier was not calibrated yet; fit it on the calib split first")
        bias = self.in_columns(torch.tensor([self.bias], dtype=torch.double)).numpy()
        return softmax(logits.double().numpy() / self.temperature + bias, axis=1)

    def save(self, folder: Path) -> None:
        """Writes weights (fp16) and calibration. Raises ValueError before calibration was fitted."""
        if self.temperature is None or self.natural_prior is None:
            raise ValueError("this classifier was not calibrated yet; fit it on the calib split first")
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: (v.half() if v.ndim > 1 else v).contiguous() for k, v in self.state_dict().items()}
        save_file(state, folder / "model.safetensors")
        fitted = {
            "trunk": TRUNK,
            "image_size": IMAGE_SIZE,
            "diagnoses": list(self.diagnoses),
            "temperature": self.temperature,
            "bias": list(self.bias),
            "natural_prior": list(self.natural_prior),
        }
        (folder / "plain.json").write_text(json.dumps(fitted, indent=2) + "\n")


def load_plain(folder: Path = PLAIN_FOLDER) -> PlainClassifier:
    """The classifier saved in `folder`, in eval mode. Raises CheckpointError saying what is missing or does not fit."""
    for name in ("model.safetensors", "plain.json"):
        if not (folder / name).exists():
            raise CheckpointError(
                f"{folder} holds no plain classifier: {name} is missing; train it with "
                "`python -m skinclip train --preset plain`"
            )
    verify(folder)
    fitted = json.loads((folder / "plain.json").read_text())
    if fitted["trunk"] != TRUNK:
        raise CheckpointError(f"{folder} holds a classifier with the trunk {fitted['trunk']!r}, expected {TRUNK!r}")
    model = PlainClassifier(diagnoses=KnownVocabulary(tuple(fitted.get("diagnoses", FIRST_DIAGNOSES))).diagnoses)
    state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(folder / "model.safetensors").items()}
    model.load_state_dict(state)
    model.temperature, model.bias = fitted["temperature"], tuple(fitted["bias"])
    model.natural_prior = tuple(fitted["natural_prior"])
    return model.eval()
