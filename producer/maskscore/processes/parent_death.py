"""Child processes that die with their parent: ``parent_death.py PARENT_PID 0|1 PROGRAM ARGUMENT…`` becomes one.

A program of its own rather than ``preexec_fn``, which may deadlock when the parent has threads. It needs the
standard library only, so that it can run with ``python -I -S`` and starts in some 20 ms.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["child_command"]

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def child_command(command: Sequence[str], *, die_with_parent: bool) -> list[str]:
    """Return the command line of a child process of this one that runs ``command``, program path first.

    With ``die_with_parent`` the kernel kills it when the thread that started it ends; Linux only.
    """
    asked = "1" if die_with_parent and sys.platform == "linux" else "0"
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), asked, *command]


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
