"""The model store: the published weights that the big presets are built on, as plain files on this computer.

A checkpoint of such a preset holds an adapter and its heads; Qwen2.5-VL and CLIP lie here, once for all of them:

    $SKINCLIP_HOME/models/Qwen--Qwen2.5-VL-3B-Instruct/<revision>/config.json, model-00001-of-00002.safetensors, ...

Nothing here uses a network: `skinclip.hub.fetch` fills the store, loading only reads it. A folder laid out as the hub
lays it out does as well, wherever it lies. Missing, truncated or wrong-revision files are reported before any load.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from skinclip.core.config import PRESETS, ModelConfig, PerceptionConfig, load_yaml
from skinclip.core.config import preset as preset_config
from skinclip.core.paths import ASSETS, INSTALLED, data_directory, without_tilde
from skinclip.hub.layout import (
    IncompleteWeights,
    MissingWeights,
    WrongRevision,
    check_complete,
    read_header,
    read_source,
)
from skinclip.hub.sources import BASES, CLIP_FILES, CLIPS, sources


def checkpoint_folder(preset: str) -> Path:
    """Folder of a preset's own checkpoint: embedded, or where `train` puts what stands on published weights."""
    return (ASSETS if preset_config(preset).reasoner.base is None else Path("checkpoints")) / preset


def output_folder(preset: str) -> Path:
    """Returns the folder that `train` writes to by default: in a checkout the one the preset is loaded from."""
    return Path("checkpoints") / preset if INSTALLED else checkpoint_folder(preset)


def check_preset(preset: str, weights: Path | None = None) -> None:
    """Says before anything is loaded what is missing to load a preset. Raises ValueError or MissingWeights.

    Args:
        weights: its checkpoint, where it lies elsewhere.
    """
    folder = weights or checkpoint_folder(preset)
    if not (folder / "config.yaml").exists():
        raise MissingWeights(no_checkpoint(preset, folder))
    config = load_yaml(ModelConfig, folder / "config.yaml")
    if config.reasoner.base is not None and not config.reasoner.base.startswith("./"):  # which it carries itself
        find_base(config.reasoner.base, config.reasoner.revision)
    find_clip(config.perception)


def store_dir(home: Path | None = None) -> Path:
    """Folder in which weights are kept: `models` below `home`, by default the data directory."""
    return (without_tilde(home) if home else data_directory().kept) / "models"


def folder_of(hub_id: str, revision: str, store: Path | None = None) -> Path:
    return (store or store_dir()) / hub_id.replace("/", "--") / revision


def find_base(base: str, revision: str | None = None, store: Path | None = None) -> Path:
    """The folder of Qwen2.5-VL weights that a config names, whole.

    Args:
        base: a folder laid out as the hub lays it out, or a hub id whose weights lie in the store.
        revision: full commit; None is any of a folder, the published one of a hub id.

    Raises MissingWeights, and its kinds IncompleteWeights and WrongRevision, saying what to run.
    """
    if Path(base).is_dir():
        folder = Path(base)
        had = read_source(folder).get("revision")
        if revision and had and had != revision:
            raise WrongRevision(f"{folder} holds revision {had}, this preset needs {revision}; {_remedy(base)}")
    else:
        folder = _in_store(base, revision, store)
    try:
        check_complete(folder)
    except IncompleteWeights as error:
        raise IncompleteWeights(f"{error}; {_remedy(base)}") from error
    return folder


def find_clip(config: PerceptionConfig, store: Path | None = None) -> str | None:
    """The file of CLIP weights that a config names, None where the checkpoint carries them.

    open_clip would download a tag it does not have. Raises MissingWeights instead, saying what to run.
    """
    if config.pretrained is None or Path(config.pretrained).is_file():
        return config.pretrained
    source = CLIPS.get((config.model, config.pretrained))
    if source is None:
        raise MissingWeights(
            f"there is no file {config.pretrained!r} of weights for {config.model}, and this program downloads none "
            "while it loads; give the path of an open_clip checkpoint as perception.pretrained"
        )
    try:
        return str(clip_file(_in_store(source.hub_id, source.revision, store)))
    except IncompleteWeights as error:
        raise IncompleteWeights(f"{error}; {_remedy(source.hub_id)}") from error


def clip_file(folder: Path) -> Path:
    """The weights in a CLIP folder of the store. Raises IncompleteWeights where there are none, or not whole ones."""
    for path in (folder / name for name in CLIP_FILES):
        if path.is_file():
            if path.suffix == ".safetensors":
                read_header(path)
            return path
    raise IncompleteWeights(f"{folder} holds no {CLIP_FILES[0]}")


def _in_store(hub_id: str, revision: str | None, store: Path | None) -> Path:
    revision = revision or (BASES[hub_id].revision if hub_id in BASES else None)
    if revision is None:
        raise MissingWeights(f"{hub_id!r} is neither a folder here nor a base that this version knows; give a folder")
    folder = folder_of(hub_id, revision, store)
    if folder.is_dir():
        return folder
    if part_of(folder).exists():
        raise MissingWeights(f"a download of {hub_id} was interrupted; to go on, {_remedy(hub_id)}")
    others = [p.name for p in folder.parent.glob("*") if p.is_dir() and not p.suffix and not p.name.startswith(".")]
    if others:
        raise WrongRevision(f"of {hub_id} the store holds {', '.join(others)}, not {revision}; {_remedy(hub_id)}")
    raise MissingWeights(f"the weights of {hub_id} are not in {folder.parent.parent}; {_remedy(hub_id)}")


def part_of(folder: Path) -> Path:
    """Folder in which a download into `folder` gathers until it is whole."""
    return folder.with_name(f"{folder.name}.part")


def _remedy(hub_id: str) -> str:
    """The commands that bring the weights."""
    for name in PRESETS:
        with contextlib.suppress(MissingWeights):  # of a preset that stands on nothing published
            if hub_id in (source.hub_id for source in sources(name)):
                return how_to_fetch(name)
    return "copy the whole folder again from where it came from"


def how_to_fetch(preset: str) -> str:
    """Both ways to get a preset's weights, with the disk they need."""
    base, clip = sources(preset)
    command = f"python -m skinclip fetch --preset {preset}"
    return (
        f"run `{command}` ({gigabytes(base.size)}, and {gigabytes(clip.size)} for CLIP), or without a network "
        f"`{command} --from DIR --clip FILE` with copies of them. Their licences: {base.licence}; CLIP: {clip.licence}"
    )


def no_checkpoint(preset: str, folder: Path) -> str:
    """Instructions for a preset without a checkpoint in `folder`: first get its base, if that is missing too."""
    config = preset_config(preset)
    steps = f"train them with `python -m skinclip train --preset {preset}` or give a checkpoint with --weights"
    if config.reasoner.base is None:
        return f"there are no weights for the preset {preset!r} in {folder}; {steps}"
    own = f"the preset {preset!r} has no adapter and heads of ours in {folder}"
    try:
        find_base(config.reasoner.base, config.reasoner.revision)
        find_clip(config.perception)
    except MissingWeights as error:
        return f"{error}. Then, as {own}, {steps}"
    return f"the published weights are in place, but {own}; {steps}"


def gigabytes(size: int) -> str:
    """Bytes in words; of what is small, in smaller units."""
    unit, name = (1e9, "GB") if size >= 1e8 else (1e6, "MB") if size >= 1e5 else (1e3, "kB")
    return f"{size / unit:.1f} {name}"
