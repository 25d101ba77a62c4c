"""Training, from data sets to a checkpoint: `python -m skinclip train --preset PRESET --data ROOT`.

    mini                                           qwen-3b, qwen-7b
    stage 0  the compact derm-CLIP, contrastive    masks    the lesion mask over the published CLIP
             on photo-description pairs
    stage 1  the language of rationales, from
             texts alone, then NF4
    stage 2  evidence, projector, LoRA and heads under CFA, over what is frozen by then
    fit      calibration, sets, shift and referral on `calib`; finding thresholds on `valid`

Every stage keeps a checkpoint in `--work` and takes it up again after a kill, with the loss curve that it would have
had. No stage reads a test split. The presets on published weights can be trained by several processes:
`accelerate launch --config_file skinclip/training/accelerate/ddp.yaml -m skinclip train --preset qwen-3b --data ROOT`.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from skinclip.core.config import ModelConfig, TrainConfig, load_yaml, new_config, preset, save_yaml
from skinclip.data.cases import Case, DataError
from skinclip.hub import base_identity, checkpoint_folder, find_base, find_clip, output_folder
from skinclip.model import integrity
from skinclip.model.allocator import keep_memory
from skinclip.model.checkpoint import CARRIED, save_model
from skinclip.model.memory import check_memory
from skinclip.model.perception import Perception
from skinclip.model.plain import PlainClassifier
from skinclip.model.skinclip_vl import SkinClipVL, assemble, default_device
from skinclip.model.tokenizer import load_tokenizer, mini_tokenizer
from skinclip.pipeline.assessor import Assessor
from skinclip.training.calibrate import fit
from skinclip.training.checkpoints import load_checkpoint, seed_everything
from skinclip.training.derm_clip import train_stage0
from skinclip.training.distributed import DistributedContext, check_even
from skinclip.training.joint import stage2_weights, train_stage2
from skinclip.training.losses import MISSING
from skinclip.training.masks import train_masks
from skinclip.training.photo_sets import PhotoSet, gather, photo_key, photo_set, scarce, unseen_keys, with_clinical
from skinclip.training.plain import train_plain
from skinclip.training.rationale_lm import train_stage1
from skinclip.training.readable import readable
from skinclip.training.taught import taught

log = logging.getLogger(__name__)
RECIPES = Path(__file__).parent / "recipes"
PLAIN = "plain"  # the baseline, in place of a preset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", help="the preset to train (default: mini), or `plain`, the baseline classifier")
    parser.add_argument(
        "--config",
        type=Path,
        help="YAML file of a model config (ModelConfig), in place of --preset",
    )
    parser.add_argument("--data", type=Path, help="folder with one subfolder a data set (default: $SKINCLIP_DATA)")
    parser.add_argument(
        "--out",
        type=Path,
        help="where the checkpoint goes (default: checkpoints/PRESET; in a checkout assets/PRESET for mini and plain)",
    )
    parser.add_argument("--work", type=Path, help="checkpoints, log.csv and caches (default: runs/PRESET)")
    parser.add_argument(
        "--tower",
        type=Path,
        metavar="DIR",
        help="folder with a trained tower and its evidence (eval_study.gpu.assemble), in place of stage 0",
    )
    parser.add_argument("--recipe", type=Path, help=f"YAML file with fields of TrainConfig (default: {RECIPES}/...)")
    parser.add_argument("--seed", type=int, help="overrides the recipe's seed")
    parser.add_argument("--strict", action="store_true", help="stop at the first bad row of a label file")


def run(args: argparse.Namespace) -> int:
    """The command line's entry. Raises DataError or ValueError with what to do about it."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    root = args.data or (Path(os.environ["SKINCLIP_DATA"]) if os.environ.get("SKINCLIP_DATA") else None)
    if root is None:
        raise DataError("no data: give --data ROOT or set $SKINCLIP_DATA to a folder with one subfolder a data set")
    name, config = model_of(args.preset, args.config, args.tower)
    recipe = recipe_of(name, args.recipe)
    if args.seed is not None:
        recipe = dataclasses.replace(recipe, seed=args.seed)
    work, plain = args.work or Path("runs") / name, name == PLAIN
    if config.reasoner.base is None:  # a big preset's memory is more than its time: it gives large blocks back
        keep_memory()
    out = args.out or (output_folder("mini").with_name(PLAIN) if plain else output_folder(name))
    if plain:
        train_baseline(recipe, root, work, out, args.strict)
    elif train(config, recipe, root, work, out, args.strict, args.tower) is None:
        return 0  # another process says it
    at_hand = out == checkpoint_folder("mini" if plain else name).with_name(name)
    using = "" if at_hand else f"; use it with --preset {name} --weights {out}"
    print(f"checkpoint written to {out}{using}")
    return 0


