"""The web page: `python app.py [--preset mini] [--host 127.0.0.1] [--port 7860]`. Research use only."""

import argparse
import os
import signal
import sys
from pathlib import Path

from skinclip.assess import Assessor
from skinclip.ui.interface import build_page, launch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default=os.environ.get("SKINCLIP_PRESET", "mini"))
    parser.add_argument("--weights", type=Path, help="a checkpoint directory (default: the embedded one)")
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT", "7860")))
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # an ordinary exit, so that the upload folder goes too
    launch(build_page(Assessor.load(args.preset, args.weights)), args.host, args.port)


if __name__ == "__main__":
    main()
