"""The parts that several commands share: their errors, the types of their arguments, loading a model."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skinclip.calibration.prevalence import Prevalence
    from skinclip.pipeline.assessor import Assessor

LARGEST_SEED = 2**32 - 1  # of NumPy's generators
LARGEST_PORT = 65535


class UsageError(ValueError):
    """Input that cannot be worked with; the message says what to do."""


# --- arguments --------------------------------------------------------------------------------------------------


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="mini", help="the model preset (default: mini)")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="a checkpoint folder (default: the preset's own)")


def add_prevalence_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--prevalence`, read by `prevalence`."""
    parser.add_argument(
        "--prevalence",
        metavar="NAME|FILE",
        help="how often each diagnosis is met where the photos were taken: ham10000, milk10k, general-practice, or a "
        "YAML or JSON file with `name` and `shares` (default: the checkpoint's own)",
    )


def prevalence(args: argparse.Namespace) -> Prevalence | None:
    """The prevalence of `--prevalence`, None where it is not given. Raises UsageError where there is none such."""
    from skinclip.calibration.prevalence import prevalence_of
    from skinclip.core.strict_yaml import ConfigError

    try:
        return None if args.prevalence is None else prevalence_of(args.prevalence)
    except ConfigError as error:
        raise UsageError(f"--prevalence: {error}") from error


@contextlib.contextmanager
def at_prevalence(assessor: Assessor, prevalence: Prevalence | None) -> Iterator[None]:
    """Answers at a prevalence, as `Assessor.at_prevalence`. Raises UsageError where the checkpoint has only its own."""
    with contextlib.ExitStack() as stack:
        if prevalence is not None:
            try:
                stack.enter_context(assessor.at_prevalence(prevalence))
            except ValueError as error:
                raise UsageError(f"--prevalence: {error}") from error
        yield


def whole_number(text: str, least: int, most: int | None = None, name: str = "number") -> int:
    """Reads a whole number of an argument. Raises ArgumentTypeError saying which are allowed."""
    allowed = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"
    digits = text.strip().removeprefix("+")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18):
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid {name}; give {allowed}")
    if not least <= int(digits) or (most is not None and int(digits) > most):
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid {name}; give {allowed}")
    return int(digits)


def at_least_one(text: str) -> int:
    """Reads a whole number of at least 1."""
    return whole_number(text, 1)


def seed(text: str) -> int:
    """Reads the seed of random generators."""
    return whole_number(text, 0, LARGEST_SEED, "seed")


def port(text: str) -> int:
    """Reads a TCP port; 0 lets the system choose one."""
    return whole_number(text, 0, LARGEST_PORT, "port")


# --- work -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Sends to stderr what libraries print while they load and work: stdout carries the result alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def load_assessor(args: argparse.Namespace) -> Assessor:
    """Loads the model of `--preset` and `--weights`. Raises UsageError where there is none."""
    from safetensors import SafetensorError

    from skinclip.model.errors import CheckpointError
    from skinclip.pipeline.assessor import Assessor

    try:
        return Assessor.load(args.preset, args.weights)
    except (ValueError, CheckpointError, SafetensorError) as error:  # no such preset, or no checkpoint of it
        raise UsageError(str(error)) from error


def make_writable_folder(folder: Path) -> None:
    """Makes a folder for results. Raises UsageError where nothing can be written to it."""
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write to {folder}; choose another folder or change its permissions")


def agreed(question: str, otherwise: str) -> bool:
    """Asks at the terminal; without one, raises UsageError with the words of `otherwise`."""
    if not sys.stdin.isatty():
        raise UsageError(otherwise)
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
