"""The command's entry point and the package that it lies in: what importing them costs, and Ctrl-C meanwhile."""

from __future__ import annotations

import subprocess
import sys

import maskscore

# Ctrl-C in the moment in which the command line is imported.
INTERRUPTED = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, *_):
        if name == "maskscore.cli":
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupting())
from maskscore.__main__ import main
main()
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_ctrl_c_during_the_imports_is_not_a_traceback() -> None:
    ended = python(INTERRUPTED)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "interrupted\n")


def test_the_entry_point_imports_next_to_nothing() -> None:
    heavy = {"boto3", "celery", "click", "pydantic", "redis"}
    ended = python(f"import sys, maskscore.__main__; print({heavy} & set(sys.modules) or '')")
    assert (ended.stdout, ended.stderr) == ("\n", "")


def test_each_public_name_is_found_and_no_other() -> None:
    for name in maskscore.__all__:
        assert getattr(maskscore, name).__module__.startswith("maskscore."), name
    assert set(maskscore.__all__) <= set(dir(maskscore))
    assert not hasattr(maskscore, "Ledger")
