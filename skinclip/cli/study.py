"""`python -m skinclip study plan | build | enrol | status | close | export | analyse`.

`verify`, `anchor`, `backup` and `restore` are in `study_log.py`, `setup` in `study_setup.py`.

STUDY is a study's folder, or the protocol it was built from. Whatever a study refuses is reported in one line, with
what to do; heavy imports happen inside the commands.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from skinclip import RESEARCH_USE_ONLY
from skinclip.cli import study_log, study_setup
from skinclip.cli.common import UsageError, agreed, load_assessor, stdout_to_stderr, whole_number
from skinclip.cli.study_log import folder_of
from skinclip.study.errors import StudyError, StudyRequestError

if TYPE_CHECKING:
    from skinclip.study.build import BuildResult
    from skinclip.study.coordinator import ReaderProgress
    from skinclip.study.session.session_service import EnrolledReader, Study

Command = Callable[[argparse.Namespace], int]
_LEFT_OUT_PRINTED = 5  # photos left out that `build` prints


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The commands of `study`, each with its function as `run`."""
    commands = parser.add_subparsers(dest="study_command", metavar="COMMAND", required=True)
    plan = commands.add_parser("plan", help="photos that a study needs, and its power, before any model runs")
    plan.add_argument("study", type=Path, metavar="STUDY.yaml", help="the protocol")
    plan.add_argument("--photos", type=Path, metavar="DIR", help="labelled photos to count, as for `build`")
    plan.add_argument(
        "--studies", type=int, default=20, metavar="N", help="simulated studies for the power (default: 20; 0: none)"
    )
    plan.set_defaults(run=_reported(_plan))
    study_setup.add_arguments(
        commands.add_parser("setup", help="set up studies in the browser: a page for coordinators")
    )
    _build_arguments(commands.add_parser("build", help="freeze the cases of a study; runs the model once"))
    enrol = _command(commands, "enrol", "make personal codes for readers, shown once", _enrol)
    enrol.add_argument("--readers", type=int, default=1, metavar="N", help="how many (default: 1)")
    enrol.add_argument("--site", default="", help="the site that they belong to")
    enrol.add_argument("--codes", type=Path, metavar="FILE", help="write the codes there (CSV, for you alone to read)")
    enrol.add_argument(
        "--renew", metavar="READER", help="a new code for this reader, such as R007, in place of the old"
    )
    enrol.add_argument("--letters", type=Path, metavar="DIR", help="write an invitation with a personal link for each")
    remind = _command(commands, "remind", "write reminders for readers who have not finished", _remind)
    remind.add_argument("--letters", type=Path, required=True, metavar="DIR", help="the folder to write into")
    for parser in (enrol, remind):
        parser.add_argument("--url", metavar="URL", help="the page's address as readers open it, for the letters")
        parser.add_argument("--language", default="en", metavar="en|de|es", help="of the letters (default: en)")
    enrol.add_argument(
        "--coordinator", action="store_true", help="a new code for the coordinator's tab, with --site for a site's own"
    )
    _command(commands, "status", "progress of each reader; shows neither arms nor answers", _status)
    close = _command(commands, "close", "take no more answers; unblinds", _close)
    close.add_argument("--reason", default="", help="why it is closed before enough readers have completed")
    study_log.add_commands(commands, _reported)
    export = _command(
        commands, "export", "tables, data dictionary, iMRMC input and event log of a closed study", _export
    )
    analyse = _command(commands, "analyse", "the planned analysis of a closed study, as a report", _analyse)
    data = _command(commands, "reader-data", "all that is kept of one reader, as JSON", _reader_data)
    erase = _command(commands, "erase-reader", "erase one reader's answers, site and code", _erase_reader)
    for parser in (data, erase):
        parser.add_argument("--reader", required=True, metavar="READER", help="such as R007")
    data.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    erase.add_argument("--yes", action="store_true", help="do not ask")
    photos = _command(commands, "delete-photos", "delete the photos of a study closed long ago", _delete_photos)
    photos.add_argument("--after-days", type=_days, required=True, metavar="N", help="days since it was closed")
    for parser in (export, analyse):
        parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write into")


def _build_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", type=Path, metavar="STUDY.yaml", help="the protocol")
    parser.add_argument(
        "--photos",
        type=Path,
        required=True,
        metavar="DIR",
        help="labelled photos: manifest.csv with image, diagnosis and group (ood: out of distribution), or a data set",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the study's folder (default: studies/KEY)")
    parser.add_argument(
        "--key", type=Path, metavar="FILE", help="key of the database that the study shares with others"
    )
    parser.add_argument("--preset", default="mini", help="the model preset (default: mini)")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="a checkpoint folder (default: the embedded one)")
    parser.set_defaults(run=_reported(_build))


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, words: str, run: Command
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=words)
    parser.add_argument("study", type=Path, metavar="STUDY", help="the study's folder, or its protocol")
    parser.set_defaults(run=_reported(run))
    return parser


