"""Place of a study's key: apart from the study's folder, so that a copy of the folder opens nothing.

The key seals the log, the answers and the truth. `study build` puts it into the user's own data folder, or where
SKINCLIP_STUDY_KEYS says; SKINCLIP_STUDY_KEY names the key file itself, on a stick or a mounted secret. Studies of
earlier versions have it in their folder, where it is still found.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from skinclip.core.paths import NO_HOME, DataDirectoryError, data_directory
from skinclip.study.errors import KeyFileError
from skinclip.study.store.codes import read_key
from skinclip.study.store.study_key import StudyKey

KEY = "key"  # in the folder of a study of an earlier version
KEY_FILE, KEYS_FOLDER = "SKINCLIP_STUDY_KEY", "SKINCLIP_STUDY_KEYS"
KEY_IDENTITY = "key"  # entry of frozen.json: which key the study needs
_FOLDER = "study_keys"


def keys_folder() -> Path:
    """The folder that new keys are written to. Raises KeyFileError for a user without one."""
    if chosen := os.environ.get(KEYS_FOLDER):
        return Path(chosen)
    try:
        return user_data_path("skinclip", appauthor=False) / _FOLDER
    except RuntimeError as problem:
        raise KeyFileError(f"there is no place for the study's key: {NO_HOME}, or {KEYS_FOLDER}") from problem


def key_path(folder: Path, record: Mapping[str, Any]) -> Path:
    """The key file of the study in `folder`, whose `frozen.json` is `record`; it may be missing."""
    if named := os.environ.get(KEY_FILE):
        return Path(named)
    identity = record.get(KEY_IDENTITY)
    if identity is None:
        return folder / KEY
    places = [*(place / f"{identity}.key" for place in _places()), folder / KEY]
    return next((path for path in places if path.exists()), places[0])


def read_study_key(folder: Path, record: Mapping[str, Any]) -> bytes:
    """The study's key. Raises KeyFileError saying where it is looked for."""
    path = key_path(folder, record)
    if not path.exists() and record.get(KEY_IDENTITY):
        raise KeyFileError(
            f"the key of {folder} is not at {path}: copy it there from the computer that the study was built on or "
            f"from its backup, or say with {KEY_FILE}=FILE where it is; without it nothing can be read"
        )
    key = read_key(path)
    if record.get(KEY_IDENTITY) not in (None, StudyKey(key).identity):
        raise KeyFileError(f"{path}: this is the key of another study, not of {folder}")
    return key


def store_key(given: Path | None) -> tuple[Path, bytes, bool]:
    """The key for a new study: that in `given`, or a fresh one, kept in `keys_folder`.

    Returns its file, the key, and whether the file is new. Raises KeyFileError.
    """
    folder = keys_folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise KeyFileError(
            f"{folder}: the study's key cannot be written ({error.strerror}); say with {KEYS_FOLDER}=DIR where"
        ) from error
    if given is not None:
        key = read_key(given)
        path = folder / f"{StudyKey(key).identity}.key"
        if path.exists():
            return path, key, False
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(key.hex() + "\n")
        return path, key, True
    draft = folder / f".new-{os.getpid()}-{os.urandom(4).hex()}"
    key = read_key(draft, create=True)
    path = folder / f"{StudyKey(key).identity}.key"
    draft.rename(path)
    return path, key, True


def _places() -> list[Path]:
    """Folders in which a key is looked for, the one for new keys first."""
    places = [keys_folder()]
    with suppress(DataDirectoryError):
        places.append(data_directory().kept / _FOLDER)
    return places
