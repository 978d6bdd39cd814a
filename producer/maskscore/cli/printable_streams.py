"""Stdout and stderr that escape control characters, whatever the commands print."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast

from maskscore.broker import redacted
from maskscore.text import escaped

__all__ = ["guard_streams", "sentence", "unguarded"]


class _Guarded:
    """A text stream on which control characters are written as escapes, which are JSON's, too."""

    def __init__(self, stream: TextIO, *, hides_passwords: bool) -> None:
        self.unguarded = stream
        self._hides_passwords = hides_passwords

    def write(self, text: str) -> int:
        self.unguarded.write(escaped(redacted(text) if self._hides_passwords else text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


def guard_streams() -> None:
    """Let printable text alone through to stdout and stderr, and on stderr no password of a URL."""
    sys.stdout = cast(TextIO, _Guarded(unguarded(sys.stdout), hides_passwords=False))
    sys.stderr = cast(TextIO, _Guarded(unguarded(sys.stderr), hides_passwords=True))


def unguarded(stream: TextIO) -> TextIO:
    """Return the stream behind the guard, for what escapes its texts itself and has control sequences of its own."""
    return cast(_Guarded, stream).unguarded if isinstance(stream, _Guarded) else stream


def sentence(error: object) -> str:
    """Return an error's text for stderr; what would be further lines is indented, so that none looks like ours."""
    return "\n  ".join(str(error).splitlines())