def model_of(name: str | None, path: Path | None, tower: Path | None = None) -> tuple[str, ModelConfig]:
    """The name of what is trained and its config: of a preset, by default `mini`, or from a YAML file.

    Args:
        tower: folder of a tower that is trained already; its own `config.yaml` is the model where none is given.

    Raises DataError for a file that is not a model config, or one that cannot be trained; ValueError for a preset that
    there is not.
    """
    if path is None and tower is not None:
        path = tower / "config.yaml"
    if path is None:
        name = name or "mini"
        return name, preset("mini" if name == PLAIN else name)
    try:
        config = new_config(path)
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is not a model config: {error}") from error
    preset(config.preset)
    if name not in (None, config.preset):
        raise DataError(f"{path} is a config of {config.preset}, not of {name}; leave --preset out")
    if config.reasoner.base == CARRIED:
        raise DataError(f"{path}: reasoner.base is merged weights, which are not trained; name the base they came from")
    if (config.reasoner.base is None) != (config.perception.pretrained is None):
        raise DataError(
            f"{path}: reasoner.base and perception.pretrained go together: give both for published weights, neither "
            "where both are to be trained here"
        )
    if tower is not None and config.perception.pretrained is not None:
        raise DataError(f"{path}: perception.pretrained names published weights, so --tower cannot be another tower")
    if tower is None and (config.evidence.kind != "adapter" or config.perception.members > 1):
        raise DataError(
            f"{path}: ensembles and evidence from a pyramid are not trained here; their members are trained by "
            "eval_study.gpu.train and put together by eval_study.gpu.assemble (docs/gpu_training.md): give --tower DIR"
        )
    return config.preset, config


def recipe_of(name: str, path: Path | None = None) -> TrainConfig:
    """The recipe in a YAML file, by default that of a preset. Raises DataError where it does not hold one."""
    path = path or RECIPES / f"{'mini' if name == PLAIN else name}.yaml"
    try:
        return load_yaml(TrainConfig, path)
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is not a recipe: {error}") from error


def train(
    config: ModelConfig,
    recipe: TrainConfig,
    root: Path,
    work: Path,
    out: Path,
    strict: bool = False,
    tower: Path | None = None,
) -> Assessor | None:
    """All stages in turn; writes the checkpoint to `out` and returns it loaded, in the first process.

    Args:
        tower: see `read_tower`; stage 0 is left out.

    Raises DataError where `work` holds the stages of another recipe or model, or where several processes cannot train
    it; MissingWeights where those that the preset is built on are not there; TooLittleMemory where it would not fit.
    """
    published = config.reasoner.base is not None
    distributed = DistributedContext(default_device(config))
    if distributed.size > 1 and not published:
        raise DataError(f"{config.preset!r} is trained by one process: start it without `accelerate launch`")
    check_even(distributed, recipe)
    if not distributed.is_main:
        logging.getLogger("skinclip").setLevel(logging.WARNING)
    base, identity = find_published(config) if published else (None, "")
    if published:
        check_memory(config.preset, default_device(config), "train", config)
    with distributed.main_process_first():
        claim(work, recipe, config, identity)
        cases = gather_calibrated(root, work / "cache", strict)
        photos = training_photos(recipe, cases["train"], work / "cache", published)
        check_enough(recipe, photos, published or tower is not None)
        config = config if tower is not None else taught(config, photos)
    if base is None and tower is not None:
        model = with_tower(config, recipe, tower, work)
    elif base is None:
        model = with_own_weights(config, recipe, photos, valid_photos(recipe, cases, work / "cache"), work)
    else:
        model = on_published_weights(config, recipe, base, distributed)
        train_masks(model, recipe, photos, work, distributed)
    trained_prior = train_stage2(model, recipe, photos, work, distributed, identity)
    distributed.shut_down()
    if not distributed.is_main:
        return None
    if distributed.sharded and base is not None:  # this process holds a part of every weight only
        model = on_published_weights(config, recipe, base, distributed, work)
    save_model(model, out)
    save_yaml(recipe, out / "recipe.yaml")
    assessor = fit(model, photos, cases["calib"], cases.get("valid", []), trained_prior)
    assessor.save_calibration(out)
    integrity.record(out)
    return assessor


