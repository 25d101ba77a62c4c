"""The web page: `python app.py [--preset mini] [--host 127.0.0.1] [--port 7860]`. Research use only.

`python app.py --study FOLDER` serves a reader study instead, as `python -m skinclip study build` made it.
"""

import argparse
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description="The web page. Research use only.")
    parser.add_argument("--preset", default=os.environ.get("SKINCLIP_PRESET", "mini"))
    parser.add_argument("--weights", type=Path, help="a checkpoint directory (default: the embedded one)")
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT", "7860")))
    parser.add_argument("--study", type=Path, help="the folder of a reader study, which is served instead")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # an ordinary exit, so that the upload folder goes too
    if args.study is not None:
        serve_study(args.study, args.host, args.port, parser)
    else:
        serve_model(args.preset, args.weights, args.host, args.port, parser)


# each page imports its own part: a study's needs no model, and starts in a tenth of the memory


def serve_model(preset: str, weights: Path | None, host: str, port: int, parser: argparse.ArgumentParser) -> None:
    from skinclip.assess import Assessor
    from skinclip.hub import MissingWeights
    from skinclip.model.skinclip_vl import CheckpointError
    from skinclip.ui.interface import build_page, launch

    try:
        assessor = Assessor.load(preset, weights)
    except (ValueError, CheckpointError, MissingWeights) as problem:
        parser.error(str(problem))
    launch(build_page(assessor), host, port)


def serve_study(folder: Path, host: str, port: int, parser: argparse.ArgumentParser) -> None:
    from skinclip.study.conduct import Study
    from skinclip.study.records import StoreError
    from skinclip.ui.study_page import build_study_page, launch_study

    try:
        study = Study.open(folder)
    except (ValueError, StoreError) as problem:
        parser.error(str(problem))
    launch_study(build_study_page(study), host, port)


if __name__ == "__main__":
    main()
