"""The command line: `skinclip COMMAND`, or `python -m skinclip COMMAND`; each command is a module beside this one.

Exit status 0, or 2 for bad input with one line on stderr that says what to do. Only the module of the command that is
asked for is imported, and heavy imports happen inside it, so that `--help` and a mistyped option answer at once.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from skinclip import RESEARCH_USE_ONLY, __version__
from skinclip.cli.common import UsageError
from skinclip.core import paths

BAD_INPUT = 2
# module of skinclip.cli -> its line in the help; a command is named as its module, with hyphens
COMMANDS = {
    "run": "open the page in a browser: assess photos, or conduct a reader study",
    "accounts": "say who may use a page that other computers can reach",
    "assess": "assess one photo",
    "screen": "assess the photos of a manifest, on one machine or a Ray cluster",
    "evaluate": "measure a model on labelled photos",
    "train": "train a model",
    "calibrate": "fit the calibration of a trained model anew",
    "duplicates": "list photos of the same lesion that turn up in several data sets",
    "plot_training": "plot the progress of a training",
    "fetch": "get the published weights that a big preset is built on",
    "adapter": "inspect, merge or share what was trained on published weights",
    "api_key": "make, list and revoke keys of the HTTP API",
    "study": "prepare, conduct and analyse a reader study",
}
# Errors whose message is for the user. None can be raised before its module is imported, so none is imported for this.
FOR_USERS = {
    "skinclip.cli.common": "UsageError",
    "skinclip.data.cases": "DataError",
    "skinclip.imaging.photo": "PhotoError",
    "skinclip.core.paths": "DataDirectoryError",
    "skinclip.hub.layout": "MissingWeights",
    "skinclip.model.memory": "TooLittleMemory",
    "skinclip.model.skinclip_vl": "CheckpointError",
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage text before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command given by `argv` (by default the process's own arguments) and returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    _print_any_name()
    paths.name_user()
    try:
        args = _parser(words).parse_args(words)
        args.words = words
        return int(args.run(args) or 0)
    except SystemExit as stop:  # argparse, after --help or an error that it has printed
        return stop.code if isinstance(stop.code, int) else BAD_INPUT
    except BrokenPipeError:  # whoever reads the output, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(_os_problem(error))
    except (ValueError, RuntimeError) as error:
        if not isinstance(error, _for_users()):
            raise
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted", status=130)


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands, with the options of the one that `words` ask for."""
    parser = _Parser(prog=_program(), description=f"SkinCLIP-VL. {RESEARCH_USE_ONLY}.")
    parser.add_argument("--version", action="version", version=f"skinclip {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    asked = next((word for word in words if not word.startswith("-")), "")
    for module, words_of_help in COMMANDS.items():
        name = module.replace("_", "-")
        command = commands.add_parser(name, help=words_of_help, description=f"{words_of_help.capitalize()}.")
        if name == asked:
            importlib.import_module(f"skinclip.cli.{module}").add_arguments(command)
    return parser


def _program() -> str:
    """The words that started this program, for its messages."""
    started_as = Path(sys.argv[0]).stem
    return "skinclip" if started_as == "skinclip" else "python -m skinclip"


def _print_any_name() -> None:
    """Lets a file's name that is not Unicode text be printed with escapes, where it would stop the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError, OSError):  # closed by whoever started the program
                stream.reconfigure(errors="backslashreplace")


def _for_users() -> tuple[type[BaseException], ...]:
    error_classes = (getattr(sys.modules.get(module), name, UsageError) for module, name in FOR_USERS.items())
    return tuple(error_classes)


def _fail(message: str, status: int = BAD_INPUT) -> int:
    print(f"skinclip: {' '.join(message.split())}", file=sys.stderr)
    return status


def _os_problem(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = "the disk" if error.filename is None else f"the disk of {error.filename}"
        return f"{where} is full; free some space and give the command again"
    if error.filename is None:
        return str(error)
    return f"cannot use {error.filename}: {error.strerror}; check the path and its permissions"
