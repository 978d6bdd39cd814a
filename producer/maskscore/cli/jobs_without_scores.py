"""Jobs that succeeded without a single scored mask: listed on stderr, and a failure for scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

import click

from maskscore.schema import JobResult

__all__ = ["JobsWithoutScores"]

T = TypeVar("T")
_EXAMPLES: Final = 3


class JobsWithoutScores:
    """Counts such jobs among results; truthy where there is one."""

    def __init__(self) -> None:
        self.count = 0
        self._examples: list[str] = []

    def __bool__(self) -> bool:
        return self.count > 0

    def count_in(self, results: Iterable[JobResult]) -> Iterator[JobResult]:
        """Yield the results, and count."""
        return self.count_in_items(results, lambda result: result)

    def count_in_items(self, items: Iterable[T], result_of: Callable[[T], JobResult]) -> Iterator[T]:
        """Yield the items, and count by their results."""
        for item in items:
            result = result_of(item)
            if result.no_mask_scored:
                self.count += 1
                if len(self._examples) < _EXAMPLES:
                    # A shard has many images under its id.
                    where = f" ({result.image.uri})" if result.image else ""
                    self._examples.append(f"job {result.job_id}{where}: {result.why_no_mask_scored}")
            yield item

    def print_examples(self) -> None:
        """Print the first few of these jobs on stderr."""
        for example in self._examples:
            click.echo(f"maskscore: no mask was scored: {example}", err=True)
        if self.count > len(self._examples):
            click.echo(f"maskscore: ... and of {self.count - len(self._examples):,} more jobs", err=True)
