"""What a build takes over from this machine: how pip reaches its packages. Nothing of it stays in the image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["pip_configuration"]

_PATHS = ("cert", "client-cert", "constraint", "find-links", "extra-index-url", "index-url")
_TAKEN = (*_PATHS, "proxy", "trusted-host", "no-index", "timeout", "retries")


def pip_configuration() -> tuple[str, list[Path]]:
    """Return a pip.conf that says what pip's configuration here says, and the local paths that it names."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    values: dict[str, str] = {}
    # Later scopes win, as they do for pip: global, user, site, then the environment.
    for line in listed.splitlines():
        name, _, quoted = line.partition("=")
        option = name.rsplit(".", 1)[-1].replace("_", "-")
        if option in _TAKEN:
            values[option] = quoted.strip().strip("'\"")
    paths = [path for option in _PATHS for word in values.get(option, "").split() if (path := _local(word))]
    lines = ["[global]", *(f"{option} = {value}" for option, value in values.items())]
    return "\n".join(lines) + "\n", sorted(set(paths))


def _local(word: str) -> Path | None:
    """The existing file or folder that a word of pip's configuration names, or the folder above an index of files."""
    path = Path(urlsplit(word).path if word.startswith("file:") else word)
    if not path.is_absolute() or not path.exists():
        return None
    # A simple index on disk links to the files beside it.
    return path.parent if word.startswith("file:") and path.name == "simple" else path
