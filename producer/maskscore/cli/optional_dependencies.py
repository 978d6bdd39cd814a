"""What to say when a command needs a part of maskscore that is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import click

__all__ = ["needs_extra", "require_module"]


def require_module(name: str, extra: str) -> None:
    """Say the line to type where a module is not installed, without loading it where it is; exit code 2."""
    if find_spec(name) is None:
        raise _missing(name, extra)


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a failed import inside the block into the line to type; exit code 2."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise _missing(error.name, extra) from error


def _missing(name: str | None, extra: str) -> click.UsageError:
    return click.UsageError(f'this needs the module {name!r}, which is not installed: pip install "maskscore[{extra}]"')
