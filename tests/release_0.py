"""Release 0 of maskscore, installed from this repository's history into an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import venv
from io import BytesIO
from pathlib import Path
from typing import Final

__all__ = ["NO_HISTORY", "install_release_0"]

COMMIT: Final = "72efb378f7cce5ad193921b858c1e0f031086cc6"
NO_HISTORY: Final = "the history of this repository with release 0 is not here (a shallow clone, or no clone at all)"
_ROOT: Final = Path(__file__).parents[1]


def install_release_0(folder: Path) -> Path | None:
    """Make an environment with release 0 in ``folder``, and return its Python; ``None``: :data:`NO_HISTORY`.

    Both halves are installed. What they require is found where the present environment has it; nothing is downloaded.
    """
    python = folder / "bin" / "python"
    if python.exists():
        return python
    try:
        project = tomllib.loads(_git("show", f"{COMMIT}:pyproject.toml").decode())
        halves = [_git("archive", f"{COMMIT}:{half}") for half in ("producer", "worker")]
    except (OSError, subprocess.CalledProcessError):
        return None
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for half in halves:
        with tarfile.open(fileobj=BytesIO(half)) as files:
            files.extractall(site, filter="data")
    # Listed so, their own .pth files are not read, one of which leads to the present maskscore.
    present = [path for path in sys.path if path.endswith("site-packages")]
    (site / "present-packages.pth").write_text("\n".join(present) + "\n")
    # Comes before the present maskscore's, whose entry points lead elsewhere.
    metadata = site / "maskscore-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: maskscore\nVersion: 0.1.0\n")
    groups = project["project"]["entry-points"].items()
    lines = [line for group, entries in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in entries.items()))]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return python


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=_ROOT, check=True, capture_output=True).stdout
