"""All paths: the files that the program brings along, and the one directory that it writes to.

The assets (weights, example photos, page files) lie at the top of a checkout and inside an installed package, where
pyproject.toml maps them in. Nothing is ever written there but by the project's own training in a checkout.

The data directory holds whatever the served page writes, whichever library writes it. `prepare` runs before Gradio,
torch or Matplotlib is imported, for each of them then reads from the environment where to write. What may stay
(downloaded weights, caches) and what only passes through (uploads, temporary files) have a folder each: on a Space that
has storage attached, photos never get there.
"""

from __future__ import annotations

import atexit
import getpass
import os
import secrets
import shutil
import tempfile
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

PACKAGE = Path(__file__).resolve().parents[1]
IMPORT_ROOT = PACKAGE.parent  # the folder that `import skinclip` finds the package in
INSTALLED = (PACKAGE / "assets").is_dir()  # by a wheel; else this is a checkout, which may be installed as editable
ASSETS = PACKAGE / "assets" if INSTALLED else IMPORT_ROOT / "assets"
EXAMPLES = ASSETS / "examples"
TRUST_STUDY = (
    ASSETS / "trust_study" if INSTALLED else IMPORT_ROOT / "eval_study" / "trust_study" / "protocol"
) / "trust_study.yaml"

HOME = "SKINCLIP_HOME"
NO_HOME = f"this user has no home directory; set {HOME} to a folder that may be written to"
FETCH = "SKINCLIP_FETCH"  # "yes": the page may download what its preset is built on
PULL = "SKINCLIP_PULL"  # OWNER/NAME or OWNER/NAME@COMMIT on the hub, for a preset without a checkpoint here
SPACE = "SPACE_ID"  # set on every Hugging Face Space: https://huggingface.co/docs/hub/spaces-overview
SPACE_FRAME = "https://huggingface.co"  # the page that shows a Space in a frame
SPACE_STORAGE = Path("/data")  # where storage is attached to a Space by custom
RUN = "run-"
Environment = MutableMapping[str, str]


class DataDirectoryError(ValueError):
    """There is no place to write to; the message says what to set."""


@dataclass(frozen=True)
class DataDirectory:
    """The folder for files that may stay, and the one for files that only pass through."""

    kept: Path  # weights and caches
    passing: Path  # a folder for each running server, gone with it


def on_space(environment: Environment = os.environ) -> bool:
    """Tells a Hugging Face Space by the variable that every Space sets."""
    return bool(environment.get(SPACE))


def data_directory(environment: Environment = os.environ) -> DataDirectory:
    """Returns the folders the program may write to: below `SKINCLIP_HOME` if set, else in the user's cache.

    All that stays can be fetched or made again.
    Raises DataDirectoryError for a user without any.
    """
    if chosen := environment.get(HOME):
        home = without_tilde(Path(chosen)).absolute()
        return DataDirectory(home, home / "tmp")
    try:
        own = user_cache_path("skinclip", appauthor=False)
    except RuntimeError as problem:
        raise DataDirectoryError(NO_HOME) from problem
    if not own.is_absolute():
        raise DataDirectoryError(NO_HOME)
    attached = on_space(environment) and os.access(SPACE_STORAGE, os.W_OK)
    return DataDirectory(SPACE_STORAGE / "skinclip" if attached else own, own / "tmp")


def without_tilde(path: Path) -> Path:
    """Replaces `~` by the home directory. Raises DataDirectoryError where there is none."""
    try:
        return path.expanduser()
    except RuntimeError as problem:  # no HOME, and a user number that no account has, as under `docker run --user`
        raise DataDirectoryError(f"{path}: {NO_HOME}") from problem


def name_user(environment: Environment = os.environ) -> None:
    """Gives a user without an account a name, as under `docker run --user`: torch calls its cache after the user."""
    if not any(environment.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        try:
            getpass.getuser()
        except (KeyError, OSError):  # OSError from Python 3.13 on
            environment["USER"] = f"uid-{os.getuid()}"


def prepare(environment: Environment = os.environ) -> Path:
    """Makes the data directory and points every library to it; returns the folder of what is kept.

    Variables that name a place for one library alone (`HF_HOME`, `GRADIO_TEMP_DIR`, ...) win where they are set. The
    temporary files of this run go when the program ends, and those of a run that was killed go now.

    Raises DataDirectoryError where it cannot be written to.
    """
    place = data_directory(environment)
    try:
        for folder in (place.kept, place.passing):
            folder.mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                raise PermissionError(f"no permission to write to {folder}")
        _clear_abandoned(place.passing)
        run = _own_folder(place.passing)
    except OSError as problem:
        raise DataDirectoryError(f"{problem}; set {HOME} to a folder that may be written to") from problem
    tempfile.tempdir = str(run)
    environment.update({HOME: str(place.kept), "TMPDIR": str(run), "XDG_CACHE_HOME": str(place.kept / "cache")})
    for name, folder in _places(place.kept, run).items():
        environment.setdefault(name, str(folder))
    return place.kept


def _places(kept: Path, run: Path) -> dict[str, Path]:
    """Folders for libraries that would otherwise choose a place by themselves."""
    cache = kept / "cache"
    return {
        "GRADIO_TEMP_DIR": run / "uploads",
        "HF_HOME": kept / "huggingface",
        "MPLCONFIGDIR": cache / "matplotlib",
        "TORCH_HOME": cache / "torch",
        "TORCHINDUCTOR_CACHE_DIR": cache / "inductor",
        "TRITON_CACHE_DIR": cache / "triton",
        "CUDA_CACHE_PATH": cache / "cuda",
    }


def _own_folder(passing: Path) -> Path:
    """A new folder that only this user can enter and that goes when the program ends; locked for as long as it runs.

    The lock comes first: a folder without one is what another server, starting now, takes for abandoned.
    """
    run = passing / f"{RUN}{secrets.token_hex(8)}"
    lock = FileLock(_lock_of(run))
    lock.acquire(blocking=False)
    run.mkdir(mode=0o700)

    def leave() -> None:
        shutil.rmtree(run, ignore_errors=True)
        lock.release()
        _lock_of(run).unlink(missing_ok=True)

    atexit.register(leave)
    return run


def _clear_abandoned(passing: Path) -> None:
    """Deletes what runs left behind that could not clean up: an upload of theirs may be in it."""
    for run in passing.glob(f"{RUN}*/"):
        lock = FileLock(_lock_of(run))
        try:
            lock.acquire(blocking=False)
        except Timeout:  # that server still runs
            continue
        shutil.rmtree(run, ignore_errors=True)
        lock.release()
        _lock_of(run).unlink(missing_ok=True)


def _lock_of(run: Path) -> Path:
    """Beside the folder, not in it: some systems delete no file that is locked."""
    return run.with_name(f".{run.name}.lock")
