"""What all tests share."""

from __future__ import annotations

import signal

from hypothesis import settings

# A slow machine is no failure.
settings.register_profile("maskscore", deadline=None)
settings.load_profile("maskscore")

# A parent that ignores Ctrl-C (a job in the background of a script) hands that down: to this process, and from here to
# every command that a test starts and interrupts. Python sets its own handler only where the signal was not ignored.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
