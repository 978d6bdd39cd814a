"""``NaN``, ``Infinity`` and ``-Infinity``, which Python writes into JSON, become ``null`` for a strict parser.

RFC 8259, section 6, knows no such numbers; ``json.dumps`` writes them unless ``allow_nan=False`` says otherwise.
"""

from __future__ import annotations

import re
from typing import IO, Final

__all__ = ["StrictJson"]

_ESCAPE: Final = re.compile(rb"\\.", re.DOTALL)
_REST_OF_STRING: Final = re.compile(rb'(?:[^"\\]|\\.)*+"?', re.DOTALL)
_STRING_OR_CONSTANT: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"?|-?Infinity|NaN', re.DOTALL)
# What the next bytes may go on with: an escape, or a constant.
_UNFINISHED: Final = re.compile(rb"(?:\\+|[-INafinty]{1,9})\Z")
_LONGEST_UNFINISHED: Final = 4096


class StrictJson:
    """Reads a JSON file with those constants as ``null``; what stands in strings stays as it is."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._kept = b""
        self.count = 0
        """How many bytes of the file were read."""
        self._in_string = False

    def read(self, size: int = -1) -> bytes:
        """Return about ``size`` further bytes; none at the end."""
        if size == 0:
            return b""
        while True:
            more = self._file.read(size)
            self.count += len(more)
            data = self._kept + more
            unfinished = _UNFINISHED.search(data, max(0, len(data) - _LONGEST_UNFINISHED)) if more else None
            end = unfinished.start() if unfinished else len(data)
            data, self._kept = data[:end], data[end:]
            if data or not more:
                return self._strict(data)

    def _strict(self, data: bytes) -> bytes:
        began_in_string = self._in_string
        quotes = (_ESCAPE.sub(b"", data) if b"\\" in data else data).count(b'"')
        self._in_string ^= quotes % 2 == 1
        if b"NaN" not in data and b"Infinity" not in data:
            return data
        start = _REST_OF_STRING.match(data).end() if began_in_string else 0  # type: ignore[union-attr]
        return data[:start] + _STRING_OR_CONSTANT.sub(_plain, data[start:])


def _plain(found: re.Match[bytes]) -> bytes:
    return found[0] if found[0].startswith(b'"') else b"null"
