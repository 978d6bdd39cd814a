"""``settings``: the table of all settings, made from the code that reads them."""

from __future__ import annotations

import click
from rich.table import Table

from maskscore.cli.terminal import new_console
from maskscore.settings import (
    ALL_FIELDS,
    PREFIX,
    ClientSettings,
    GatewaySettings,
    WorkerSettings,
    default_text,
)

__all__ = ["settings_command", "settings_markdown"]

_INTRODUCTION = """\
# Settings

Each is an environment variable; `maskscore worker` takes its own as options, too. S3's address and credentials are
boto3's own: `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_DEFAULT_REGION`, `AWS_PROFILE` and
its other sources. A `MASKSCORE_...` variable that is not listed here is reported.

This page is written by `make docs`.
"""


def _rows() -> list[tuple[str, str, str, str]]:
    return [
        (
            PREFIX + name.upper(),
            _side(name),
            default_text(field),
            field.description or "",
        )
        for name, field in ALL_FIELDS.items()
    ]


def _side(name: str) -> str:
    if name in ClientSettings.model_fields:
        return "all"
    return ", ".join(
        side for side, kind in (("worker", WorkerSettings), ("gateway", GatewaySettings)) if name in kind.model_fields
    )


def settings_markdown() -> str:
    """Return ``docs/settings.md``."""
    lines = [_INTRODUCTION, "| variable | side | default | meaning |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {side} | {default} | {meaning} |" for name, side, default, meaning in _rows()]
    return "\n".join(lines) + "\n"


@click.command("settings")
@click.option("--markdown", is_flag=True, help="As a Markdown page.")
def settings_command(markdown: bool) -> None:
    """List every setting with its default and meaning."""
    if markdown:
        click.echo(settings_markdown(), nl=False)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("variable", no_wrap=True)
    table.add_column("side")
    table.add_column("default and meaning")
    for name, side, default, meaning in _rows():
        table.add_row(name, side, f"[{default}] {meaning.replace('`', '')}")
    new_console().print(table)
