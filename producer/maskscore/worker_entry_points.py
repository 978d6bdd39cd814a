"""What the worker half gives to the command line and the doctor, by entry points: nothing here imports it.

The worker's package names them in ``pyproject.toml``, in the group ``maskscore.worker``.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

__all__ = ["worker_part"]


def worker_part(name: str) -> Any:
    """Return what the worker half offers under this name.

    Raises :class:`ModuleNotFoundError` where it, or something that it needs, is not installed.
    """
    for entry in entry_points(group="maskscore.worker", name=name):
        return entry.load()
    raise ModuleNotFoundError(
        f"no worker half offers {name!r}; is maskscore itself installed?", name="maskscore_worker"
    )
