"""Turns the weights of GPU runs into the tower and the evidence finder of the product.

    python -m eval_study.gpu.assemble --members a.safetensors b.safetensors --out DIR

Two members take a look each, in the order given: the first at the whole photo, the second at the lesion found in it,
where the regions are read. More are one ensemble whose members all see the same, side by side. Writes into DIR

    perception.safetensors   as the tower's `weights()` gives them
    evidence.safetensors     as `PyramidEvidenceFinder.load_state_dict` takes them; its metadata names the states
    config.yaml              the `ModelConfig` that both are loaded with

The projection of the pooled embedding, which the GPU runs do not learn, starts as that of the members' patches.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from eval_study.gpu.derm_clip import EVIDENCE, LEVELS, TOWER
from eval_study.gpu.vocabulary import STATES
from skinclip.core.config import ModelConfig, PerceptionConfig, ReasonerConfig, save_yaml
from skinclip.model.finders import make_evidence_finder
from skinclip.model.perception import Perception

LOGIT_SCALE = 13.2  # that of the towers, at which the answer starts
LANGUAGE_SHARE = 0.25  # heard in full, the language part cost 0.01 of malignant AUROC (HAM10000 valid)


def model_config(members: int, model: str = "derm-clip-lite2", image_size: int = 224) -> ModelConfig:
    """The configuration of that many members of one architecture."""
    family, tokens = "ensemble" if members > 1 else "open_clip", LEVELS[1:]
    perception = PerceptionConfig(
        family=family,
        model=model,
        members=members,
        image_size=image_size,
        levels=LEVELS,
        token_levels=tokens,
        flips=False,
        looks=2 if members <= 2 else 1,
    )
    reasoner = ReasonerConfig(logit_scale=LOGIT_SCALE, readout=True, language_share=LANGUAGE_SHARE)
    return ModelConfig(perception=perception, evidence=EVIDENCE, reasoner=reasoner)


def tower_weights(members: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Weights of GPU runs -> those of the tower: of `OpenClipTower` for one member, of `EnsembleTower` for more."""
    own = [{k.removeprefix(TOWER): v for k, v in m.items() if k.startswith(TOWER)} for m in members]
    if len(own) == 1:
        return own[0]
    return {f"{i}.{k}": v.clone() for i, state in enumerate(own) for k, v in state.items()}


def evidence_weights(members: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Weights of GPU runs -> those of `PyramidEvidenceFinder`.

    Of two members, which take a look each, maps are the second's, and the first one's mask finds the lesion. The
    channels of more, which all see the same, lie side by side.
    """
    if len(members) == 2:
        first, second = members
        weights = evidence_weights([second])
        weights |= {f"first_{k}": v.clone() for k, v in evidence_weights([first]).items() if k.startswith("mask_head.")}
        for name in ("to_pooled.weight", "to_pooled.bias"):  # in its own part of the joint space
            weights[name] = torch.cat([torch.zeros_like(weights[name]), weights[name]])
        return weights
    weights = {}
    for name in members[0]:
        if name.startswith(TOWER):
            continue
        same = [member[name] for member in members]
        inside = "mask_head." if name.startswith(("decoder.", "to_mask.")) else ""
        weights[inside + name] = _side_by_side(name, same)
    weights["to_pooled.weight"] = torch.block_diag(*(member["to_text.weight"] for member in members))
    weights["to_pooled.bias"] = weights["to_text.bias"].clone()
    return weights


def _side_by_side(name: str, same: Sequence[Tensor]) -> Tensor:
    if name in ("scale", "bias"):
        return torch.stack(list(same))
    if name.endswith("num_batches_tracked"):
        return same[0].clone()
    joined = torch.cat(list(same))
    return joined[..., None, None] if name == "to_text.weight" else joined  # [E, F] -> [E, F, 1, 1]


def read_members(paths: Sequence[Path]) -> list[dict[str, Tensor]]:
    """The weights in the files of GPU runs. Raises ValueError for one that holds other tensors than the first."""
    members = [load_file(path) for path in paths]
    shapes = [{k: v.shape for k, v in member.items()} for member in members]
    for path, member, own in zip(paths, members, shapes, strict=True):
        if not any(k.startswith(TOWER) for k in member) or "to_text.weight" not in member:
            raise ValueError(f"{path} holds no derm-CLIP of eval_study.gpu.train")
        if own != shapes[0]:
            other = next(k for k in {**own, **shapes[0]} if own.get(k) != shapes[0].get(k))
            raise ValueError(f"{path} does not go with {paths[0]}: they differ in {other}; give runs of one model")
    return members


def assemble(paths: Sequence[Path], out: Path, model: str = "derm-clip-lite2", image_size: int = 224) -> ModelConfig:
    """Writes tower, evidence and configuration of the members in `paths` into `out`; the configuration.

    Raises ValueError or RuntimeError, before anything is written, where the files do not fit the model or each other.
    """
    members = read_members(paths)
    config = model_config(len(paths), model, image_size)
    tower, evidence = tower_weights(members), evidence_weights(members)
    perception = Perception(config.perception)
    perception.tower.load_weights(tower)
    make_evidence_finder(config.evidence, perception, len(STATES)).load_state_dict(evidence)
    out.mkdir(parents=True, exist_ok=True)
    save_yaml(config, out / "config.yaml")
    save_file({k: v.contiguous() for k, v in tower.items()}, out / "perception.safetensors")
    states = json.dumps([f"{s.criterion}/{s.code}" for s in STATES])
    save_file({k: v.contiguous() for k, v in evidence.items()}, out / "evidence.safetensors", {"states": states})
    return config


def main(argv: Sequence[str] | None = None) -> None:
    """Assembles by the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--members", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="derm-clip-lite2", help="as in the run's --model")
    parser.add_argument("--side", type=int, default=224, help="pixels at which the tower takes a photo")
    args = parser.parse_args(argv)
    assemble(args.members, args.out, args.model, args.side)
    for name in ("perception", "evidence"):
        print(f"{args.out / name}.safetensors: {(args.out / f'{name}.safetensors').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
