"""Figures of several derm-CLIPs together on valid photos, with and without lesions that were trained on elsewhere.

    python -m eval_study.gpu.together --packs PACKS --members A.safetensors B.safetensors --out RESULT.json

HAM10000 and MILK10k share lesions across their splits (`skinclip duplicates`), so a tower trained on both has met some
lesions of each valid split in the other set. Both looks are taken without mirror images, to spare a CPU half of the
work. The answer is the mean of the members' logits, for a pair of photos the mean over both photos.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eval_study.gpu.assemble import read_members
from eval_study.gpu.derm_clip import GpuDermClip
from eval_study.gpu.measure import answers, figures
from eval_study.gpu.photos import Photos, load
from eval_study.gpu.texts import TextPool
from eval_study.gpu.vocabulary import CODES
from skinclip.data.splits import known_duplicates

GROUPS = {"ham10000/dermoscopy": 7, "milk10k/dermoscopy": len(CODES), "milk10k/clinical": len(CODES)}  # classes scored
RESAMPLES, SEED = 200, 0


def trained_elsewhere(photos: Photos, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """The (source, lesion) of every valid photo with a near-duplicate among the training photos."""
    records = {f"{r['source']}/{r['image_id']}": r for r in photos.records}
    known = [(records[a], records[b]) for a, b in pairs if a in records and b in records]
    both_ways = [*known, *((b, a) for a, b in known)]
    return {(a["source"], a["lesion_id"]) for a, b in both_ways if (a["split"], b["split"]) == ("valid", "train")}


def mean_logits(models: Sequence[GpuDermClip], photos: Photos, texts: TextPool, index: Tensor, side: int) -> Tensor:
    """[n, C] mean over the members of the logits of both looks."""
    logits = [answers(model, photos, texts, index, side, mirrors=False)["logits"]["both"] for model in models]
    return torch.stack(logits).mean(0)


def with_intervals(logits: Tensor, labels: Tensor, classes: int, lesions: Sequence[str]) -> dict[str, list[float]]:
    """Each figure as [value, low, high]: 95 % by a bootstrap of lesions."""
    rows_of: dict[str, list[int]] = {}
    for row, lesion in enumerate(lesions):
        rows_of.setdefault(lesion, []).append(row)
    groups, rng, scored = list(rows_of.values()), np.random.default_rng(SEED), list(range(classes))
    value = figures(logits, labels, scored)
    drawn = []
    for _ in range(RESAMPLES):
        rows = torch.tensor([row for g in rng.integers(len(groups), size=len(groups)) for row in groups[g]])
        drawn.append(figures(logits[rows], labels[rows], scored))
    return {
        name: [v, *np.percentile([d[name] for d in drawn if name in d], [2.5, 97.5]).round(4).tolist()]
        for name, v in value.items()
        if name != "n"
    } | {"n": value["n"]}


def measure(models: Sequence[GpuDermClip], photos: Photos, side: int) -> dict[str, dict]:
    """Figures by group of photos: "all" and "unseen", the lesions not trained on elsewhere."""
    texts, known = TextPool(0, "cpu"), trained_elsewhere(photos, known_duplicates(Path("")))
    logits, index_of = {}, {}
    for group in GROUPS:
        index_of[group] = photos.of("valid", group)
        logits[group] = mean_logits(models, photos, texts, index_of[group], side)
    place = {int(i): row for row, i in enumerate(index_of["milk10k/clinical"])}
    partner = [place[int(i)] for i in photos.partner[index_of["milk10k/dermoscopy"]]]
    logits["milk10k/pairs"] = (logits["milk10k/dermoscopy"] + logits["milk10k/clinical"][partner]) / 2
    index_of["milk10k/pairs"] = index_of["milk10k/dermoscopy"]
    out: dict[str, dict] = {}
    for group, index in index_of.items():
        records = [photos.records[int(i)] for i in index]
        unseen = torch.tensor([(r["source"], r["lesion_id"]) not in known for r in records])
        for name, rows in (("all", torch.ones_like(unseen)), ("unseen", unseen)):
            kept = rows.nonzero()[:, 0]
            lesions = [records[int(k)]["lesion_id"] for k in kept]
            classes, labels = GROUPS.get(group, len(CODES)), photos.diagnosis[index][kept]
            out.setdefault(group, {})[name] = with_intervals(logits[group][kept], labels, classes, lesions)
    return out


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and writes the JSON result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--members", type=Path, nargs="+", required=True, help="weights of the runs, safetensors")
    parser.add_argument("--out", type=Path, required=True, metavar="RESULT.json")
    parser.add_argument("--side", type=int, default=224)
    args = parser.parse_args(argv)
    models = []
    for state in read_members(args.members):
        model = GpuDermClip().eval()
        model.load_weights(state)
        models.append(model.to(memory_format=torch.channels_last))
    result = {"members": [p.name for p in args.members], "resamples": RESAMPLES, "seed": SEED}
    result |= {"valid": measure(models, load(args.packs, "cpu", workers=2), args.side)}
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["valid"], indent=1))


if __name__ == "__main__":
    main()
