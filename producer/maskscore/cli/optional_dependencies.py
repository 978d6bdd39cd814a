"""Usage errors for commands whose optional dependencies are not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import click

__all__ = ["check_installed", "needs_extra"]


def check_installed(name: str, extra: str) -> None:
    """Raise a usage error with the pip command where a module is missing; the module is not loaded."""
    if find_spec(name) is None:
        raise _missing(name, extra)


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a failed import in the block into a usage error with the pip command."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise _missing(error.name, extra) from error


def _missing(name: str | None, extra: str) -> click.UsageError:
    return click.UsageError(f'this needs the module {name!r}, which is not installed: pip install "maskscore[{extra}]"')
