"""The arrow between the halves: the worker's imports the producer's, never the other way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import maskscore
from maskscore.worker_entry_points import worker_part


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


HEAVY = ("maskscore_worker", "open_clip", "torch", "torchvision", "scipy")


def test_the_producers_half_imports_nothing_of_the_workers() -> None:
    files = sorted(Path(maskscore.__file__).parent.rglob("*.py"))
    assert len(files) > 100
    found = {file.name: name for file in files for name in imported(file) if name.split(".")[0] in HEAVY}
    assert not found


def test_what_the_workers_half_offers_is_there() -> None:
    names = {entry.name for entry in entry_points(group="maskscore.worker")}
    assert names == {"run", "demo-weights", "pull-weights", "check-weights", "examinations", "token-counter"}
    assert all(worker_part(name) is not None for name in names)


def test_what_nobody_offers_is_a_module_that_is_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match="nothing") as error:
        worker_part("nothing")
    assert error.value.name == "maskscore_worker"
