"""What to say where a format needs modules that are not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from maskscore.formats.document import MasksDocumentError

__all__ = ["formats_extra"]


@contextmanager
def formats_extra() -> Iterator[None]:
    """Turn a failed import into a :class:`~maskscore.formats.MasksDocumentError` with the line to type."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MasksDocumentError(
            f'These masks need the module {error.name!r}, which is not installed: pip install "maskscore[formats]".'
        ) from error
