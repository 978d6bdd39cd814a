"""How the producer's package finds the worker's, which it never imports."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from maskscore.worker_entry_points import worker_part


def test_what_the_workers_half_offers_is_there() -> None:
    names = {entry.name for entry in entry_points(group="maskscore.worker")}
    assert names == {"run", "demo-weights", "pull-weights", "check-weights", "examinations", "token-counter"}
    assert all(worker_part(name) is not None for name in names)


def test_what_nobody_offers_is_a_module_that_is_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match="nothing") as error:
        worker_part("nothing")
    assert error.value.name == "maskscore_worker"