def _reported(run: Command) -> Command:
    """`run` with what a study refuses turned into the command line's own error."""

    def reported(args: argparse.Namespace) -> int:

        try:
            return run(args)
        except StudyError as error:
            raise UsageError(str(error)) from error

    return reported


def _open(args: argparse.Namespace) -> Study:
    from skinclip.study.session.session_service import Study

    return Study.open(folder_of(args.study))


# --- build and enrol ------------------------------------------------------------------------------------------------


def _plan(args: argparse.Namespace) -> int:
    """Exit status 1 where the photos cannot suffice."""
    from skinclip.data.readers import read_cases
    from skinclip.study import power as powers
    from skinclip.study import supply as supplies
    from skinclip.study.protocol.protocol import Protocol

    protocol, supply = Protocol.read(args.study), None
    if args.photos:
        table = read_cases(args.photos)
        supply = supplies.count(table.cases, table.problems)
    outlook = supplies.outlook(protocol, supply)
    print(supplies.outlook_table(protocol, outlook, supply))
    studies = max(args.studies, 0)
    on_study = _print_simulated if sys.stderr.isatty() else None
    print(f"\n{powers.power_table(protocol, powers.power(protocol, studies, on_study=on_study), studies)}")
    return 1 if outlook.problems else 0


def _print_simulated(done: int, of: int) -> None:
    print(f"\rsimulating study {done} of {of}", end="\n" if done == of else "", file=sys.stderr, flush=True)


def _build(args: argparse.Namespace) -> int:
    from skinclip.data.readers import read_cases
    from skinclip.study import build as study_build
    from skinclip.study.protocol.protocol import Protocol
    from skinclip.study.supply import check_supply, count

    protocol = Protocol.read(args.study)
    # All that can be refused is refused before the model is loaded.
    study_build.check_free(args.out or study_build.default_folder(protocol))
    table = read_cases(args.photos)
    check_supply(protocol, count(table.cases, table.problems))
    with stdout_to_stderr():
        assessor = load_assessor(args)
        progress = _print_progress if sys.stderr.isatty() else None
        built = study_build.build(args.study, args.photos, assessor, out=args.out, key=args.key, on_progress=progress)
    print(_built_words(built, protocol.missing_ethics()))
    return 0


def _print_progress(done: int, total: int) -> None:
    print(f"\r{done} of {total} photos assessed", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _built_words(built: BuildResult, missing_ethics: Sequence[str]) -> str:
    from skinclip.study import build_report

    lines = [RESEARCH_USE_ONLY, build_report.eligible(built)]
    if built.left_out:
        listed = build_report.write_left_out(built)
        lines.append(f"{len(built.left_out)} photos or rows left out, all listed in {listed}:")
        lines += [f"  {problem}" for problem in built.left_out[:_LEFT_OUT_PRINTED]]
    lines += build_report.notes(built, missing_ethics)
    lines.append(f"serve it with `python app.py --study {built.folder}` (or `make run STUDY={built.folder}`)")
    return "\n".join(lines)


def _enrol(args: argparse.Namespace) -> int:
    with _open(args) as study:
        if args.coordinator:
            code = study.site_coordinator_code(args.site) if args.site else study.coordinator_code()
            whose = f"coordinator of {args.site}" if args.site else "coordinator"
            print(f"code of the {whose}, shown this once: {code}")
            return 0
        if args.codes:
            _reserve(args.codes)
        if args.letters:
            _check_letters(args)
        if args.renew:
            return _give_out(study, [study.renew_code(args.renew)], args)
        if args.study.is_file():
            study.adopt(args.study)  # ethics fields that were filled in after the build
        status = _give_out(study, study.enrol(args.readers, args.site), args)
        arms, here = len(study.protocol.arms), study.readers_at(args.site)
        if here % arms:
            print(f"{here} readers of this site; allocation is balanced once their number is a multiple of {arms}")
        return status


def _check_letters(args: argparse.Namespace) -> None:
    """Raises StudyRequestError before anybody is enrolled whose letter could not be written."""
    from skinclip.study.catalogue.catalogue import languages
    from skinclip.study.letters import check_address

    check_address(args.url or "")
    if args.language not in languages():
        raise StudyRequestError(f"there are no letters in {args.language!r}; choose one of {', '.join(languages())}")


def _remind(args: argparse.Namespace) -> int:
    from skinclip.study.letters import write_reminders

    _check_letters(args)
    with _open(args) as study:
        written = write_reminders(study, args.letters, args.url, args.language)
    print(f"{len(written)} reminders written to {args.letters}" if written else "nobody needs a reminder")
    return 0


def _give_out(study: Study, readers: Sequence[EnrolledReader], args: argparse.Namespace) -> int:
    codes = args.codes
    if args.letters:
        from skinclip.study.letters import write_invitations

        written = write_invitations(study, readers, args.letters, args.url, args.language)
        print(f"{len(written)} letters with the codes written to {args.letters}; the codes are kept nowhere else")
        if codes is None:
            return 0
    if codes is None:
        print("personal codes, shown this once:")
        for one in readers:
            print(f"  {one.reader}  {one.code}")
        return 0
    with open(codes, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("reader", "code"), *((one.reader, one.code) for one in readers)])
    print(f"{len(readers)} personal codes written to {codes}; they are kept nowhere else")
    return 0


