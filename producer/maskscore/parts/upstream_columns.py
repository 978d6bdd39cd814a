"""Which fields of upstream tools are columns of a table, by the types that they have in all masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

__all__ = ["MOST_COLUMNS", "UpstreamColumns"]

Kind = Literal["boolean", "integer", "number", "text"]

MOST_COLUMNS: Final = 200
"""More fields than any tool writes: beyond that names are data, and stay JSON."""

_LARGEST: Final = 1 << 63
_KINDS: Final[dict[type, Kind]] = {bool: "boolean", int: "integer", float: "number", str: "text"}


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
        kinds = self._kinds
        for name, value in fields.items():
            if value is None:
                continue
            kind = _KINDS.get(type(value))
            if kind == "integer" and not -_LARGEST <= value < _LARGEST:
                kind = None
            if name not in kinds:
                if len(kinds) < MOST_COLUMNS:
                    kinds[name] = kind
            elif kinds[name] != kind:
                kinds[name] = "number" if {kinds[name], kind} == {"integer", "number"} else None

    def columns(self, masks: Sequence[dict[str, Any]]) -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
        """Return the columns of masks by their names, and the other fields of each mask."""
        kinds = self.kinds
        columns = {name: [fields.get(name) for fields in masks] for name in kinds}
        for name, values in columns.items():
            if kinds[name] == "number":
                columns[name] = [None if value is None else float(value) for value in values]
        return columns, [{name: value for name, value in fields.items() if name not in kinds} for fields in masks]

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