def with_own_weights(
    config: ModelConfig, recipe: TrainConfig, photos: PhotoSet, valid: dict[str, PhotoSet], work: Path
) -> SkinClipVL:
    """Stages 0 and 1, and the model made of them."""
    derm_clip = train_stage0(config, recipe, photos, valid, work)
    tokenizer = mini_tokenizer()
    base = train_stage1(config, recipe, tokenizer, work)
    model = assemble(config, derm_clip.perception, base, tokenizer)
    model.evidence.mask_head.load_state_dict(derm_clip.mask_head.state_dict())
    return model


def with_tower(config: ModelConfig, recipe: TrainConfig, folder: Path, work: Path) -> SkinClipVL:
    """Stage 1, and the model made of it and of a tower that is trained already."""
    tower, evidence = read_tower(folder)
    perception = Perception(config.perception)
    tokenizer = mini_tokenizer()
    try:
        perception.tower.load_weights(tower)
        base = train_stage1(config, recipe, tokenizer, work)
        model = assemble(config, perception.freeze(), base, tokenizer)
        model.evidence.load_state_dict(evidence)
    except RuntimeError as error:
        raise DataError(f"{folder} does not fit the model: {error}") from error
    return model


def read_tower(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of a tower and of its evidence finder, as `eval_study.gpu.assemble` writes them.

    Raises DataError where one of the files is missing or no safetensors.
    """
    parts = []
    for name in ("perception.safetensors", "evidence.safetensors"):
        try:
            parts.append({k: v.float() if v.is_floating_point() else v for k, v in load_file(folder / name).items()})
        except (OSError, SafetensorError) as error:
            raise DataError(f"{folder / name} holds no weights of a tower: {error}") from error
    return parts[0], parts[1]


def on_published_weights(
    config: ModelConfig, recipe: TrainConfig, base: Path, distributed: DistributedContext, work: Path | None = None
) -> SkinClipVL:
    """The model on a published tower and language model, with fresh heads, the same in every process.

    Args:
        work: where stage 2 left heads and adapter to take; the model is then whole, on this process alone.
    """
    seed_everything(recipe.seed)
    perception = Perception(config.perception).freeze()
    model = assemble(
        config,
        perception,
        base,
        load_tokenizer(base),
        distributed.device,
        shared_out=distributed.sharded and work is None,
    )
    if work is not None and (state := load_checkpoint(work / "stage2.pt")):
        model.load_heads(state["heads"])
        model.reasoner.load_adapter_state(state["adapter"])
    return model.eval()


def find_published(config: ModelConfig) -> tuple[Path, str]:
    """The folder of the language model that a preset is built on, and what tells its weights from others.

    Raises MissingWeights, saying what to run, where they or those of CLIP are not on this computer.
    """
    folder = find_base(str(config.reasoner.base), config.reasoner.revision)
    find_clip(config.perception)
    identity = base_identity(folder)
    return folder, f"{identity.architecture} {identity.weights}"


def train_baseline(recipe: TrainConfig, root: Path, work: Path, out: Path, strict: bool = False) -> PlainClassifier:
    """The plain classifier in one go; writes its checkpoint to `out`.

    Raises DataError where no photo can calibrate, where there are fewer photos than a batch, or where `work` holds the
    training of another recipe.
    """
    claim(work, recipe)
    cache = work / "cache"
    cases = gather_calibrated(root, cache, strict)
    photos, calib = training_photos(recipe, cases["train"], cache), photo_set(cases["calib"], recipe.photo_size, cache)
    labelled = int((photos.diagnosis != MISSING).sum())
    _refuse_small([("stage0", recipe.stage0.batch_size, labelled)])
    model = train_plain(recipe, photos, valid_photos(recipe, cases, cache), calib, work)
    model.save(out)
    save_yaml(recipe, out / "recipe.yaml")
    integrity.record(out)
    return model


def claim(work: Path, recipe: TrainConfig, config: ModelConfig | None = None, base: str = "") -> None:
    """Marks `work` as that of a recipe, a model and the published weights that it is built on.

    Raises DataError where it is another's, whose stages must not be resumed.
    """
    work.mkdir(parents=True, exist_ok=True)
    path, other = work / "recipe.yaml", "give another --work or remove that folder"
    if path.exists() and _read_as(TrainConfig, path) != recipe:
        raise DataError(f"{work} holds a training by another recipe; {other}")
    save_yaml(recipe, path)
    if config is None:
        return
    path = work / "config.yaml"
    if path.exists() and _read_as(ModelConfig, path) != config:
        raise DataError(f"{work} holds the training of another model; {other}")
    save_yaml(config, path)
    path = work / "base.txt"
    if path.exists() and path.read_text() != base:
        raise DataError(f"{work} holds a training on other weights than those in {config.reasoner.base}; {other}")
    path.write_text(base)


def _read_as(cls: type, path: Path) -> Any:
    """The config in a file, None where another version wrote it."""
    try:
        return load_yaml(cls, path)
    except ValueError:
        return None


def gather_calibrated(root: Path, cache: Path, strict: bool = False) -> dict[str, list[Case]]:
    """All cases by split that can be read. Raises DataError, before anything is trained, where none could calibrate.

    Args:
        cache: see `readable`.
    """
    cases = readable(gather(root, strict), cache, strict)
    if not cases.get("calib"):
        raise DataError('no photo to calibrate on: no data set here has rows whose split is "calib"')
    return cases


def training_photos(recipe: TrainConfig, cases: list[Case], cache: Path, published: bool = False) -> PhotoSet:
    """The photos to learn from, close-ups among them, with those that the tower never saw marked.

    Args:
        published: the tower comes from elsewhere and saw none of them.
    """
    learnt = with_clinical(scarce(cases, recipe.share, recipe.seed))
    unseen = {photo_key(c) for c in learnt} if published else unseen_keys(learnt, recipe)
    return photo_set(learnt, recipe.photo_size, cache, unseen)


def check_enough(recipe: TrainConfig, photos: PhotoSet, ready: bool) -> None:
    """Raises DataError, before anything is trained, where a stage has fewer photos to draw from than a batch holds.

    Args:
        ready: the tower is trained already.
    """
    drawn = int((stage2_weights(photos, recipe.stage2) > 0).sum())
    needed = [("stage2", recipe.stage2.batch_size, drawn)]
    if not ready:
        needed.append(("stage0", recipe.stage0.batch_size, int((~photos.unseen).sum())))
    _refuse_small(needed)


def _refuse_small(needed: list[tuple[str, int, int]]) -> None:
    """Raises DataError for the first (stage, photos a batch, photos there are) that has too few."""
    for stage, batch, there in needed:
        if there < batch:
            raise DataError(
                f"{stage} learns from batches of {batch} photos, but there are only {there} training photos for it: "
                f"add photos, or set a smaller `batch_size` in the recipe's {stage}"
            )


def valid_photos(recipe: TrainConfig, cases: dict[str, list[Case]], cache: Path) -> dict[str, PhotoSet]:
    """Validation photos with a diagnosis, by data set."""
    labelled = [c for c in cases.get("valid", []) if c.diagnosis]
    return {name: photo_set(part, recipe.photo_size, cache) for name, part in _by_source(labelled).items()}


def _by_source(cases: list[Case]) -> dict[str, list[Case]]:
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.source, []).append(case)
    return groups
