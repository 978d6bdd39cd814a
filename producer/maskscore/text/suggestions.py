"""What a misspelt name was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["closest", "did_you_mean"]


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like this one, by difflib's ratio; ``None`` where none is like it."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return close[0] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean `NAME`?``, to go behind what is wrong; empty where no known name is like it."""
    meant = closest(name, known)
    return f"; did you mean `{meant}`?" if meant else ""
