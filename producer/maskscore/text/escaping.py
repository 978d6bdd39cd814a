"""Control characters made visible, for terminals and logs: what comes from outside must not move a cursor or forge a
line.

JSON documents printed by the command line may go through :func:`escaped`, too: the escapes are JSON's.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["escaped", "one_line"]

# C0 and C1 controls, line and paragraph separators, the marks that change the direction of text (Unicode's TR 36, 3.2),
# and lone surrogates, which no encoding can write. `escaped` leaves the newline and the tabulator.
_ALWAYS: Final = (
    "\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028\\u2029\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff"
)
_UNSAFE: Final = re.compile(f"[{_ALWAYS}]")
_UNSAFE_IN_A_LINE: Final = re.compile(f"[{_ALWAYS}\\n\\t]")
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escaped(text: str) -> str:
    """Return a text whose control characters, but for newlines and tabulators, are written as ``\\u001b`` and so on."""
    return _UNSAFE.sub(_escape, text)


def one_line(text: str) -> str:
    """Return a text in one line: newlines and tabulators are written as ``\\n`` and ``\\t``, too."""
    return _UNSAFE_IN_A_LINE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    return _SHORT.get(character) or f"\\u{ord(character):04x}"
