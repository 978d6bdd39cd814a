"""The command line: ``maskscore COMMAND``. Each command's module is loaded only when it is called."""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from importlib import import_module, metadata
from typing import Any, Final

import click

from maskscore.cli.exit_codes import Exit, exit_code_of
from maskscore.cli.printable_streams import guard_streams, sentence

__all__ = ["main"]

_COMMANDS: Final = {
    "submit": "maskscore.cli.submit",
    "status": "maskscore.cli.job_commands",
    "wait": "maskscore.cli.job_commands",
    "results": "maskscore.cli.job_commands",
    "cancel": "maskscore.cli.job_commands",
    "requeue": "maskscore.cli.requeue",
    "rescore": "maskscore.cli.rescore",
    "run": "maskscore.cli.run",
    "batch": "maskscore.cli.batch",
    "dead": "maskscore.cli.dead",
    "tenants": "maskscore.cli.tenants",
    "export": "maskscore.cli.export",
    "fit": "maskscore.cli.fit",
    "heads": "maskscore.cli.heads",
    "report": "maskscore.cli.report",
    "review": "maskscore.cli.review",
    "compare": "maskscore.cli.compare",
    "eval": "maskscore.cli.eval",
    "worker": "maskscore.cli.worker",
    "pool": "maskscore.cli.pool",
    "plan": "maskscore.cli.plan",
    "up": "maskscore.cli.up",
    "top": "maskscore.cli.top",
    "exporter": "maskscore.cli.exporter",
    "gateway": "maskscore.cli.gateway",
    "doctor": "maskscore.cli.doctor",
    "weights": "maskscore.cli.weights",
    "prompts": "maskscore.cli.prompts",
    "settings": "maskscore.cli.settings",
    "metrics": "maskscore.cli.metrics",
}

_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code.value:>3}  {code.meaning}" for code in Exit)


class _Commands(click.Group):
    """Commands by name, imported when asked for: `maskscore --help` and `maskscore submit` load no model."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(_COMMANDS[cmd_name]), f"{cmd_name}_command")
        return command


@click.group(cls=_Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(metadata.version("maskscore"), prog_name="maskscore")
def _cli() -> None:
    """Score segmentation masks with CLIP, as a service.

    Settings come from MASKSCORE_... variables (`maskscore settings` lists them), S3's from the usual AWS_... ones.
    """


def main() -> None:
    """Run the command line and exit; every error is one sentence on stderr and an exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    warnings.showwarning = _show_warning
    guard_streams()
    try:
        _cli.main(standalone_mode=False)
        # Not left to the end of the interpreter, which would say it in its own words.
        sys.stdout.flush()
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.ClickException as error:
        error.message = sentence(error.message)  # type: ignore[misc]
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(Exit.INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python must not complain at exit either.
        sys.stderr.close()
        sys.exit(Exit.OK)
    except Exception as error:
        code = exit_code_of(error)
        if isinstance(error, OSError) and code is None:
            _discard_output()
            place = f": {error.filename}" if error.filename else ""
            click.echo(f"maskscore: {sentence(f'{error.strerror or error}{place}')}.{_advice_on(error)}", err=True)
            sys.exit(Exit.WRONG_INPUT)
        if code is None:
            raise
        click.echo(f"maskscore: {sentence(error)}", err=True)
        sys.exit(code)


def _discard_output() -> None:
    """Send what is still in stdout's buffer nowhere: it cannot be written, and Python would try once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _advice_on(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return " What was written is not whole: make room, and run the command again."
    return ""


def _terminate(*_: Any) -> None:
    sys.exit(128 + signal.SIGTERM)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):
        click.echo(f"maskscore: warning: {sentence(message)}", err=True)
