"""Brings the weights a preset is built on into the model store: `python -m skinclip fetch --preset qwen-3b`.

The only part of this program that uses a network, and only when it is asked to. Notable:
- a folder appears in the store whole or not at all: files gather beside it, each is compared with its published hash
  before it gets its name, and one rename puts them in place;
- a download that was cut goes on at the byte where it stopped;
- a copy from elsewhere passes the same checks as a download, as far as its hashes are known.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from skinclip.hub.layout import SOURCE_FILE, IncompleteWeights, check_complete
from skinclip.hub.origins import Copy, FetchError, File, Hub, Origin, Unreachable, check_tensors
from skinclip.hub.sources import Source, check_shape, sources
from skinclip.hub.store import clip_file, folder_of, gigabytes, part_of, store_dir


@dataclass(frozen=True)
class Job:
    source: Source
    folder: Path
    origin: Origin

    @property
    def gathering(self) -> Path:
        """Folder in which its files gather; a download's stays if it is cut, a copy's does not."""
        return part_of(self.folder) if self.origin.downloads else self.folder.with_name(f"{self.folder.name}.copy")

    @property
    def size(self) -> int:
        """Bytes it needs; the published sum where the hub does not say."""
        sizes = [file.size for file in self.origin.files]
        return sum(s for s in sizes if s) if None not in sizes else self.source.size

    @property
    def to_come(self) -> int:
        """Bytes that the disk must still take."""
        if isinstance(self.origin, Copy) and self.origin.link:
            return 0
        begun = self.gathering if self.gathering.exists() or not self.origin.downloads else self.folder
        here = sum(p.stat().st_size for p in begun.rglob("*") if p.is_file())
        return max(0, self.size - here)


def fetch(
    preset: str,
    source: Path | None = None,
    progress: Callable[[str], None] = print,
    *,
    clip: Path | None = None,
    link: bool = False,
    home: Path | None = None,
    agree: Callable[[], bool] = lambda: True,
) -> list[Path]:
    """Brings the base and the CLIP of a preset into the store, from the hub unless a copy is given.

    Args:
        source: a folder with a copy of the base, also a snapshot in the hub's own cache.
        progress: takes the lines that say what is done; bars of a download go to stderr.
        clip: a file with a copy of the CLIP weights.
        link: hard-link copies instead of copying them.
        home: instead of $SKINCLIP_HOME.
        agree: asked once before anything is downloaded, after licences and sizes were reported.

    Returns:
        the folders in the store, the base's first.

    Raises ValueError for an unknown preset, MissingWeights and its kinds otherwise; then the store is as it was, but
    for the part of a download that has come, which the next call goes on with.
    """
    store = store_dir(home)
    folders = [folder_of(s.hub_id, s.revision, store) for s in sources(preset)]
    jobs = []
    for wanted, folder, given in zip(sources(preset), folders, (source, clip), strict=True):
        if _in_place(wanted, folder):
            progress(f"{wanted.hub_id} is in place: {folder}")
        else:
            jobs.append(Job(wanted, folder, Copy(wanted, given, link) if given else _hub(wanted, preset)))
    if not jobs:
        return folders
    _explain(jobs, store, progress)
    if any(job.origin.downloads for job in jobs) and not agree():
        raise FetchError("nothing was downloaded")
    for job in jobs:
        _carry_out(job, progress)
    return folders


def _in_place(source: Source, folder: Path) -> bool:
    """Is the folder there and whole? Not whether every byte is right: that was checked when it came."""
    try:
        if source.tensors:
            clip_file(folder)
        else:
            check_complete(folder)
    except IncompleteWeights:
        return False
    return True


def _hub(source: Source, preset: str) -> Hub:
    try:
        return Hub(source)
    except Unreachable as error:
        base, clip = sources(preset)
        raise FetchError(
            f"{error}. Connect and run the same command. Or make copies on a computer with a network, "
            f"`hf download {base.hub_id} --revision {base.revision} --local-dir DIR` and "
            f"`hf download {clip.hub_id} {clip.files[0]} --revision {clip.revision} --local-dir CLIP`, carry both here "
            f"and run `python -m skinclip fetch --preset {preset} --from DIR --clip CLIP/{clip.files[0]}`"
        ) from error


def _explain(jobs: Sequence[Job], store: Path, progress: Callable[[str], None]) -> None:
    """Says what comes, under which licence, and what disk it takes. Raises FetchError where the disk is too small."""
    for job in jobs:
        how = "download" if job.origin.downloads else "copy"
        progress(f"{job.source.hub_id}, revision {job.source.revision[:12]}: {how} of {gigabytes(job.size)}")
        progress(f"  Licence: {job.source.licence}")
    there = next(p for p in (store, *store.absolute().parents) if p.exists())
    needed, free = sum(job.to_come for job in jobs), shutil.disk_usage(there).free
    progress(f"Into {store}: {gigabytes(needed)} needed, {gigabytes(free)} free")
    if needed > free:
        raise FetchError(
            f"{store} has {gigabytes(free)} free, {gigabytes(needed)} are needed; make room for "
            f"{gigabytes(needed - free)}, or choose another place with --store DIR"
        )


def _carry_out(job: Job, progress: Callable[[str], None]) -> None:
    """One job from its first byte to its place in the store."""
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(job.folder.parent / ".lock", timeout=0):
            part = job.gathering
            if job.folder.exists() and job.origin.downloads and not part.exists():
                os.replace(job.folder, part)  # no longer whole: what is right of it is kept
            try:
                _gather(job, part, progress)
            except BaseException as error:
                if not job.origin.downloads:
                    shutil.rmtree(part, ignore_errors=True)
                elif isinstance(error, KeyboardInterrupt):
                    progress(f"what has come is kept in {part}; run the same command to go on")
                raise
            shutil.rmtree(job.folder, ignore_errors=True)
            os.replace(part, job.folder)
            shutil.rmtree(part_of(job.folder), ignore_errors=True)
    except Timeout as error:
        raise FetchError(f"another fetch of {job.source.hub_id} is at work; wait for it to end") from error
    progress(f"{job.source.hub_id} is in place: {job.folder}")


def _gather(job: Job, part: Path, progress: Callable[[str], None]) -> None:
    """Brings every file that `part` lacks, checks it, and writes down where all of it is from."""
    part.mkdir(exist_ok=True)
    files = sorted(job.origin.files, key=lambda f: (f.size or 0, f.name))  # what is small and may be wrong comes first
    record = {}
    for number, file in enumerate(files, 1):
        progress(f"[{number}/{len(files)}] {file.name}{f', {gigabytes(file.size)}' if file.size else ''}")
        sha256 = _settle(job, file, part / file.name)
        record[file.name] = {"size": (part / file.name).stat().st_size, "sha256": sha256}
    if job.source.tensors:
        check_tensors(job.source, clip_file(part))
    else:
        check_complete(part)
        check_shape(job.source, part)
    unknown = sorted(file.name for file in files if not file.known)
    summary = f"{len(files) - len(unknown)} of {len(files)} files have their published hash"
    progress(f"{summary}; none is known of {', '.join(unknown)}" if unknown else summary)
    weights_known = not any(
        Path(name).suffix in (".safetensors", ".bin") for name in unknown
    )  # by the weights themselves
    revision = job.source.revision if weights_known else None
    note = {"hub_id": job.source.hub_id, "revision": revision, "unchecked": unknown, "files": record}
    (part / SOURCE_FILE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def _settle(job: Job, file: File, target: Path) -> str:
    """Brings one file unless it is there already; returns its sha256. Raises FetchError, and keeps nothing wrong."""
    target.parent.mkdir(parents=True, exist_ok=True)
    there = file.right(target) if target.is_file() else None
    if there:
        return there
    target.unlink(missing_ok=True)
    unfinished = target.with_name(f"{target.name}.incomplete")
    job.origin.bring(file, unfinished)
    sha256 = file.right(unfinished)
    if sha256 is None:
        unfinished.unlink()
        again = "it was deleted; run the same command again"
        if not job.origin.downloads:
            again = "nothing was copied; weights of your own are named as reasoner.base or perception.pretrained"
        raise FetchError(
            f"{file.name} of {job.source.hub_id} is not the published file ({file.size} bytes, sha256 "
            f"{file.sha256 or 'not known'}, git {file.git or 'not known'}): {again}"
        )
    os.replace(unfinished, target)
    return sha256
