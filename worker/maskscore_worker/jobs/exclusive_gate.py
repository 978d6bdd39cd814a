"""The exclusive gate: any number of ordinary jobs share the process, or one suspect runs alone in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["ExclusiveGate"]


class ExclusiveGate:
    """A readers-writer lock with writers first: ordinary jobs share it, a suspect holds it exclusively.

    When a process dies, it is unknown which of its jobs killed it, so all of them become suspects, and so does a job
    that was in flight whenever a device broke. Run alone, only the job that is to blame does it again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._exclusive = False
        self._waiting = 0

    @property
    def is_open(self) -> bool:
        """Whether an ordinary job could begin now: no suspect runs or waits."""
        return not self._exclusive and not self._waiting

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold the gate beside other jobs; waits while a suspect runs or waits."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_open)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def exclusive(self, meanwhile: Callable[[], object], every_s: float) -> Iterator[None]:
        """Hold the gate alone; waits until the others have ended, and calls ``meanwhile`` every so many seconds."""
        with self._changed:
            self._waiting += 1
        try:
            while not self._entered_alone(every_s):
                meanwhile()
        finally:
            with self._changed:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._exclusive = False
                self._changed.notify_all()

    def _entered_alone(self, timeout_s: float) -> bool:
        with self._changed:
            if not self._changed.wait_for(lambda: not self._exclusive and not self._inside, timeout_s):
                return False
            self._exclusive = True
            return True
