"""``settings``: all settings with their values here, and their page; made from the code that reads them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

import click
from pydantic.fields import FieldInfo
from rich.table import Table

from maskscore.broker import public_url, redacted
from maskscore.cli.exit_codes import Exit
from maskscore.cli.terminal import new_console
from maskscore.errors import SettingsError
from maskscore.settings import (
    ALL_FIELDS,
    PREFIX,
    ClientSettings,
    GatewaySettings,
    WorkerSettings,
    default_text,
    load_settings,
    unknown_variables,
)

__all__ = ["settings_command", "settings_markdown"]

_INTRODUCTION = """\
# Settings

Settings are environment variables; `maskscore worker` also takes its own as options. Unknown `MASKSCORE_...` variables
are reported. boto3's variables and files configure S3: `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_DEFAULT_REGION`, `AWS_PROFILE` and others.

`make docs` generates this page.
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
    """Return ``docs/reference/settings.md``."""
    lines = [_INTRODUCTION, "| variable | side | default | meaning |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {side} | {default} | {meaning} |" for name, side, default, meaning in _rows()]
    return "\n".join(lines) + "\n"


def _current(name: str, field: FieldInfo) -> tuple[str, str]:
    """Return a setting's value, fit to be shown, and where it comes from: the environment or the default."""
    variable = PREFIX + name.upper()
    given = next((value for key, value in os.environ.items() if key.upper() == variable and value), None)
    if given is None:
        return default_text(field), "default"
    if "Secret" in str(field.annotation):
        return "***", "environment"
    return public_url(given) if name.endswith("url") else redacted(given), "environment"


def _wrong() -> Iterator[str]:
    """Say which variables cannot be used."""
    for kind in (WorkerSettings, GatewaySettings):
        try:
            load_settings(kind)
        except SettingsError as error:
            yield str(error)


@click.command("settings")
@click.option("--markdown", is_flag=True, help="The settings and their defaults as a Markdown page.")
@click.option("--set", "only_set", is_flag=True, help="Only those that the environment sets.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def settings_command(markdown: bool, only_set: bool, as_json: bool) -> None:
    """List every setting with its value, source and meaning.

    Passwords and tokens are not shown. Exits with 2 if a value cannot be used.
    """
    if markdown:
        click.echo(settings_markdown(), nl=False)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("variable", no_wrap=True)
    table.add_column("side")
    table.add_column("value, whether it is set, and what it means")
    for (variable, side, default, meaning), (name, field) in zip(_rows(), ALL_FIELDS.items(), strict=True):
        value, source = _current(name, field)
        if only_set and source == "default":
            continue
        if as_json:
            about = {"variable": variable, "side": side, "value": value, "from": source}
            click.echo(json.dumps({**about, "default": default, "meaning": meaning}))
        place = f"default {default}, set to {value}" if source != "default" else value
        table.add_row(variable, side, f"[{place}] {meaning.replace('`', '')}")
    if not as_json:
        new_console().print(table)
    wrong = list(dict.fromkeys(_wrong()))
    for problem in wrong:
        click.echo(f"maskscore: {problem}", err=True)
    for unknown, meant in unknown_variables().items():
        hint = f"; did you mean {meant}?" if meant else ""
        click.echo(f"maskscore: {unknown} is set but is no setting{hint}", err=True)
    if wrong:
        sys.exit(Exit.WRONG_INPUT)
