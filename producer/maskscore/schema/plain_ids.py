"""Ids of images, annotations and categories as files of masks have them: equal where they are equal as numbers."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["id_key", "plain_id"]

# A number with leading zeros is a name (`000000000139`), and longer ones fit no integer of 64 bits.
_INTEGER: Final = re.compile(r"(-?(?:0|[1-9][0-9]{0,17}))(?:\.0+)?", re.ASCII)


def plain_id(value: object) -> int | str | None:
    """Return an id that is a number as an integer (1, 1.0, ``"1"`` and ``"1.0"`` are 1), another text as it is.

    ``None`` is returned for what is no id: a boolean, a fraction, an empty text, a list.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if not isinstance(value, str) or not value:
        return None
    number = _INTEGER.fullmatch(value)
    return int(number[1]) if number else value


def id_key(value: object) -> str | None:
    """Return a text that two ids share where they are equal, ``None`` for what is no id."""
    plain = plain_id(value)
    return None if plain is None else str(plain)
