"""How much a test run does, from the environment variable ENSIGN_SYNC_TESTS.

``quick`` (the default) is for every save, ``smoke`` for the Python versions in the middle of the matrix, ``full`` for
its two ends, ``soak`` for a machine that has an hour. A test marked ``ends`` takes long in any size and hardly depends
on the Python below it: it is left out of ``smoke``.
"""

import os

SIZES = ("quick", "smoke", "full", "soak")
SIZE = os.environ.get("ENSIGN_SYNC_TESTS", "quick")
if SIZE not in SIZES:
    raise ValueError(f"ENSIGN_SYNC_TESTS must be one of {', '.join(SIZES)}, got {SIZE!r}")


def by_size(quick: int, smoke: int, full: int, soak: int) -> int:
    """Return the number for the size of this run."""
    return (quick, smoke, full, soak)[SIZES.index(SIZE)]
