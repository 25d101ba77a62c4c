"""Training, from data sets to a checkpoint: `python -m skinclip train --preset mini --data ROOT`.

    stage 0  the compact derm-CLIP, contrastive on photo-description pairs, then frozen
    stage 1  the language of rationales, from texts alone, then NF4
    stage 2  evidence, projector, LoRA and heads under CFA
    fit      calibration, sets, shift and referral on `calib`; finding thresholds on `valid`

Every stage keeps a checkpoint in `--work` and takes it up again after a kill. No stage reads a test split.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import f1_score, precision_score
from torch import Tensor

from skinclip.assess import Assessor
from skinclip.assessment import ModelInfo
from skinclip.clinical import CRITERIA
from skinclip.config import ModelConfig, TrainConfig, load_yaml, preset, save_yaml
from skinclip.data.cases import Case, DataError
from skinclip.losses import criterion_log_probs
from skinclip.model.plain import PlainClassifier
from skinclip.model.prompt import mini_tokenizer
from skinclip.model.skinclip_vl import ASSETS, SkinClipVL, assemble
from skinclip.model.transform import PhotoTransform
from skinclip.training.common import (
    MISSING,
    PhotoSet,
    gather,
    held_out_keys,
    keep_memory,
    natural_prior,
    photo_set,
    scarce,
    with_clinical,
)
from skinclip.training.plain import train_plain
from skinclip.training.stage0 import train_stage0
from skinclip.training.stage1 import train_stage1
from skinclip.training.stage2 import train_stage2
from skinclip.trust.bundle import Trust

log = logging.getLogger(__name__)
NEVER = 2.0  # the threshold of a state that cannot be told well enough to cite it
MIN_PRECISION = 0.5
NO_CALIB = 'no photo to calibrate on: no data set here has rows whose split is "calib"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preset", default="mini", help="the preset to train (default: mini), or `plain`, the baseline classifier"
    )
    parser.add_argument("--data", type=Path, help="folder with one subfolder a data set (default: $SKINCLIP_DATA)")
    parser.add_argument("--out", type=Path, help="where the checkpoint goes (default: assets/PRESET)")
    parser.add_argument("--work", type=Path, help="checkpoints, log.csv and caches (default: runs/PRESET)")
    parser.add_argument(
        "--recipe", type=Path, help="YAML file with fields of TrainConfig (default: the built-in recipe)"
    )
    parser.add_argument("--seed", type=int, help="overrides the recipe's seed")
    parser.add_argument("--strict", action="store_true", help="stop at the first bad row of a label file")


def run(args: argparse.Namespace) -> int:
    """The command line's entry. Raises DataError or ValueError with what to do about it."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    keep_memory()
    root = args.data or (Path(os.environ["SKINCLIP_DATA"]) if os.environ.get("SKINCLIP_DATA") else None)
    if root is None:
        raise DataError("no data: give --data ROOT or set $SKINCLIP_DATA to a folder with one subfolder a data set")
    plain = args.preset == "plain"
    config = preset("mini" if plain else args.preset)
    if config.reasoner.base is not None:
        raise DataError(f"the preset {args.preset!r} is not trained from scratch; only `mini` is")
    recipe = load_yaml(TrainConfig, args.recipe) if args.recipe else TrainConfig()
    if args.seed is not None:
        recipe = dataclasses.replace(recipe, seed=args.seed)
    work = args.work or Path("runs") / args.preset
    out = args.out or ASSETS / args.preset
    if plain:
        train_baseline(recipe, root, work, out, args.strict)
    else:
        train(config, recipe, root, work, out, args.strict)
    print(f"checkpoint written to {out}")
    return 0


def train(
    config: ModelConfig, recipe: TrainConfig, root: Path, work: Path, out: Path, strict: bool = False
) -> Assessor:
    """All stages in turn; writes the checkpoint to `out` and returns it loaded."""
    photos, valid, calib = load_sets(recipe, root, work, strict)
    derm_clip = train_stage0(config, recipe, photos, {k: v for k, v in valid.items() if (v.diagnosis >= 0).any()}, work)
    tokenizer = mini_tokenizer()
    base = train_stage1(config, recipe, tokenizer, work)
    model = assemble(config, derm_clip.perception, base, tokenizer)
    model.evidence.mask_head.load_state_dict(derm_clip.mask_head.state_dict())
    trained_prior = train_stage2(model, recipe, photos, work)
    model.save(out)
    save_yaml(recipe, out / "recipe.yaml")
    assessor = fit(model, photos, calib, list(valid.values()), trained_prior)
    assessor.save_trust(out)
    return assessor


def train_baseline(recipe: TrainConfig, root: Path, work: Path, out: Path, strict: bool = False) -> PlainClassifier:
    """The plain classifier in one go; writes its checkpoint to `out`. Raises DataError where no photo can calibrate."""
    photos, valid, calib = load_sets(recipe, root, work, strict)
    if len(calib) == 0:
        raise DataError(NO_CALIB)
    labelled = {k: v for k, v in valid.items() if (v.diagnosis >= 0).any()}
    model = train_plain(recipe, photos, labelled, calib, work)
    model.save(out)
    save_yaml(recipe, out / "recipe.yaml")
    return model


