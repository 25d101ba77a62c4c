"""`python -m skinclip study verify | anchor | backup | restore`: the commands around a study's log."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from skinclip.cli.common import UsageError
from skinclip.study.errors import StudyRequestError

if TYPE_CHECKING:
    from skinclip.study.store.audit_log import Audit, Event

Command = Callable[[argparse.Namespace], int]


def add_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], reported: Callable[[Command], Command]
) -> None:
    """Adds the commands; `reported` turns what a study refuses into the command line's own error."""
    verify = commands.add_parser("verify", help="check that no answer was changed, removed or added")
    verify.add_argument("study", type=Path, nargs="?", metavar="STUDY", help="the study's folder, or its protocol")
    verify.add_argument("--log", type=Path, metavar="FILE", help="check this exported log, events.jsonl, instead")
    verify.add_argument(
        "--key", type=Path, metavar="FILE", help="with --log: the study's key, where no STUDY says which it is"
    )
    verify.add_argument(
        "--receipts",
        type=Path,
        metavar="PATH",
        help="receipts, one a line: a file, or a folder of such files (and of time stamps, *.tsr)",
    )
    verify.set_defaults(run=reported(_verify))
    anchor = commands.add_parser("anchor", help="note the end of the log in a file to keep elsewhere")
    anchor.add_argument("study", type=Path, metavar="STUDY", help="the study's folder, or its protocol")
    anchor.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file; a line is added to it")
    anchor.add_argument(
        "--tsa", metavar="URL", help="ask this time-stamp authority (RFC 3161) to sign it; the answer lies beside FILE"
    )
    anchor.set_defaults(run=reported(_anchor))
    backup = commands.add_parser("backup", help="copy the study into one file, also while it is conducted")
    backup.add_argument("study", type=Path, metavar="STUDY", help="the study's folder, or its protocol")
    backup.add_argument("--out", type=Path, required=True, metavar="FILE", help="the backup, a new file")
    backup.set_defaults(run=reported(_backup))
    restore = commands.add_parser("restore", help="put a backup in the place of a lost or damaged study")
    restore.add_argument("backup", type=Path, metavar="FILE", help="what `study backup` wrote")
    restore.add_argument("--out", type=Path, required=True, metavar="DIR", help="the study's folder, there or new")
    restore.add_argument("--key", type=Path, metavar="FILE", help="the study's key, on a computer that has it not yet")
    restore.add_argument("--reason", default="", help="why, which is put on record")
    restore.set_defaults(run=reported(_restore))


def folder_of(study: Path) -> Path:
    """The study's folder; of a protocol the one that `build` makes by default. Raises StudyError."""
    from skinclip.study.protocol.protocol import Protocol
    from skinclip.study.session.bundle import default_folder

    if study.is_dir():
        return study
    if not study.exists():
        raise StudyRequestError(f"{study} does not exist; give a study's folder, or the protocol it was built from")
    return default_folder(Protocol.read(study))


def _verify(args: argparse.Namespace) -> int:
    """Exit status 1 where the log is not whole."""
    receipts, stamps = _receipts(args.receipts)
    if args.log is not None:
        return _verify_export(args, receipts, stamps)
    if args.study is None:
        raise UsageError("give the study's folder, or an exported log with --log FILE")
    from skinclip.study.coordinator import Coordinator
    from skinclip.study.session.session_service import Study

    with Study.open(folder_of(args.study), checked=False) as study:
        events = study.store.events(study.name)
        return _told(Coordinator(study).audit(receipts), len(receipts), _stamped(events, stamps))


