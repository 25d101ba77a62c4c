"""`skinclip run`: serves the page, or with `--study FOLDER` a reader study as `skinclip study build` made it.

`python app.py` is the same. Where an option is not given, the environment is asked: SKINCLIP_PRESET, SKINCLIP_WEIGHTS,
SKINCLIP_ADAPTERS, SKINCLIP_HOST, SKINCLIP_PORT, SKINCLIP_NAME, SKINCLIP_OPEN, and SKINCLIP_HOME, the one directory that
is written to. With SKINCLIP_FETCH=yes a big preset's published weights, and the adapter that SKINCLIP_PULL names, are
downloaded first. On a Hugging Face Space it listens where Spaces look for it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from skinclip import __version__
from skinclip.cli.common import UsageError, port
from skinclip.core import paths

if TYPE_CHECKING:
    from fastapi import FastAPI

    from skinclip.ui.guard.access import Access
    from skinclip.ui.server import LoadingServer, ReportStep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `run`, with what the environment says as their defaults."""
    parser.add_argument(
        "--preset", default=_setting("SKINCLIP_PRESET") or "mini", help="the model preset (default: mini)"
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="DIR",
        default=_setting("SKINCLIP_WEIGHTS"),
        help="a checkpoint folder (default: the preset's own)",
    )
    parser.add_argument(
        "--adapters",
        type=Path,
        metavar="DIR",
        default=_setting("SKINCLIP_ADAPTERS"),
        help="a folder of checkpoints that visitors choose from",
    )
    parser.add_argument(
        "--host",
        type=_host,
        default=_setting("SKINCLIP_HOST", "GRADIO_SERVER_NAME") or _default_host(),
        help="the address to listen on (default: 127.0.0.1, this computer alone)",
    )
    parser.add_argument(
        "--port",
        type=port,
        default=_setting("SKINCLIP_PORT", "GRADIO_SERVER_PORT") or "7860",
        help="the port to listen on (default: 7860)",
    )
    parser.add_argument(
        "--name",
        action="append",
        metavar="NAME",
        default=None,
        help="a public name that leads here, as behind a proxy; may be repeated",
    )
    parser.add_argument(
        "--open",
        action="store_true",
        default=_setting("SKINCLIP_OPEN") == "yes",
        help="let everybody who reaches the page use it, without an account",
    )
    parser.add_argument("--study", type=Path, metavar="DIR", help="serve the reader study in this folder instead")
    parser.set_defaults(run=_run)


def _setting(*names: str) -> str | None:
    """The first of these environment variables that says something."""
    return next(filter(None, map(os.environ.get, names)), None)


def _default_host() -> str:
    """This computer alone, but on a Space every address: its proxy comes from outside."""
    return "0.0.0.0" if paths.on_space() else "127.0.0.1"


def _host(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(
            "no address is given; 127.0.0.1 is this computer alone, 0.0.0.0 every address it has"
        )
    return text.strip()


def _run(args: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # an ordinary exit, so that the upload folder goes too
    try:
        paths.prepare()  # before anything is imported that chooses by itself where to write
        from skinclip.ui import server

        access = _access(args)
        page = study_page(args.study) if args.study else model_page(args.preset, args.weights, args.adapters)
        listener = server.listen(args.host, args.port)
    except (ValueError, OSError) as problem:
        raise UsageError(str(problem)) from problem
    server.serve(page, listener, access)
    return 0


def _access(args: argparse.Namespace) -> Access:
    """The rules for who may ask the page. Raises ValueError where accounts are missing."""
    from skinclip.cli.accounts import accounts
    from skinclip.ui.client_address import check_trusted_proxies
    from skinclip.ui.guard.access import MEANING_OF_OPEN, decide

    check_trusted_proxies()
    names = args.name or (_setting("SKINCLIP_NAME", "SPACE_HOST") or "").split(",")
    opened = args.open or paths.on_space()  # whom a Space lets in, its host decides
    access = decide(args.host, names, accounts(), opened, study=bool(args.study))
    if not access.local and access.accounts is None and not args.study:
        print(MEANING_OF_OPEN, flush=True)
    frames = (paths.SPACE_FRAME,) if paths.on_space() else ()
    return dataclasses.replace(access, frames=frames, local=access.local and not paths.on_space())


# each page imports its own part: a study's needs no model, and starts in a tenth of the memory


def model_page(preset: str, weights: Path | None, adapters: Path | None) -> LoadingServer:
    """Returns the model's page, to be opened by the server. Raises MissingWeights where it could never open."""
    from skinclip.ui import weights_download
    from skinclip.ui.server import LoadingServer

    # on a Space the page says what is missing: nobody sees the terminal
    if preset != "mini" and not paths.on_space() and not weights_download.download_agreed():
        from skinclip.hub import check_preset

        offered = sorted(adapters.glob("*/config.yaml")) if adapters else []
        check_preset(preset, weights or (offered[0].parent if offered else None))

    def load(report: ReportStep) -> FastAPI:
        report("Loading the program")
        from skinclip.ui.app import open_app

        return open_app(preset, weights, report, adapters)

    return LoadingServer(load, "SkinCLIP-VL", {"preset": preset, "version": __version__})


def study_page(folder: Path) -> LoadingServer:
    """Returns a study's page. Raises ValueError where the folder holds no study that can be conducted."""
    from skinclip.study.errors import StoreError
    from skinclip.study.session.session_service import Study
    from skinclip.ui.client_address import check_trusted_proxies
    from skinclip.ui.server import LoadingServer

    check_trusted_proxies()
    try:
        study = Study.open(folder)
    except StoreError as problem:
        raise ValueError(str(problem)) from problem

    def load(report: ReportStep) -> FastAPI:
        report("Opening the study")
        from skinclip.ui.study_page import open_study_app

        return open_study_app(study)

    return LoadingServer(load, "Reader study")
