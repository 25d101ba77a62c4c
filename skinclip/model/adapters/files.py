"""Adapters as files: what a folder of them holds, merged into their base, handed on and fetched.

An adapter is the checkpoint of a preset on published weights: LoRA, heads, calibration, its card, and the identity of
the base it was made for (`skinclip.model.foundation`), but no base. `Assessor.switch` activates one.

What leaves this computer is a list of known files, checked one by one; a folder that holds anything else is refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from skinclip.core.config import save_yaml
from skinclip.hub.layout import (
    CALIBRATION_ARRAYS,
    MissingWeights,
    check_complete,
    is_calibration_array,
    read_header,
)
from skinclip.hub.origins import FetchError, File, Hub
from skinclip.hub.sources import Source
from skinclip.hub.store import find_base
from skinclip.model import foundation
from skinclip.model.adapters import card
from skinclip.model.adapters.merging import merged_language_model
from skinclip.model.checkpoint import CARRIED, read_config, read_foundation, weights_sha256
from skinclip.model.errors import CheckpointError
from skinclip.model.foundation import Foundation
from skinclip.model.memory import check_merge
from skinclip.model.perception import Perception

NEEDED = ("config.yaml", "heads.safetensors", "adapter.safetensors", "trust.safetensors", "findings.json", "base.json")
MORE = ("recipe.yaml", card.RESULTS, card.FILE)
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("merges.txt", "chat_template.jinja"),
)
_HUB_ID, _COMMIT = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+"), re.compile(r"[0-9a-f]{40}")
_UNFINISHED = ".incomplete"
Tell = Callable[[str], None]


class AdapterError(CheckpointError):
    """An adapter that cannot be handed on, fetched or merged; the message says why."""


@dataclass(frozen=True)
class AdapterInfo:
    """Description of an adapter by itself; `problem` is why it cannot be used, in words."""

    folder: Path
    name: str
    preset: str
    weights_sha256: str
    made_for: Foundation | None
    problem: str | None = None


def list_adapters(folder: Path) -> list[AdapterInfo]:
    """All checkpoints among the subfolders of `folder`, by name. Raises AdapterError where there is no such folder."""
    if not folder.is_dir():
        raise AdapterError(f"there is no folder {folder}")
    return [info(child) for child in sorted(folder.iterdir()) if (child / "config.yaml").is_file()]


def info(folder: Path) -> AdapterInfo:
    """Describes the adapter in `folder`. Raises CheckpointError where it holds no checkpoint at all."""
    if not (folder / "config.yaml").is_file():
        raise AdapterError(f"{folder} holds no checkpoint: config.yaml is missing")
    try:
        config = read_config(folder)
        carried = config.reasoner.base in (None, CARRIED)
        made_for = None if config.reasoner.base is None else read_foundation(folder)
        problem = "it carries its own base" if carried else None
    except (CheckpointError, ValueError) as error:
        return AdapterInfo(folder, folder.name, "", "", None, str(error))
    if not carried:
        try:
            check(folder)
        except CheckpointError as error:
            problem = str(error)
    return AdapterInfo(folder, card.card_name(folder), config.preset, weights_sha256(folder), made_for, problem)


def check(folder: Path) -> list[str]:
    """The names of all files of the adapter in `folder`, which is whole and holds nothing else.

    Raises CheckpointError naming what is missing, damaged, or does not belong to an adapter.
    """
    config = read_config(folder)
    if config.reasoner.base in (None, CARRIED):
        raise AdapterError(f"{folder} carries its own base and is not an adapter")
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise AdapterError(f"{folder} is not a complete adapter: {', '.join(missing)} missing")
    known = {*NEEDED, *MORE, *(f"tokenizer/{name}" for name in TOKENIZER)}
    entries = sorted(p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
    names = [p.relative_to(folder).as_posix() for p in entries]
    strange = [name for name, path in zip(names, entries, strict=True) if name not in known or path.is_symlink()]
    if strange:
        raise AdapterError(
            f"{folder} holds files that do not belong to an adapter: {', '.join(strange[:5])}; remove them"
        )
    try:
        for name in ("heads.safetensors", "adapter.safetensors"):
            read_header(folder / name)
        arrays = set(read_header(folder / "trust.safetensors")[1])
    except MissingWeights as error:
        raise AdapterError(f"{folder} is damaged: {error}") from error
    wrong_arrays = CALIBRATION_ARRAYS - arrays | {name for name in arrays if not is_calibration_array(name)}
    if wrong_arrays:
        wrong = ", ".join(sorted(wrong_arrays)[:3])
        raise AdapterError(f"{folder} is damaged: trust.safetensors lacks or adds arrays ({wrong})")
    read_foundation(folder)
    return names


# --- merging ------------------------------------------------------------------------------------------------------


def merge(folder: Path, out: Path, dtype: torch.dtype = torch.bfloat16, tell: Tell = print) -> None:
    """Writes to `out` the checkpoint in `folder` with LoRA merged into a base of its own, in 16 bit.

    The base is read in `dtype`, never in four bits, whose rounding would be merged in. What is written answers,
    unquantized, as base + LoRA do unquantized, but for 16-bit rounding. NF4 base + LoRA, which training and calibration
    saw, is something else, and NF4 of the merged weights once more. On the random weights of the tests' tiny base,
    relative to the logits of dense base + LoRA: merged in bf16 is 0.2 % away, in fp16 0.02 %, NF4 base + LoRA 7.5 %,
    NF4 of the merged weights 9.4 %, and the last two are 11 % apart. Calibrate anew before relying on merged weights.

    Raises CheckpointError or MissingWeights saying what does not fit, TooLittleMemory before anything is read; nothing
    is left half-written.
    """
    config = read_config(folder)
    check(folder)
    base = find_base(str(config.reasoner.base), config.reasoner.revision)
    perception = Perception(config.perception).freeze()
    if problem := read_foundation(folder).differences(Foundation.of(base, perception)):
        raise AdapterError(f"{folder} does not fit: it was {problem}")
    check_merge(dataclasses.replace(config, reasoner=dataclasses.replace(config.reasoner, base=str(base))))
    tell(f"Reading {base} in {str(dtype).removeprefix('torch.')}")
    merged = merged_language_model(base, folder / "adapter.safetensors", config.reasoner, dtype)
    with _gathering(out) as part:
        tell(f"Writing {out}")
        merged.save_pretrained(part / "reasoner", max_shard_size="2GB")
        for path in base.iterdir():  # tokenizer, image settings, licence
            if path.is_file() and path.suffix != ".safetensors" and not path.name.endswith(".index.json"):
                target = part / "reasoner" / path.name
                if not target.exists():
                    shutil.copyfile(path, target)
        check_complete(part / "reasoner")
        reasoner = dataclasses.replace(
            config.reasoner,
            base=CARRIED,
            revision=None,
            quantize=False,
            lora=dataclasses.replace(config.reasoner.lora, r=0),
        )
        save_yaml(dataclasses.replace(config, reasoner=reasoner), part / "config.yaml")
        for name in ("heads.safetensors", "trust.safetensors", "findings.json", "recipe.yaml"):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, part / name)
        shutil.copytree(folder / "tokenizer", part / "tokenizer")
        (part / foundation.FILE).write_text(Foundation.of(part / "reasoner", perception).to_json(), encoding="utf-8")
        card.write_card(part)
    tell(f"{out} is whole: use it with --weights {out}")


# --- handing on ---------------------------------------------------------------------------------------------------


def push(folder: Path, target: str, agree: Callable[[], bool], tell: Tell = print, private: bool = True) -> str:
    """Copies an adapter to a path, or uploads it to a repository of the hub; returns the path, or the new revision.

    Args:
        target: a path, or OWNER/NAME of the hub where there is no such folder.
        agree: asked before anything leaves this computer.
        private: of a repository that is made for it.

    Raises AdapterError; nothing is left half-written.
    """
    names = check(folder)
    if not on_hub(target):
        out = Path(target)
        _copy(folder, names, out)
        tell(f"{len(names)} files copied to {out}, each with its hash compared")
        return str(out)
    _refuse_paths(folder)
    tell(f"To the hub's repository {target} go {len(names)} files of {folder}: {', '.join(names)}")
    if not agree():
        raise AdapterError("nothing was uploaded")
    with _hub_in_words(target):
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        api.create_repo(target, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=target,
            folder_path=folder,
            allow_patterns=names,
            commit_message=f"{card.card_name(folder)}, weights {weights_sha256(folder)[:12]}",
        )
    listed = {file.name: file for file in Hub(_repository(target, commit.oid)).files}
    wrong = [name for name in names if name not in listed or listed[name].right(folder / name) is None]
    if wrong:
        raise AdapterError(
            f"{target} does not hold what was sent: {', '.join(wrong)}; do not use revision {commit.oid}"
        )
    tell(f"{target} holds it at revision {commit.oid}, each file with its hash compared")
    return commit.oid


def pull(source: str, out: Path, revision: str | None = None, tell: Tell = print) -> None:
    """Brings an adapter from a path or from a repository of the hub into the new folder `out`.

    Args:
        source: see `push`.
        revision: full commit of a repository; None takes the newest and tells which it is.

    Raises AdapterError or MissingWeights; `out` is then not there, and a download that was cut goes on next time.
    """
    if not on_hub(source):
        names = check(Path(source))
        _copy(Path(source), names, out)
        tell(f"{len(names)} files copied to {out}, each with its hash compared")
        return
    if revision is None:
        with _hub_in_words(source):
            revision = str(HfApi(endpoint=os.environ.get("HF_ENDPOINT")).model_info(source).sha)
        tell(f"The newest revision of {source} is {revision}; give it with --revision to get the same again")
    if not _COMMIT.fullmatch(revision):
        raise AdapterError(f"{revision!r} is not a full commit of 40 digits; a name can move, a commit cannot")
    hub = Hub(_repository(source, revision))
    known = {*NEEDED, *MORE, *(f"tokenizer/{name}" for name in TOKENIZER)}
    left = sorted(file.name for file in hub.files if file.name not in known and file.name != ".gitattributes")
    if left:
        tell(f"not taken, as they are no part of an adapter: {', '.join(left)}")
    with _gathering(out, goes_on=True) as part:
        _download(hub, [file for file in hub.files if file.name in known], part)
        check(part)
    tell(f"{out} holds revision {revision} of {source}")


def _download(hub: Hub, files: list[File], part: Path) -> None:
    """Brings into `part` what it lacks of `files`, each compared with the hash that the hub says."""
    names = {file.name for file in files}
    for path in [p for p in part.rglob("*") if p.is_file()]:  # of a download that was cut, or of another revision
        if path.relative_to(part).as_posix().removesuffix(_UNFINISHED) not in names:
            path.unlink()
    for file in files:
        target = part / file.name
        if target.is_file() and file.right(target):
            continue
        target.parent.mkdir(exist_ok=True)
        unfinished = target.with_name(target.name + _UNFINISHED)
        hub.bring(file, unfinished)
        if not file.known or file.right(unfinished) is None:
            raise AdapterError(f"{file.name} of {hub.source.hub_id} came with another hash than the hub says")
        os.replace(unfinished, target)


def on_hub(place: str) -> bool:
    """Tells whether a place is a repository of the hub rather than a path."""
    return bool(_HUB_ID.fullmatch(place)) and not Path(place).exists()


def _repository(hub_id: str, revision: str) -> Source:
    return Source(hub_id, revision, "", 0)


def _refuse_paths(folder: Path) -> None:
    """Raises AdapterError where the config names places of this computer, which are nobody else's business."""
    config = read_config(folder)
    base, clip = str(config.reasoner.base), config.perception.pretrained or ""
    for field, value in (("reasoner.base", base), ("perception.pretrained", clip)):
        if Path(value).is_absolute() or Path(value).exists() or value.startswith("~"):
            raise AdapterError(
                f"{field} in config.yaml is a path of this computer; write there how others find it, a hub id or a "
                "weights tag, before it is handed on"
            )


