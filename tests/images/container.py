"""Runs an image as an orchestrator would, without a daemon: its user, its entry point, process 1, read-only root."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Container", "Image", "mounted"]

# Everything but /tmp, /proc and /dev is read-only; each `exec` keeps the process id, so that the last one is process 1.
_ENTER = """
set -e
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
mount -t tmpfs -o mode=1777 tmpfs "$1/tmp"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
root=$1 user=$2
shift 2
exec chroot --userspec="$user" "$root" "$@"
"""
_UNSHARED = ("unshare", "--mount", "--pid", "--fork", "sh", "-c", _ENTER, "sh")


@dataclass(frozen=True, slots=True)
class Image:
    """A built image whose file system is mounted at ``root``; ``config`` is its configuration, as Docker writes it."""

    name: str
    root: Path
    config: dict[str, Any]

    @contextmanager
    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, entrypoint: Sequence[str] | None = None
    ) -> Iterator[Container]:
        """Start the entry point (or another one) with these arguments; at the end it is killed if it still runs."""
        entry = self.config["Entrypoint"] if entrypoint is None else entrypoint
        variables = {**dict(pair.split("=", 1) for pair in self.config["Env"]), **environment}
        command = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in variables.items()), *entry, *arguments]
        process = subprocess.Popen(
            [*_UNSHARED, str(self.root), self.config["User"], *command], stdout=subprocess.PIPE, text=True
        )
        container = Container(process)
        try:
            yield container
        finally:
            container.kill()

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], *, entrypoint: Sequence[str] | None = None
    ) -> str:
        """Run to the end and return what was printed. Raises :class:`RuntimeError` for another exit code than 0."""
        with self.start(arguments, environment, entrypoint=entrypoint) as container:
            printed, _ = container.process.communicate()
            if container.process.returncode:
                shown = shlex.join(arguments)
                raise RuntimeError(f"{self.name} {shown} ended with {container.process.returncode}:\n{printed}")
            return printed


@dataclass(frozen=True, slots=True)
class Container:
    """A running image; ``process`` is the one that waits for its process 1."""

    process: subprocess.Popen[str]

    def stop(self, sign: str, *, within_s: float) -> tuple[int, float]:
        """Send process 1 a signal and return its exit code and the seconds that it took.

        Raises :class:`subprocess.TimeoutExpired` after ``within_s`` seconds.
        """
        started = time.monotonic()
        self._signal(signal.Signals[sign])
        return self.process.wait(within_s), time.monotonic() - started

    def kill(self) -> None:
        """End it now, if it still runs: the kernel ends whatever lives beside a process 1 that ends."""
        if self.process.poll() is None:
            self._signal(signal.SIGKILL)
            self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for child in children.read_text().split():
            os.kill(int(child), number)


@contextmanager
def mounted(name: str) -> Iterator[Image]:
    """Mount an image of buildah's store, for as long as the ``with`` block lasts."""
    container = _buildah("from", "--pull=false", name)
    try:
        inspected = json.loads(_buildah("inspect", container))
        yield Image(name, Path(_buildah("mount", container)), inspected["Docker"]["config"])
    finally:
        _buildah("rm", container)


def _buildah(*arguments: str) -> str:
    return subprocess.run(["buildah", *arguments], check=True, capture_output=True, text=True).stdout.strip()
