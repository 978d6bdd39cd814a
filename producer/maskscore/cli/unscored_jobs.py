"""Jobs that succeeded although no mask of theirs was scored: said on stderr, and no success for a script."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

import click

from maskscore.schema import JobResult

__all__ = ["Unscored"]

T = TypeVar("T")
_EXAMPLES: Final = 3


class Unscored:
    """Counts such jobs among results; true where there is one."""

    def __init__(self) -> None:
        self.count = 0
        self._examples: list[str] = []

    def __bool__(self) -> bool:
        return self.count > 0

    def of(self, results: Iterable[JobResult]) -> Iterator[JobResult]:
        """Pass results on, and count."""
        return self.of_each(results, lambda result: result)

    def of_each(self, items: Iterable[T], result_of: Callable[[T], JobResult]) -> Iterator[T]:
        """Pass on what has a result, and count."""
        for item in items:
            result = result_of(item)
            if result.no_mask_scored:
                self.count += 1
                if len(self._examples) < _EXAMPLES:
                    self._examples.append(f"job {result.job_id}: {result.why_no_mask_scored}")
            yield item

    def say(self) -> None:
        """Say on stderr which jobs those are, the first few of them."""
        for example in self._examples:
            click.echo(f"maskscore: no mask was scored: {example}", err=True)
        if self.count > len(self._examples):
            click.echo(f"maskscore: ... and of {self.count - len(self._examples):,} more jobs", err=True)
