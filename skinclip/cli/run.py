"""`skinclip run`: serves the page, with `--study FOLDER` a reader study, or with `--api` the model to programs.

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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skinclip import __version__
from skinclip.cli.common import UsageError, port
from skinclip.core import paths
from skinclip.model.allocator import share_arenas

if TYPE_CHECKING:
    from fastapi import FastAPI

    from skinclip.ui.guard.access import Access
    from skinclip.ui.server import LoadingServer, ReportStep

API_SHUTDOWN_SECONDS = 60  # for the photos that wait when the server is stopped


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
    parser.add_argument("--api", action="store_true", help="serve the HTTP API instead, for programs")
    parser.add_argument(
        "--keys", type=Path, metavar="FILE", default=_setting("SKINCLIP_KEYS"), help="keys of the API: see `api-key`"
    )
    parser.add_argument(
        "--rate",
        default=_setting("SKINCLIP_RATE") or "60/minute",
        help="photos that each key may send (default: 60/minute)",
    )
    parser.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        default=_setting("SKINCLIP_METRICS"),
        help="serve metrics for Prometheus on an address of their own",
    )
    parser.add_argument(
        "--json-logs",
        action="store_true",
        default=_setting("SKINCLIP_JSON_LOGS") == "yes",
        help="write a line of JSON to stderr for each request, without personal data",
    )
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
        share_arenas()
        from skinclip.ui import server

        page = _page(args)
        access = _access(args)
        listener = server.listen(args.host, args.port)
        if args.metrics:
            _serve_metrics(args.metrics)
    except (ValueError, OSError) as problem:
        raise UsageError(str(problem)) from problem
    server.serve(page, listener, access, args.json_logs)
    return 0


def _access(args: argparse.Namespace) -> Access:
    """The rules for who may ask the page. Raises ValueError where accounts are missing."""
    from skinclip.cli.accounts import accounts
    from skinclip.ui.client_address import check_trusted_proxies
    from skinclip.ui.guard.access import MEANING_OF_OPEN, decide

    check_trusted_proxies()
    names = args.name or (_setting("SKINCLIP_NAME", "SPACE_HOST") or "").split(",")
    opened = args.open or paths.on_space()  # whom a Space lets in, its host decides
    access = decide(args.host, names, accounts(), opened, own_sign_in=bool(args.study or args.keys))
    if not access.local and access.accounts is None and not (args.study or args.api):
        print(MEANING_OF_OPEN, flush=True)
    frames = (paths.SPACE_FRAME,) if paths.on_space() else ()
    return dataclasses.replace(access, frames=frames, local=access.local and not paths.on_space())


def _page(args: argparse.Namespace) -> LoadingServer:
    if args.api and args.study:
        raise UsageError("--api and --study are two servers; start one for each")
    if args.api:
        return api_page(args.preset, args.weights, ApiTerms(args.host, args.keys, args.rate))
    return study_page(args.study) if args.study else model_page(args.preset, args.weights, args.adapters)


def _serve_metrics(address: str) -> None:
    from skinclip.service.metrics import serve_metrics

    host = address.rpartition(":")[0]
    print(f"metrics on http://{host}:{serve_metrics(address)}/metrics", flush=True)


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


@dataclass(frozen=True)
class ApiTerms:
    """The terms of the API: the address that it listens on, its file of keys, and photos that each may send."""

    host: str
    keys: Path | None
    rate: str


def api_page(preset: str, weights: Path | None, terms: ApiTerms) -> LoadingServer:
    """Returns the API's server. Raises ValueError for an open address without keys, or keys that cannot be read."""
    from skinclip.service.admission import LOCAL_HOSTS, Admission
    from skinclip.ui.server import LoadingServer

    if terms.keys is None and terms.host not in LOCAL_HOSTS:
        raise ValueError(
            f"on {terms.host} the API needs keys: make one with `api-key add NAME --keys FILE` and give --keys FILE"
        )
    admission = Admission(terms.keys, terms.rate)

    def load(report: ReportStep) -> FastAPI:
        report("Loading the model")
        from skinclip.ui.api_app import open_api

        return open_api(preset, weights, admission, report)

    about = {"preset": preset, "version": __version__}
    return LoadingServer(load, "SkinCLIP-VL API", about, shutdown_seconds=API_SHUTDOWN_SECONDS)


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

    return LoadingServer(load, "Reader study", probe=study.check_database)
