"""Texts from outside are printed without control characters."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from maskscore.cli import printable_streams
from maskscore.cli.terminal import new_console, text_column
from maskscore.text.escaping import escaped, one_line

HOSTILE = "x[red]y[/red]\x1b]0;owned\x07\x1b[2J\x9b2J\r\nFORGED\u2028\u202e:dog:\ud800\x7f"
CONTROLS = set("\x1b\x07\x9b\r\u2028\u202e\x7f")
CLI = Path(printable_streams.__file__).parent


def test_escapes_are_those_of_json() -> None:
    assert one_line(HOSTILE) == (
        "x[red]y[/red]\\u001b]0;owned\\u0007\\u001b[2J\\u009b2J\\r\\nFORGED\\u2028\\u202e:dog:\\ud800\\u007f"
    )
    assert json.loads(f'"{one_line(HOSTILE)}"') == HOSTILE
    assert escaped("a\tb\nä→漢") == "a\tb\nä→漢"
    assert one_line("a\tb\nä→漢") == "a\\tb\\nä→漢"


def shown(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, what: object) -> str:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
    printable_streams.guard_streams()
    console = new_console()
    console.print(what)
    return stream.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_a_table_shows_markup_emoji_codes_and_controls_as_they_are(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    table = Table("job", "state", box=None, header_style="bold")
    table.add_row(HOSTILE, "failed")
    said = shown(monkeypatch, terminal=terminal, what=table)
    # Its own bold is all that a terminal gets.
    assert ("\x1b[1m" in said) == terminal
    said = re.sub(r"\x1b\[[0-9;]*m", "", said)
    assert not CONTROLS & set(said)
    assert len(said.splitlines()) == 2
    assert "x[red]y[/red]\\u001b]0;owned" in said
    assert ":dog:" in said


def test_text_with_a_style_and_lines_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.text import Text

    assert not CONTROLS & set(shown(monkeypatch, terminal=False, what=Text(HOSTILE)))
    assert shown(monkeypatch, terminal=False, what="one\n[b]two[/b]") == "one\n[b]two[/b]\n"
    assert text_column("[b]{task.description}").markup is False


def test_an_error_and_a_warning_cannot_look_like_another_one() -> None:
    code = f"""
import sys, warnings, click
import maskscore.cli as cli
from maskscore.errors import MaskscoreError
@click.command("boom")
@click.option("--how")
def boom_command(how):
    warnings.warn({HOSTILE!r})
    click.echo({HOSTILE!r})
    print("\\x1b[2J")
    if how == "usage":
        raise click.UsageError({HOSTILE!r})
    if how == "defect":
        raise KeyError("redis://:hunter2@s3cret/tail@h:1/0 \\x1b[2J")
    raise MaskscoreError({HOSTILE!r} + "\\nmaskscore: all went well, redis://:hunter2@h:1/0")
cli._COMMANDS["boom"] = "__main__"
sys.argv = ["maskscore", "boom", "--how", sys.argv[1]]
cli.main()
"""
    for how in ("error", "usage", "defect"):
        ran = subprocess.run([sys.executable, "-c", code, how], capture_output=True, encoding="utf-8")
        assert ran.returncode == {"error": 1, "usage": 2, "defect": 1}[how]
        assert not CONTROLS & set(ran.stdout + ran.stderr), ran
        assert "FORGED" in ran.stdout
        assert "hunter2" not in ran.stderr
        assert "s3cret" not in ran.stderr
        assert not [line for line in ran.stderr.splitlines() if line.startswith(("FORGED", "maskscore: all"))]


def test_every_command_prints_through_them() -> None:
    """``click.echo`` and ``print`` are guarded; rich's own consoles are not."""
    for file in CLI.glob("*.py"):
        text = file.read_text("utf-8")
        if file.name != "terminal.py":
            assert not re.search(r"(?<!Safe)\bConsole\((?!\))|\bTextColumn\(|from_markup|markup=True", text), file
        if file.name != "printable_streams.py":
            assert "sys.stdout.write" not in text, file
            assert "sys.stderr.write" not in text, file
            assert "get_binary_stream" not in text, file