@contextmanager
def _hub_in_words(hub_id: str) -> Iterator[None]:
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        sign_in = "; sign in with `hf auth login` or set HF_TOKEN" if status in (401, 403, 404) else ""
        raise AdapterError(f"the hub answers with status {status} for {hub_id}{sign_in}") from error
    except HTTPError as error:
        raise AdapterError(f"the hub cannot be reached ({error})") from error


def _copy(source: Path, names: list[str], out: Path) -> None:
    """Copies files into the new folder `out`, which appears with all of them right or not at all."""
    with _gathering(out) as part:
        for name in names:
            target = part / name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, target)
            if _sha256(target) != _sha256(source / name):
                raise AdapterError(f"{name} did not arrive as it was sent; the disk may be failing. Nothing is kept")


@contextmanager
def _gathering(out: Path, goes_on: bool = False) -> Iterator[Path]:
    """A folder beside `out` that takes its place in the end; on an error nothing of it stays.

    Args:
        goes_on: a download that was cut is kept, for the next call to go on with.

    Raises AdapterError where `out` is there already.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise AdapterError(f"{out} is there already; choose another place, or take it away first")
    part = out.with_name(f"{out.name}.part")
    if not goes_on:
        shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        if out.exists():
            out.rmdir()
        os.replace(part, out)
    except BaseException as error:
        if not (goes_on and isinstance(error, (FetchError, KeyboardInterrupt))):
            shutil.rmtree(part, ignore_errors=True)
        raise


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
