"""Single keys from the terminal, without Enter."""

from __future__ import annotations

import os
import select
import sys
import time
from types import TracebackType
from typing import Any

try:
    import termios
    import tty
except ImportError:  # Windows has neither; Ctrl-C works there.
    termios = tty = None  # type: ignore[assignment]

__all__ = ["Keyboard"]


class Keyboard:
    """Inside the ``with`` block, keys arrive as they are pressed and are not shown; Ctrl-C goes on to interrupt."""

    def __init__(self) -> None:
        self._open = termios is not None and sys.stdin.isatty()
        self._before: list[Any] | None = None

    def __enter__(self) -> Keyboard:
        if self._open:
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)

    def pressed(self, key: str, *, within_s: float) -> bool:
        """Wait so long, and return at once with whether this key was pressed."""
        deadline = time.monotonic() + within_s
        while (left := deadline - time.monotonic()) > 0:
            if not self._open:
                time.sleep(left)
            elif select.select([sys.stdin], [], [], left)[0]:
                pressed = os.read(sys.stdin.fileno(), 1)
                if pressed == key.encode():
                    return True
                # Nothing to read, although there is something: the terminal is gone.
                self._open = pressed != b""
        return False
