"""`study setup`: serves the page on which a coordinator sets up studies in the browser.

On this computer it prints a link with a code; with a public name or address it asks for an account of a coordinator.
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from skinclip.cli.common import UsageError, add_model_arguments, load_assessor, port
from skinclip.core import paths
from skinclip.model.allocator import share_arenas

if TYPE_CHECKING:
    from fastapi import FastAPI

    from skinclip.ui.guard.setup_access import SetupAccess
    from skinclip.ui.server import ReportStep
    from skinclip.ui.setup_desk import SetupDesk

TITLE = "Study set-up"
ROLES = frozenset({"coordinator"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `study setup`."""
    parser.add_argument(
        "--studies", type=Path, default=Path("studies"), metavar="DIR", help="the folder of studies (default: studies)"
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this computer alone)")
    parser.add_argument("--port", type=port, default=7861, help="the port to listen on (default: 7861)")
    parser.add_argument(
        "--name", action="append", metavar="NAME", help="a public name that leads here, as behind a proxy"
    )
    add_model_arguments(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # an ordinary exit, so that the readers' pages end too
    try:
        paths.prepare()
        share_arenas()
        from skinclip.cli.accounts import accounts
        from skinclip.ui import server
        from skinclip.ui.client_address import check_trusted_proxies
        from skinclip.ui.guard.access import decide
        from skinclip.ui.guard.setup_access import SetupAccess

        check_trusted_proxies()
        access = dataclasses.replace(decide(args.host, args.name or (), accounts(), opened=False), roles=ROLES)
        setup = SetupAccess.local() if access.local else SetupAccess.by_account()
        desk = _desk(args, setup)
        listener = server.listen(args.host, args.port)
    except (ValueError, OSError) as problem:
        raise UsageError(str(problem)) from problem
    if setup.is_local:
        address = f"http://{args.host}:{listener.getsockname()[1]}"
        print(f"open {address}/#code={setup.code}", flush=True)
    server.serve(server.LoadingServer(lambda report: _load(desk, report), TITLE), listener, access)
    return 0


def _desk(args: argparse.Namespace, setup: SetupAccess) -> SetupDesk:
    from skinclip.study.workspace import Workspace
    from skinclip.ui.setup_desk import SetupDesk

    args.studies.mkdir(parents=True, exist_ok=True)
    return SetupDesk(Workspace(args.studies.resolve()), setup, lambda: load_assessor(args))


def _load(desk: SetupDesk, report: ReportStep) -> FastAPI:
    report("Loading the program")
    from skinclip.ui.setup_page import open_setup_app

    return open_setup_app(desk)
