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

from skinclip.assess import Assessor
from skinclip.config import ModelConfig, TrainConfig, load_yaml, preset, save_yaml
from skinclip.data.cases import Case, DataError
from skinclip.model.plain import PlainClassifier
from skinclip.model.prompt import mini_tokenizer
from skinclip.model.skinclip_vl import ASSETS, assemble
from skinclip.training.common import (
    PhotoSet,
    gather,
    held_out_keys,
    keep_memory,
    photo_set,
    scarce,
    with_clinical,
)
from skinclip.training.fitting import fit
from skinclip.training.plain import train_plain
from skinclip.training.stage0 import train_stage0
from skinclip.training.stage1 import train_stage1
from skinclip.training.stage2 import train_stage2

log = logging.getLogger(__name__)


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
    """All stages in turn; writes the checkpoint to `out` and returns it loaded.

    Raises DataError where `work` holds the stages of another recipe.
    """
    claim(work, recipe)
    cases = gather_calibrated(root, strict)
    photos = training_photos(recipe, cases["train"], work / "cache")
    derm_clip = train_stage0(config, recipe, photos, valid_photos(recipe, cases, work / "cache"), work)
    tokenizer = mini_tokenizer()
    base = train_stage1(config, recipe, tokenizer, work)
    model = assemble(config, derm_clip.perception, base, tokenizer)
    model.evidence.mask_head.load_state_dict(derm_clip.mask_head.state_dict())
    trained_prior = train_stage2(model, recipe, photos, work)
    model.save(out)
    save_yaml(recipe, out / "recipe.yaml")
    assessor = fit(model, photos, cases["calib"], cases.get("valid", []), trained_prior)
    assessor.save_trust(out)
    return assessor


def train_baseline(recipe: TrainConfig, root: Path, work: Path, out: Path, strict: bool = False) -> PlainClassifier:
    """The plain classifier in one go; writes its checkpoint to `out`.

    Raises DataError where no photo can calibrate, or where `work` holds the training of another recipe.
    """
    claim(work, recipe)
    cases, cache = gather_calibrated(root, strict), work / "cache"
    photos, calib = training_photos(recipe, cases["train"], cache), photo_set(cases["calib"], recipe.photo_size, cache)
    model = train_plain(recipe, photos, valid_photos(recipe, cases, cache), calib, work)
    model.save(out)
    save_yaml(recipe, out / "recipe.yaml")
    return model


def claim(work: Path, recipe: TrainConfig) -> None:
    """Marks `work` as this recipe's. Raises DataError where it is another's, whose stages must not be resumed."""
    path = work / "recipe.yaml"
    if path.exists() and load_yaml(TrainConfig, path) != recipe:
        raise DataError(f"{work} holds a training by another recipe; give another --work or remove that folder")
    work.mkdir(parents=True, exist_ok=True)
    save_yaml(recipe, path)


def gather_calibrated(root: Path, strict: bool = False) -> dict[str, list[Case]]:
    """All cases by split. Raises DataError, before anything is trained, where none could calibrate."""
    cases = gather(root, strict)
    if not cases.get("calib"):
        raise DataError('no photo to calibrate on: no data set here has rows whose split is "calib"')
    return cases


def training_photos(recipe: TrainConfig, cases: list[Case], cache: Path) -> PhotoSet:
    """The photos to learn from, close-ups among them, with those held out of stage 0 marked."""
    learnt = with_clinical(scarce(cases, recipe.share, recipe.seed))
    return photo_set(learnt, recipe.photo_size, cache, held_out_keys(learnt, recipe.stage0.held_out, recipe.seed))


def valid_photos(recipe: TrainConfig, cases: dict[str, list[Case]], cache: Path) -> dict[str, PhotoSet]:
    """Validation photos with a diagnosis, by data set."""
    labelled = [c for c in cases.get("valid", []) if c.diagnosis]
    return {name: photo_set(part, recipe.photo_size, cache) for name, part in _by_source(labelled).items()}


def _by_source(cases: list[Case]) -> dict[str, list[Case]]:
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.source, []).append(case)
    return groups
