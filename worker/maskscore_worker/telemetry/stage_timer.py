"""Times the stages of a job: seconds for its result and the metrics, begin and end for traces."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Stage", "StageTimer"]


@dataclass(slots=True)
class Stage:
    """One stage of one job; entered several times, it is in several pieces between ``begin_ns`` and ``end_ns``.

    Both are nanoseconds since 1970; ``seconds`` counts the pieces alone. ``failed``: an error has left it.
    """

    begin_ns: int
    end_ns: int
    seconds: float = 0.0
    failed: bool = False


class StageTimer:
    """Counts the time in each stage, in the order in which they were first entered."""

    def __init__(self) -> None:
        # Times of the day that do not jump when the clock is set.
        self._offset_ns = time.time_ns() - time.perf_counter_ns()
        self.stages: dict[str, Stage] = {}
        self.begin_ns = self.now_ns()

    def now_ns(self) -> int:
        """Return nanoseconds since 1970."""
        return self._offset_ns + time.perf_counter_ns()

    def seconds(self, name: str) -> float:
        """Return the seconds in a stage so far; 0 for one that was not entered."""
        stage = self.stages.get(name)
        return stage.seconds if stage else 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time inside the ``with`` block for this stage."""
        begin = time.perf_counter_ns()
        failed = True
        try:
            yield
            failed = False
        finally:
            end = time.perf_counter_ns()
            stage = self.stages.get(name)
            if stage is None:
                stage = self.stages[name] = Stage(self._offset_ns + begin, 0)
            stage.end_ns = self._offset_ns + end
            stage.seconds += (end - begin) / 1e9
            stage.failed = failed
