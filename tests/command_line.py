"""The command line in this process: all that ``maskscore ...`` says and its exit code, without a new interpreter.

For what a command answers. What a process is in itself (signals, start, what it loads, a closed stream) takes one.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from subprocess import CompletedProcess

from click.testing import CliRunner

from maskscore.cli import main
from process_environment import patched_environment

__all__ = ["run_command", "without_settings"]


def without_settings() -> dict[str, str | None]:
    """Return what, laid over the environment, takes all settings of maskscore out of it."""
    return {name: None for name in os.environ if name.startswith("MASKSCORE_")}


def run_command(
    *arguments: str, environment: Mapping[str, str | None] | None = None, folder: Path | None = None, stdin: str = ""
) -> CompletedProcess[str]:
    """Run ``maskscore ARGUMENTS`` in ``folder``, with ``environment`` over this process's own.

    A variable that is ``None`` is taken away. An exception that ``main`` lets through is raised.
    """
    variables = {"COLUMNS": "80", **(environment or {})}
    handler, given = signal.getsignal(signal.SIGTERM), sys.argv
    with (
        patched_environment({}),
        warnings.catch_warnings(),
        chdir(folder or Path.cwd()),
        CliRunner().isolation(input=stdin, env=variables) as (out, err, _),
    ):
        warnings.simplefilter("default")
        sys.argv = ["maskscore", *arguments]
        try:
            main()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
        else:
            code = 0
        finally:
            sys.argv = given
            signal.signal(signal.SIGTERM, handler)
        for stream in (sys.stdout, sys.stderr):
            if not stream.closed:
                stream.flush()
        said, complained = out.getvalue().decode(), err.getvalue().decode()
    return CompletedProcess(["maskscore", *arguments], code, said, complained)
