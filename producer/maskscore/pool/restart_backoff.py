"""Exponential backoff before a worker that died is started again."""

from __future__ import annotations

__all__ = ["RestartBackoff"]


class RestartBackoff:
    """The deaths at one slot, and the pause after each: doubled every time, and short again after a good run.

    Parameters
    ----------
    first_s, most_s: the pause after the first death, and the longest one, in seconds.
    well_s: a worker that took jobs for so many seconds has run well, and what came before is forgotten.

    The moments are seconds of any clock that never goes back.
    """

    def __init__(self, *, first_s: float = 1.0, most_s: float = 30.0, well_s: float = 60.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._well_s = well_s
        self._deaths = 0
        self._not_before = float("-inf")

    def died(self, now: float, *, ready_at: float | None) -> float:
        """Note a death, of a worker that took jobs since ``ready_at`` (``None``: never), and return the pause."""
        if ready_at is not None and now - ready_at >= self._well_s:
            self._deaths = 0
        self._deaths += 1
        pause: float = min(self._most_s, self._first_s * 2.0 ** min(self._deaths - 1, 30))
        self._not_before = now + pause
        return pause

    def over(self, now: float) -> bool:
        """Whether the pause is over."""
        return now >= self._not_before
