"""`python -m skinclip`: see `skinclip.cli.main`."""

import sys

from skinclip.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
