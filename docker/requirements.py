"""Print what an extra of the project needs, one requirement per line, so that an image can install it before the code.

    python requirements.py pyproject.toml worker

prints the dependencies of ``maskscore[worker]``, those of the extras that it names in turn, and nothing of maskscore
itself. Without an extra: the light client's dependencies.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_OWN_EXTRA = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)\[(?P<extras>[^]]+)\]$")


def requirements(project: dict[str, Any], extras: list[str]) -> Iterator[str]:
    """The requirements of ``project`` (the table of pyproject.toml) with these extras, as they are written there.

    Raises KeyError for an extra that is not there.
    """
    yield from project["dependencies"]
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            own = _OWN_EXTRA.match(requirement)
            if own and own["name"] == project["name"]:
                yield from requirements(project, own["extras"].split(","))
            else:
                yield requirement


if __name__ == "__main__":
    with Path(sys.argv[1]).open("rb") as file:
        print(*sorted(set(requirements(tomllib.load(file)["project"], sys.argv[2:]))), sep="\n")
