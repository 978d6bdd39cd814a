"""Tables for the terminal that are also Markdown, for the pages of the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

__all__ = ["show_table"]


def show_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Print a table, and return it as Markdown; the first ``left`` columns are text, the others numbers."""
    table = Table()
    for number, column in enumerate(columns):
        name = column.replace("`", "")
        if number < left:
            table.add_column(name, no_wrap=True)
        else:  # no wider than its numbers
            table.add_column(name.replace(" ", "\n"), justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    alignment = ["---" if number < left else "---:" for number in range(len(columns))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (columns, alignment, *rows))
