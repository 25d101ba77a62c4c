"""The web page: `python app.py [--preset mini] [--host 127.0.0.1] [--port 7860]`. Research use only.

`python app.py --study FOLDER` serves a reader study instead, as `python -m skinclip study build` made it. Where an
option is not given, the environment is asked: SKINCLIP_PRESET, SKINCLIP_WEIGHTS, SKINCLIP_ADAPTERS, SKINCLIP_HOST,
SKINCLIP_PORT, and SKINCLIP_HOME, the one directory that is written to. With SKINCLIP_FETCH=yes a big preset's published
weights, and the adapter that SKINCLIP_PULL names, are downloaded first. On a Hugging Face Space it listens where
Spaces look for it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from skinclip.study.errors import StoreError

sys.dont_write_bytecode = True  # the program's own folder may be read-only, and is no place to write to

from skinclip import __version__  # noqa: E402  after the line above
from skinclip.core import paths  # noqa: E402

if TYPE_CHECKING:
    from fastapi import FastAPI

    from skinclip.ui.server import Door, Tell


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments()
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # an ordinary exit, so that the upload folder goes too
    try:
        paths.prepare()  # before anything is imported that chooses by itself where to write
        from skinclip.ui import server

        page = study_page(args.study) if args.study else model_page(args.preset, args.weights, args.adapters, parser)
        listener = server.listen(args.host, args.port)
    except (ValueError, OSError) as problem:
        parser.error(str(problem))
    server.serve(page, listener)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The web page. Research use only.")
    parser.add_argument("--preset", default=setting("SKINCLIP_PRESET") or "mini")
    weights = setting("SKINCLIP_WEIGHTS")
    parser.add_argument("--weights", type=Path, default=weights, help="a checkpoint directory (default: the preset's)")
    adapters = setting("SKINCLIP_ADAPTERS")
    parser.add_argument(
        "--adapters", type=Path, default=adapters, help="a folder of checkpoints that visitors choose from"
    )
    parser.add_argument("--host", default=setting("SKINCLIP_HOST", "GRADIO_SERVER_NAME") or default_host())
    parser.add_argument("--port", type=int, default=setting("SKINCLIP_PORT", "GRADIO_SERVER_PORT") or "7860")
    parser.add_argument("--study", type=Path, help="the folder of a reader study, which is served instead")
    return parser


def setting(*names: str) -> str | None:
    """The first of these environment variables that says something."""
    return next(filter(None, map(os.environ.get, names)), None)


def default_host() -> str:
    """This computer alone, but on a Space every address: its proxy comes from outside."""
    return "0.0.0.0" if paths.on_space() else "127.0.0.1"


# each page imports its own part: a study's needs no model, and starts in a tenth of the memory


def model_page(preset: str, weights: Path | None, adapters: Path | None, parser: argparse.ArgumentParser) -> Door:
    from skinclip.ui import weights_download
    from skinclip.ui.server import Door

    # on a Space the page says what is missing: nobody sees the terminal
    if preset != "mini" and not paths.on_space() and not weights_download.agreed():
        from skinclip.hub import MissingWeights, check_preset

        try:
            offered = sorted(adapters.glob("*/config.yaml")) if adapters else []
            check_preset(preset, weights or (offered[0].parent if offered else None))
        except MissingWeights as problem:
            parser.error(str(problem))

    def opened(tell: Tell) -> FastAPI:
        tell("Loading the program")
        from skinclip.ui.app import open_page

        return open_page(preset, weights, tell, adapters)

    return Door(opened, "SkinCLIP-VL", {"preset": preset, "version": __version__})


def study_page(folder: Path) -> Door:
    """Raises ValueError where the folder holds no study that can be conducted."""
    from skinclip.study.session.session_service import Study
    from skinclip.ui.server import Door

    try:
        study = Study.open(folder)
    except StoreError as problem:
        raise ValueError(str(problem)) from problem

    def opened(tell: Tell) -> FastAPI:
        tell("Opening the study")
        from skinclip.ui.study_page import open_study_page

        return open_study_page(study)

    return Door(opened, "Reader study")


if __name__ == "__main__":
    main()
