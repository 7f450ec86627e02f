"""The command line: ``python -m ensign_sync`` is ``ensign-sync``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
