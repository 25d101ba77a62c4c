"""The web page: `python app.py [--preset mini] [--host 127.0.0.1] [--port 7860]`. Research use only.

The same as `skinclip run`, from a checkout and without an install of the package; Hugging Face Spaces start this file.
"""

from __future__ import annotations

import sys

sys.dont_write_bytecode = True  # the program's own folder may be read-only, and is no place to write to

from skinclip.cli.main import main  # noqa: E402  after the line above

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
