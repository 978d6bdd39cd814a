"""What to say where a format needs modules that are not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final

from maskscore.formats.outcomes import MasksDocumentError

__all__ = ["formats_extra"]

_MODULES: Final = ("numpy", "PIL", "defusedxml")


@contextmanager
def formats_extra() -> Iterator[None]:
    """Turn a failed import into a :class:`~maskscore.formats.MasksDocumentError` with the line to type."""
    try:
        yield
    except ImportError as error:
        # Of two threads that import the same reader, only one is told which module is missing; the other one is handed
        # the half-made reader and told that it lacks a name.
        absent = error.name if isinstance(error, ModuleNotFoundError) else _missing()
        if absent is None:
            raise
        absent = absent.partition(".")[0]
        raise MasksDocumentError(
            f'These masks need the module {absent!r}, which is not installed: pip install "maskscore[formats]".'
        ) from error


def _missing() -> str | None:
    return next((name for name in _MODULES if find_spec(name) is None), None)