def _reserve(codes: Path) -> None:
    """Makes the file for the codes, for its owner alone: codes that could not be written would be lost.

    Raises StudyRequestError where it holds something already.
    """

    if codes.exists() and codes.stat().st_size:
        raise StudyRequestError(f"{codes} is there already; give another file for the codes")
    codes.parent.mkdir(parents=True, exist_ok=True)
    codes.touch(mode=0o600)
    codes.chmod(0o600)


# --- watch, close, export -------------------------------------------------------------------------------------------


def _status(args: argparse.Namespace) -> int:
    from skinclip.study.coordinator import Coordinator

    with _open(args) as study:
        coordinator = Coordinator(study)
        rows = coordinator.status()
        state = "closed" if coordinator.is_closed else "open"
        state += ", a rehearsal" if study.protocol.rehearsal else ""
        needed = study.protocol.completion.min_readers
        print(
            f"{study.name}, {state}, plan {study.protocol.plan_sha256[:12]}; {len(rows)} readers, {needed} to complete"
        )
    print(status_table(rows))
    return 0


def status_table(rows: Sequence[ReaderProgress]) -> str:
    """One line per reader."""
    head = ("reader", "site", "state", "steps", "cases", "left out", "minutes", "s per case", "last answer")
    lines = [head]
    for row in rows:
        pace = "" if row.seconds_a_case is None else f"{row.seconds_a_case:.0f}"
        steps, cases = f"{row.steps}/{row.steps_total}", f"{row.cases}/{row.cases_total}"
        last = row.last_answer_at[:16].replace("T", " ")
        state = f"{row.state}, opens {row.opens_at[:16].replace('T', ' ')}" if row.opens_at else row.state
        lines.append(
            (row.reader, row.site[:20], state, steps, cases, str(row.left_out), f"{row.minutes:.0f}", pace, last)
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _close(args: argparse.Namespace) -> int:
    from skinclip.study.coordinator import Coordinator

    with _open(args) as study:
        coordinator = Coordinator(study)
        coordinator.close(args.reason)
        print(f"{study.name} is closed; export and analyse it now")
        print(f"keep this receipt of the closing with the readers' ones, for `study verify`: {coordinator.receipt()}")
    return 0


def _days(text: str) -> int:
    return whole_number(text, 0, 36500, "number of days")


def _reader_data(args: argparse.Namespace) -> int:
    from skinclip.study.personal_data import reader_data

    with _open(args) as study:
        text = json.dumps(reader_data(study, args.reader), indent=2, ensure_ascii=False)
    with open(os.open(args.out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text + "\n")
    print(f"all that is kept of {args.reader}: {args.out}")
    return 0


def _erase_reader(args: argparse.Namespace) -> int:
    from skinclip.study.personal_data import erase_reader

    question = f"Erase the answers of {args.reader} for good?"
    if not args.yes and not agreed(question, "say --yes to erase a reader's answers for good"):
        return 0
    with _open(args) as study:
        erase_reader(study, args.reader)
    print(f"erased: {args.reader}; backups and exports made before are yours to deal with")
    return 0


def _delete_photos(args: argparse.Namespace) -> int:
    from skinclip.study.personal_data import delete_photos

    with _open(args) as study:
        deleted = delete_photos(study, args.after_days)
    print(f"deleted: {len(deleted)} photos and pictures" if deleted else "nothing to delete yet")
    return 0


def _export(args: argparse.Namespace) -> int:
    from skinclip.study.coordinator import Coordinator

    with _open(args) as study:
        written = Coordinator(study).export(args.out)
    print(f"written to {args.out}: {', '.join(path.name for path in written)}")
    return 0


def _analyse(args: argparse.Namespace) -> int:
    from skinclip.study.coordinator import Coordinator

    with _open(args) as study:
        command = f"python -m skinclip study analyse {args.study} --out {args.out}"
        written = Coordinator(study).analyse(args.out, command)
    print(f"written to {args.out}: {', '.join(path.name for path in written.values())}")
    return 0
