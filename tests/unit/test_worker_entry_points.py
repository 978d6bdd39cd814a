"""The light package finds the worker's by entry points, without importing it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from maskscore.worker_entry_points import worker_part


def test_what_the_workers_half_offers_is_there() -> None:
    names = {entry.name for entry in entry_points(group="maskscore.worker")}
    assert names == {
        "run",
        "demo-weights",
        "list-weights",
        "pull-weights",
        "check-weights",
        "examinations",
        "token-counter",
    }
    assert all(worker_part(name) is not None for name in names)


def test_what_nobody_offers_is_a_module_that_is_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match="nothing") as error:
        worker_part("nothing")
    assert error.value.name == "maskscore_worker"


@pytest.mark.parametrize("name", ["demo-weights", "list-weights", "pull-weights"])
def test_what_needs_no_model_is_loaded_without_pytorch(name: str) -> None:
    """PyTorch takes seconds to import, in which a command could say nothing."""
    load = (
        "import sys; from maskscore.worker_entry_points import worker_part; "
        f"worker_part({name!r}); print(*{{'torch', 'open_clip', 'scipy'}} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, check=True).stdout == "\n"
