"""Which jobs of a process run beside which: any number of ordinary ones, or one suspect alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Company"]


class Company:
    """A lock that ordinary jobs share, and that a job which may end the process takes for itself.

    When a process ends, nobody can say which of its jobs did it, so all of them become suspects; run alone, only the
    culprit ends a process again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = False
        self._waiting = 0

    @property
    def room(self) -> bool:
        """Whether an ordinary job could begin: no suspect runs, or waits for the others to end."""
        return not self._alone and not self._waiting

    @contextmanager
    def beside_others(self) -> Iterator[None]:
        """Run beside other jobs; waits while a suspect runs or is waiting to."""
        with self._changed:
            self._changed.wait_for(lambda: self.room)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Run with nothing else in the process; waits until the others have ended."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._alone and not self._inside)
            self._waiting -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()
