"""Parts of messages: numbers with their nouns, and what a misspelt name was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["closest", "counted", "did_you_mean"]


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like this one, by difflib's ratio; ``None`` where none is like it."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return close[0] if close else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean `NAME`?``, to go behind what is wrong; empty where no known name is like it."""
    meant = closest(name, known)
    return f"; did you mean `{meant}`?" if meant else ""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """Return ``1 image``, ``1,000 images``, ``2 entries``: the number with the noun in singular or plural."""
    if count == 1:
        return f"1 {noun}"
    regular = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {plural or regular}"
