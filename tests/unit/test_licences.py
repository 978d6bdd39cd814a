"""Each dependency of the wheel and of the images has a licence compatible with Apache-2.0, and is listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from licences import Dependency, dependencies

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "licences.md"


def test_every_licence_is_compatible() -> None:
    """A dependency under another licence is named with it."""
    found = dependencies()
    assert len(found) > 40, "the walk over the requirements has found too little"
    assert [f"{one.name}: {one.licence}" for one in found if not one.compatible] == []


def test_every_dependency_is_listed() -> None:
    """`make docs` writes the page again."""
    listed = PAGE.read_text("utf-8")
    assert [one.name for one in dependencies() if f"| {one.name} |" not in listed] == []


@pytest.mark.parametrize(
    ("licence", "compatible"),
    [("MIT", True), ("GPL-3.0", False), ("MIT AND GPL-3.0", False), ("GPL-2.0 OR MIT", True), ("not stated", False)],
)
def test_parts_and_alternatives_of_an_expression(licence: str, compatible: bool) -> None:
    """All parts of a conjunction must be compatible, of alternatives one."""
    assert Dependency("a", licence).compatible is compatible
