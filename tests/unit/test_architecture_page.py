"""ARCHITECTURE.md names districts, files, classes and functions that exist."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
SOURCES = {"maskscore": ROOT / "producer", "maskscore_worker": ROOT / "worker", "docs": ROOT}
PLACES = sorted(set(re.findall(r"`((?:maskscore|maskscore_worker|docs)/[^`]*)`", PAGE)))


def _names(nodes: list[ast.stmt], prefix: str = "") -> set[str]:
    """Return what a module defines: functions, classes and their methods, assigned names."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                names |= _names(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {prefix + target.id for target in targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize("place", PLACES)
def test_every_place_exists(place: str) -> None:
    path, _, name = place.partition("::")
    file = SOURCES[path.partition("/")[0]] / path
    assert file.exists(), path
    if name:
        assert name in _names(ast.parse(file.read_text("utf-8")).body), place


@pytest.mark.parametrize("package", ["maskscore", "maskscore_worker"])
def test_districts_are_listed_in_the_order_of_the_contract(package: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = [one["layers"] for one in contracts if one["type"] == "layers" and one["containers"] == [package]]
    section = PAGE.split(f"## `{package}`, ")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)
    expected = [set(layer.split(" | ")) - {"__main__"} for layer in layers]
    position = 0
    for layer in filter(None, expected):
        assert set(listed[position : position + len(layer)]) == layer
        position += len(layer)
    assert position == len(listed)


def test_a_job_has_at_most_fifteen_stops() -> None:
    stops = re.findall(r"^(\d+)\. `([^`]+::[^`]+)`", PAGE, flags=re.MULTILINE)
    assert [int(number) for number, _ in stops] == list(range(1, len(stops) + 1))
    assert 10 <= len(stops) <= 15
