"""What to say when a command needs a part of maskscore that is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

__all__ = ["needs_extra"]


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a failed import inside the block into the line to type; exit code 2."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f'this needs the module {error.name!r}, which is not installed: pip install "maskscore[{extra}]"'
        ) from error
