"""Turns itself into a server that dies with its parent: ``launch.py PARENT_PID 0|1 PROGRAM ARGUMENT…``.

A program of its own rather than ``preexec_fn``, which may deadlock when the parent has threads. It needs the
standard library only, so that it can run with ``python -I -S`` and starts in some 20 ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Replaces this process by the program of the command line; exits 1 when the parent is gone."""
    parent, die_with_parent, command = int(sys.argv[1]), sys.argv[2] == "1", sys.argv[3:]
    if die_with_parent:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was asked to tell us
        sys.exit("the parent process is gone")
    # Python ignores this signal, and an ignored signal stays ignored across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