def _verify_export(args: argparse.Namespace, receipts: list[str], stamps: dict[str, bytes]) -> int:
    from skinclip.study.store.audit_log import audit as audit_log
    from skinclip.study.store.audit_log import audit_without_key, read_log
    from skinclip.study.store.codes import read_key
    from skinclip.study.store.consistency import suspicious_times

    try:
        with open(args.log, encoding="ascii") as lines:
            events = read_log(lines)
    except (OSError, UnicodeDecodeError) as error:
        raise StudyRequestError(f"{args.log} cannot be read as an exported log: {error}") from error
    if not events:
        raise StudyRequestError(f"{args.log} holds no event; export the log again")
    name = events[0].study
    key = read_key(args.key) if args.key else _key_of(args.study)
    if key is None:
        print("without the study's key only order, gaps and receipts are checked, not what the events say: give --key")
        result = audit_without_key(name, events, receipts)
    else:
        result = audit_log(name, events, key, receipts=receipts)
    result = replace(result, warnings=tuple(suspicious_times(events)))
    return _told(result, len(receipts), _stamped(events, stamps))


def _key_of(study: Path | None) -> bytes | None:
    """The key of a study that is at hand."""
    from skinclip.study.session.bundle import read_record
    from skinclip.study.session.keys import read_study_key

    if study is None:
        return None
    folder = folder_of(study)
    return read_study_key(folder, read_record(folder)[0])


def _receipts(path: Path | None) -> tuple[list[str], dict[str, bytes]]:
    """Receipts of a file, or of all files of a folder, and the time stamps there by name."""
    if path is None:
        return [], {}
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    try:
        stamps = {file.name: file.read_bytes() for file in files if file.suffix == ".tsr"}
        texts = [file.read_text(encoding="utf-8") for file in files if file.suffix not in (".tsr", ".tsq")]
    except (OSError, UnicodeDecodeError) as error:
        raise StudyRequestError(f"{path}: receipts cannot be read ({error}); give text files, one a line") from error
    lines = [line.strip() for text in texts for line in text.split("\n")]
    return [line for line in lines if line and not line.startswith("#")], stamps


def _stamped(events: Iterable[Event], stamps: dict[str, bytes]) -> list[str]:
    from skinclip.study.store.timestamps import check_stamp

    return [problem for name, stamp in stamps.items() if (problem := check_stamp(name, stamp, events))]


def _told(result: Audit, receipts: int, further: list[str]) -> int:
    problems = [*map(str, result.problems), *further]
    for problem in problems:
        print(problem)
    for warning in result.warnings:
        print(f"NOTE: {warning}")
    if not problems:
        print(f"{result.events} events and {receipts} receipts: nothing was changed, removed or added")
    return 1 if problems else 0


def _anchor(args: argparse.Namespace) -> int:
    from skinclip.study.coordinator import Coordinator
    from skinclip.study.session.session_service import Study
    from skinclip.study.store.timestamps import request_stamp

    with Study.open(folder_of(args.study)) as study:
        receipt, head = Coordinator(study).receipt(), study.store.head(study.name)
    stamp = request_stamp(args.tsa, head) if args.tsa else None
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with open(args.out, "a", encoding="utf-8") as file:
            file.write(f"{receipt}\n")
        if stamp is not None:
            args.out.with_name(f"{args.out.stem}-{head.sequence}.tsr").write_bytes(stamp)
    except OSError as error:
        raise StudyRequestError(f"{args.out} cannot be written ({error.strerror}); give another file") from error
    print(f"{receipt}\nadded to {args.out}: keep it where the study is not, print it, or mail it to a colleague")
    return 0


def _backup(args: argparse.Namespace) -> int:
    from skinclip.study.backup import backup
    from skinclip.study.session.session_service import Study

    with Study.open(folder_of(args.study)) as study:
        events = backup(study, args.out)
    print(f"{events} events and the study's files are in {args.out}; its key is not: keep a copy of that elsewhere")
    return 0


def _restore(args: argparse.Namespace) -> int:
    from skinclip.study.backup import restore

    done = restore(args.backup, args.out, args.key, args.reason)
    print(f"restored in {done.folder}: {done.events} events")
    if done.lost:
        print(f"{done.lost} later events are not in this backup and are lost, which is put on record")
    if done.replaced:
        print(f"the database that was there is kept as {done.replaced}")
    print("codes that were renewed after the backup was made are the old ones again: renew them")
    return 0
