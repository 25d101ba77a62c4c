"""Origins of weights: the hub, or a copy on this computer. Both list their files with what is known of them.

`snapshot_download` of huggingface_hub 2.4 throws an unfinished file away when a download is cut. So files come through
the `http_get` below it, which takes one up at the byte where it stopped, by plain HTTP.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from skinclip.hub.layout import (
    SOURCE_FILE,
    IncompleteWeights,
    MissingWeights,
    WrongRevision,
    check_complete,
    read_header,
    read_source,
)
from skinclip.hub.sources import CLIP_FILES, Source, check_shape

_PATIENCE = 30.0  # seconds that the hub may take to say what a repository holds
_BLOCK = 1 << 22  # bytes hashed at a time
_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".safetensors")
_SHA256, _COMMIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


class FetchError(MissingWeights):
    """Weights could not be brought in; the message says why and what to do. The store is as it was."""


@dataclass(frozen=True)
class File:
    """A file to bring in, with what is known of it: bytes, sha256, or the sha1 that git gives its content."""

    name: str
    size: int | None = None
    sha256: str | None = None
    git: str | None = None

    @property
    def known(self) -> bool:
        return bool(self.sha256 or self.git)

    def right(self, path: Path) -> str | None:
        """The sha256 of `path`, None where it is not this file."""
        size = path.stat().st_size
        if self.size not in (None, size):
            return None
        sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size)
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                sha256.update(block)
                if self.git:
                    git.update(block)
        if self.sha256 not in (None, sha256.hexdigest()) or self.git not in (None, git.hexdigest()):
            return None
        return sha256.hexdigest()


class Origin(Protocol):
    """An origin of files."""

    files: list[File]
    downloads: bool

    def bring(self, file: File, target: Path) -> None:
        """Writes `file` to `target`, going on with what is there already where it can."""


class Hub:
    """The hub, or a mirror of it at $HF_ENDPOINT."""

    downloads = True

    def __init__(self, source: Source) -> None:
        """Asks the hub what it has. Raises FetchError or WrongRevision."""
        self.source = source
        self.endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")
        with _in_words(source, self.endpoint):
            try:
                info = HfApi(endpoint=self.endpoint).model_info(
                    source.hub_id, revision=source.revision, files_metadata=True, timeout=_PATIENCE
                )
            except (ValueError, KeyError, TypeError) as error:
                raise FetchError(
                    f"{self.endpoint} does not answer as the hub does ({type(error).__name__}); a proxy or a sign-in "
                    "page of the network may stand between"
                ) from error
        if info.sha != source.revision:
            raise WrongRevision(f"{self.endpoint} gives revision {info.sha} of {source.hub_id} for {source.revision}")
        self.files = [
            self._file(s.rfilename, s.size, s.lfs.sha256 if s.lfs else None, None if s.lfs else s.blob_id)
            for s in info.siblings or []
            if s.rfilename in source.files or not source.files
        ]

    def _file(self, name: str, size: int | None, sha256: str | None, git: str | None) -> File:
        """One file of the listing. What this version pins outweighs what the hub says."""
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name or ":" in name:
            raise FetchError(f"{self.endpoint} lists a file {name!r} for {self.source.hub_id}, which is no safe name")
        pinned = self.source.weights.get(name)
        if pinned and (size not in (None, pinned[0]) or sha256 not in (None, pinned[1])):
            raise FetchError(
                f"{name} of {self.source.hub_id} at {self.endpoint} is not the published file: {size} bytes, sha256 "
                f"{sha256}; expected {pinned[0]} bytes, {pinned[1]}. Nothing was downloaded"
            )
        return File(name, *(pinned or (size, sha256)), None if pinned else git)

    def bring(self, file: File, target: Path) -> None:
        url = hf_hub_url(self.source.hub_id, file.name, revision=self.source.revision, endpoint=self.endpoint)
        begun = target.stat().st_size if target.exists() else 0
        if file.size is not None and begun > file.size:
            begun = 0
        with _in_words(self.source, self.endpoint, target.parent), target.open("ab" if begun else "wb") as stream:
            http_get(
                url,
                stream,
                resume_size=begun,
                headers={**build_hf_headers(), "Accept-Encoding": "identity"},  # packed bytes cannot be taken up again
                expected_size=file.size,
                displayed_filename=file.name,
            )


class Copy:
    """A copy on this computer: a folder laid out as the hub lays it out, or a file of CLIP weights."""

    downloads = False

    def __init__(self, source: Source, given: Path, link: bool) -> None:
        """Checks the copy. Raises MissingWeights, IncompleteWeights or WrongRevision."""
        self.source, self.link = source, link
        self.paths = _clip_copy(source, given) if source.tensors else _base_copy(source, given)
        known = {name: _known(path) for name, path in self.paths.items()}
        revisions = {revision for revision, _ in known.values() if revision}
        if revisions - {source.revision}:
            raise WrongRevision(
                f"{given} is revision {', '.join(sorted(revisions))} of {source.hub_id}, needed is {source.revision}; "
                f"get it with `hf download {source.hub_id} --revision {source.revision} --local-dir DIR`"
            )
        self.files = [self._file(name, known[name][1]) for name in sorted(self.paths)]

    def _file(self, name: str, mark: str | None) -> File:
        if name in self.source.weights:
            return File(name, *self.source.weights[name])
        size = self.paths[name].stat().st_size
        if mark and _SHA256.fullmatch(mark):
            return File(name, size, mark)
        return File(name, size, None, mark if mark and _COMMIT.fullmatch(mark) else None)

    def bring(self, file: File, target: Path) -> None:
        path = self.paths[file.name].resolve()  # the content: the hub's cache holds symbolic links
        target.unlink(missing_ok=True)
        try:
            if self.link:
                os.link(path, target)
            else:
                shutil.copyfile(path, target)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise FetchError(_disk_full(target)) from error
            if self.link and error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                raise FetchError(f"{path} cannot be linked into {target.parent}; leave out --link") from error
            raise


def _base_copy(source: Source, given: Path) -> dict[str, Path]:
    """The files of a folder that belong to the model, by name. Raises MissingWeights where it is not `source`."""
    if not given.is_dir():
        raise FetchError(f"there is no folder {given}; give --from a copy of {source.hub_id}")
    weights = check_complete(given)
    check_shape(source, given)
    beside = [p for p in given.iterdir() if p.is_file() and not p.name.startswith(".") and p.name != SOURCE_FILE]
    return {p.name: p for p in (*weights, *(p for p in beside if p.suffix not in _OTHER_WEIGHTS))}


def _clip_copy(source: Source, given: Path) -> dict[str, Path]:
    path = given / CLIP_FILES[0] if given.is_dir() else given
    if not path.is_file():
        raise FetchError(f"there is no file {path}; give --clip a copy of {source.hub_id}'s {CLIP_FILES[0]}")
    check_tensors(source, path)
    return {CLIP_FILES[0] if path.suffix == ".safetensors" else CLIP_FILES[1]: path}


def check_tensors(source: Source, path: Path) -> None:
    """Raises MissingWeights where `path` holds other weights than those of `source`'s architecture."""
    if path.suffix == ".safetensors":
        shapes = read_header(path)[1]
    else:
        import torch

        try:
            state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
            shapes = {k: tuple(v.shape) for k, v in state.get("state_dict", state).items() if hasattr(v, "shape")}
        except Exception as error:  # whatever the format's many readers raise
            raise IncompleteWeights(f"{path} cannot be read as plain weights: {error}") from error
    if {k: shapes.get(k, shapes.get(f"module.{k}")) for k in source.tensors} != dict(source.tensors):
        raise MissingWeights(f"{path} does not hold weights of the shape of {source.hub_id}")


