"""``ensign-sync serve`` that ends with whoever started it, however that ended: when nobody holds its standard input."""

import os
import signal
import sys
import threading

from ensign_sync.cli import main


def end_with_input() -> None:
    """Wait for the end of the standard input, which is a pipe, and end this process as SIGTERM does."""
    while os.read(0, 4096):
        continue
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=end_with_input, daemon=True).start()
    sys.exit(main(["serve", "--json", *sys.argv[1:]]))
