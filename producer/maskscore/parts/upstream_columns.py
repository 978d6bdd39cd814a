"""Which fields of upstream tools are columns of a table, by the types that they have in all masks."""

from __future__ import annotations

from typing import Any, Final, Literal

__all__ = ["MOST_COLUMNS", "UpstreamColumns"]

Kind = Literal["boolean", "integer", "number", "text"]

MOST_COLUMNS: Final = 200
"""More fields than any tool writes: beyond that names are data, and stay JSON."""

_LARGEST: Final = 1 << 63


class UpstreamColumns:
    """Learns the kinds of fields from all masks, then splits a mask's fields into typed ones and the rest.

    Integers and numbers together are numbers. A field that is anything else anywhere (a list, an object, an integer
    that takes more than 64 bits, a text in one mask and a number in another) is of no kind, in all masks.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, Kind | None] = {}

    @property
    def kinds(self) -> dict[str, Kind]:
        """The fields that are columns, in the order in which they were seen."""
        return {name: kind for name, kind in self._kinds.items() if kind is not None}

    def see(self, fields: dict[str, Any]) -> None:
        """Take one mask's fields into account; ``None`` agrees with every kind."""
        for name, value in fields.items():
            if value is None:
                continue
            kind = _kind(value)
            if name not in self._kinds:
                if len(self._kinds) < MOST_COLUMNS:
                    self._kinds[name] = kind
            elif self._kinds[name] != kind:
                both = {self._kinds[name], kind}
                self._kinds[name] = "number" if both == {"integer", "number"} else None

    def split(self, fields: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return one mask's fields that are columns, and the others."""
        typed, rest = {}, {}
        for name, value in fields.items():
            kind = self._kinds.get(name)
            if kind is None:
                rest[name] = value
            else:
                typed[name] = float(value) if kind == "number" and value is not None else value
        return typed, rest


def _kind(value: Any) -> Kind | None:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if -_LARGEST <= value < _LARGEST else None
    if isinstance(value, float):
        return "number"
    return "text" if isinstance(value, str) else None
