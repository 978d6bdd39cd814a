"""rich consoles for tables and progress, in which external text is never markup or control sequences."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import TextColumn
from rich.segment import Segment
from rich.text import Text

from maskscore.cli.printable_streams import unguarded
from maskscore.text import escaped, one_line

__all__ = ["new_console", "text_column"]


class _SafeConsole(Console):
    """Strings are text: no markup, no emoji codes, no highlighting, no control characters; in a table, a line each."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(Text(escaped(each)) if isinstance(each, str) else each for each in objects), **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(one_line(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            safe = segment.text if segment.control else escaped(segment.text)
            yield segment if safe == segment.text else Segment(safe, segment.style)


def new_console(*, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr."""
    stream = unguarded(sys.stderr if stderr else sys.stdout)
    return _SafeConsole(file=stream, highlight=False, markup=False, emoji=False)


def text_column(template: str) -> TextColumn:
    """Return a column of a progress bar, whose text is no markup."""
    return TextColumn(template, markup=False)