def _known(path: Path) -> tuple[str | None, str | None]:
    """(revision, sha256 or git's sha1) that the surroundings of a file tell, None where they do not.

    Read from our own `SOURCE_FILE`, the hub's cache (snapshots/<revision>/name -> blobs/<hash>) or the notes that
    `hf download --local-dir` leaves (.cache/huggingface/download/name.metadata).
    """
    ours = read_source(path.parent)
    if path.name in ours.get("files", {}):
        published = path.name not in ours.get("unchecked", [])
        return ours.get("revision"), ours["files"][path.name].get("sha256") if published else None
    if path.parent.parent.name == "snapshots":
        return path.parent.name, Path(os.readlink(path)).name if path.is_symlink() else None
    notes = path.parent / ".cache" / "huggingface" / "download" / f"{path.name}.metadata"
    lines = notes.read_text(encoding="utf-8").split() if notes.is_file() else []
    return (lines[0], lines[1]) if len(lines) >= 2 else (None, None)


class Unreachable(FetchError):
    """There is no way to the hub."""


@contextlib.contextmanager
def _in_words(source: Source, endpoint: str, part: Path | None = None) -> Iterator[None]:
    """Turns what huggingface_hub raises into a FetchError that says what to do."""
    kept = f"; what has come is kept in {part}, run the same command to go on" if part else ""
    try:
        yield
    except FetchError:
        raise
    except RevisionNotFoundError as error:
        raise WrongRevision(f"{endpoint} has no revision {source.revision} of {source.hub_id}{kept}") from error
    except HfHubHTTPError as error:
        raise FetchError(_refused(error, source, endpoint) + kept) from error
    except (OfflineModeIsEnabled, HTTPError) as error:
        if part is None:
            reason = "HF_HUB_OFFLINE is set" if isinstance(error, OfflineModeIsEnabled) else error
            raise Unreachable(f"the hub cannot be reached at {endpoint} ({reason})") from error
        raise FetchError(f"the connection to {endpoint} broke off ({error}){kept}") from error
    except OSError as error:
        if error.errno == errno.ENOSPC and part:
            raise FetchError(_disk_full(part) + kept) from error
        if error.errno is None and part:  # http_get's own: fewer bytes came than were announced
            raise FetchError(f"the connection to {endpoint} broke off{kept}") from error
        raise


def _refused(error: HfHubHTTPError, source: Source, endpoint: str) -> str:
    status = error.response.status_code if error.response is not None else 0
    if isinstance(error, GatedRepoError) or status in (401, 403):
        return (
            f"{endpoint} asks who wants {source.hub_id} (status {status}): accept its terms on its page if it has any, "
            "sign in with `hf auth login` or set HF_TOKEN and run the same command, or give copies (--from, --clip)"
        )
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return f"{endpoint} has no {source.hub_id}, or a file of it is gone (status {status})"
    return f"{endpoint} answers with status {status}; try again later"


def _disk_full(path: Path) -> str:
    return f"the disk with {path} is full; make room or choose another place with --store DIR"
