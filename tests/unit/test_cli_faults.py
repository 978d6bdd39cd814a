"""Commands whose output is a full disk, and addresses that are Unix sockets, end with a sentence and a code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from command_line import run_command, without_settings

FULL = Path("/dev/full")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_command(*arguments, environment={**without_settings(), **environment})


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", ["prompts show demo", "prompts list"])
def test_a_full_disk_under_stdout_is_said_in_one_line(arguments: str) -> None:
    command = [sys.executable, "-m", "maskscore", *arguments.split()]
    with FULL.open("w") as out:
        ran = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert ran.returncode == 2
    assert "No space left on device" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1, ran.stderr


@pytest.mark.parametrize(
    "arguments", ["status a", "run .", "worker --weights .", "gateway", "exporter", "top", "requeue a", "dead list"]
)
def test_a_unix_socket_is_refused_in_a_sentence(arguments: str, tmp_path: Path) -> None:
    ran = run(*arguments.split(), MASKSCORE_REDIS_URL=f"unix://{tmp_path}/redis.sock")
    assert ran.returncode == 2, ran.stderr
    assert "unix:// is a Unix socket" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_doctor_says_it_of_a_unix_socket() -> None:
    ran = run("doctor", "--no-worker", "--json", MASKSCORE_REDIS_URL="unix:///redis.sock")
    assert ran.returncode == 2
    assert "Traceback" not in ran.stderr
