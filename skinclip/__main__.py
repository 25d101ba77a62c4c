"""`python -m skinclip`: see `skinclip.cli`."""

import sys

from skinclip.cli import main

if __name__ == "__main__":
    sys.exit(main())
