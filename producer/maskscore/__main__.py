"""Entry point of ``maskscore`` and ``python -m maskscore``: Ctrl-C ends it at once, even while it is imported."""

from __future__ import annotations

import os
import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Load the command line and run it."""
    # Raised inside an import, KeyboardInterrupt would come out as a traceback, or as an error of the imported library.
    # Where a shell has SIGINT ignored, it stays so.
    guarded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if guarded:
        signal.signal(signal.SIGINT, _end)
    from maskscore.cli import main as run

    if guarded:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


def _end(*_: object) -> None:
    """Nothing has begun that would have to be finished."""
    sys.stderr.write("interrupted\n")
    sys.stderr.flush()
    os._exit(130)


if __name__ == "__main__":
    main()
