"""The rate of one worker, from the benchmark's file."""

from __future__ import annotations

import json
from pathlib import Path

from maskscore.errors import InvalidDocumentError

__all__ = ["read_rate"]

_SERVICE, _RATE = "service.", "masks_per_s"


def read_rate(path: Path, name: str | None = None) -> tuple[str, float]:
    """Return a figure of the benchmark's file in masks/s, and its name.

    That is the figure ``name``, or the slowest of the whole service's (``service.…masks_per_s``): a plan should rather
    be wrong in that direction. Raises :class:`~maskscore.errors.InvalidDocumentError` that says what the file has.
    """
    try:
        figures = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidDocumentError(f"{path} cannot be read as the benchmark's JSON file: {error}.") from error
    if not isinstance(figures, dict):
        raise InvalidDocumentError(f"{path} is not the benchmark's JSON file: it holds no object of figures.")
    rates = {
        key: float(value)
        for key, value in figures.items()
        if key.endswith(_RATE) and isinstance(value, int | float) and value > 0
    }
    usual = {key: value for key, value in rates.items() if key.startswith(_SERVICE)}
    chosen = name or min(usual, key=lambda key: usual[key], default=None)
    if chosen is None or chosen not in rates:
        raise InvalidDocumentError(
            f"{path} has no figure {chosen or _SERVICE + '...' + _RATE!r}; it has: {', '.join(rates) or 'no rates'}. "
            "`make bench` measures them."
        )
    return chosen, rates[chosen]