def load_sets(
    recipe: TrainConfig, root: Path, work: Path, strict: bool = False
) -> tuple[PhotoSet, dict[str, PhotoSet], PhotoSet]:
    """Photos to learn from, validation photos by data set, and calibration photos, all in memory."""
    work.mkdir(parents=True, exist_ok=True)
    cases = gather(root, strict)
    learnt = with_clinical(scarce(cases["train"], recipe.share, recipe.seed))
    unseen = held_out_keys(learnt, recipe.stage0.held_out, recipe.seed)
    cache = work / "cache"
    valid = {
        name: photo_set(part, recipe.photo_size, cache) for name, part in _by_source(cases.get("valid", [])).items()
    }
    calib = photo_set(cases.get("calib", []), recipe.photo_size, cache)
    return photo_set(learnt, recipe.photo_size, cache, unseen), valid, calib


def _by_source(cases: list[Case]) -> dict[str, list[Case]]:
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.source, []).append(case)
    return groups


@torch.inference_mode()
def features(model: SkinClipVL, photos: PhotoSet) -> tuple[Tensor, Tensor, Tensor]:
    """Diagnosis logits [n, C], photo embeddings [n, E] and evidence scores [n, K] of plain photos."""
    transform = PhotoTransform(model.config.perception.image_size)
    rows = []
    for index in torch.arange(len(photos)).split(32):
        pixels = photos.photos[index].permute(0, 2, 3, 1).numpy()
        seen = model.perceive(torch.stack([transform(p) for p in pixels]), model.config.perception.flips)
        evidence = model.find_evidence(seen)
        contexts = [photos.cases[i].context for i in index.tolist()]
        logits = model.reason(model.reasoner.writer.write(contexts), seen, evidence).logits
        rows.append((logits, seen.embedding, evidence.scores))
    return tuple(torch.cat(part) for part in zip(*rows, strict=True))  # type: ignore[return-value]


def fit(model: SkinClipVL, train: PhotoSet, calib: PhotoSet, valid: list[PhotoSet], trained_prior: Tensor) -> Assessor:
    """What makes logits trustworthy: fitted on `calib`, finding thresholds on `valid`.

    The natural prior is that of the training photos of the data sets that `calib` is from: those whose prevalence the
    displayed probabilities are to have. Raises DataError where there is no calib photo.
    """
    if len(calib) == 0:
        raise DataError(NO_CALIB)
    sources = {c.source for c in calib.cases}
    home = torch.tensor([c.source in sources for c in train.cases])
    prior = natural_prior(train.diagnosis[home])
    logits, embeddings, _ = features(model, calib)
    # a lesion that stage 0 saw sits closer to its class than any new one will
    labelled = home & (train.diagnosis != MISSING)
    fresh = train.subset((labelled & train.unseen if (labelled & train.unseen).any() else labelled).nonzero()[:, 0])
    _, train_embeddings, _ = features(model, fresh)
    trust = Trust.fit(
        logits.double().numpy(),
        calib.diagnosis.numpy(),
        embeddings.double().numpy(),
        train_embeddings.double().numpy(),
        fresh.diagnosis.numpy(),
        prior.numpy(),
        (prior.log() - trained_prior.log()).numpy(),
    )
    thresholds = finding_thresholds(model, valid)
    transform = PhotoTransform(model.config.perception.image_size)
    return Assessor(model, transform, trust, thresholds, ModelInfo(model.config.preset, "training", ""))


def finding_thresholds(model: SkinClipVL, valid: list[PhotoSet]) -> dict[str, float]:
    """State key -> score from which it is cited: the best F1 on labelled validation photos at a precision of 0.5.

    A state that reaches no such precision is never cited: saying nothing is better than a finding that is a guess.
    """
    labelled = [p.subset((p.criteria >= 0).any(1).nonzero()[:, 0]) for p in valid if (p.criteria >= 0).any()]
    labels = torch.cat([p.criteria for p in labelled]) if labelled else torch.zeros(0, len(CRITERIA))
    scores = [features(model, p)[2] for p in labelled]
    thresholds = {}
    rows = criterion_log_probs(torch.cat(scores)) if scores else []
    for q, criterion in enumerate(CRITERIA):
        for s, state in enumerate(criterion.states, start=1):
            if not scores:
                thresholds[state.key] = NEVER
                continue
            chosen = (labels[:, q] != MISSING).numpy()
            thresholds[state.key] = best_threshold(
                rows[q][:, s].exp().numpy()[chosen], (labels[:, q] == s).numpy()[chosen]
            )
    return thresholds


def best_threshold(scores: np.ndarray, present: np.ndarray) -> float:
    """The threshold of best F1 among those of at least MIN_PRECISION; NEVER where there is none."""
    best, chosen = 0.0, NEVER
    for threshold in np.linspace(0.1, 0.95, 35):
        guess = scores >= threshold
        if guess.sum() < 3 or precision_score(present, guess, zero_division=0) < MIN_PRECISION:
            continue
        f1 = f1_score(present, guess, zero_division=0)
        if f1 > best:
            best, chosen = float(f1), float(threshold)
    return chosen
