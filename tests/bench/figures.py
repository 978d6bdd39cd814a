"""The figures of a run, by flat keys, kept in one JSON file beside those of other benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["Figures"]


class Figures:
    """``figures["crops.ours_ms"] = 0.6``; :meth:`save` adds them to the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._new: dict[str, float] = {}

    def __setitem__(self, key: str, value: float) -> None:
        self._new[key] = float(f"{value:.5g}")

    def save(self) -> None:
        """Write the new figures over the file's; the others stay."""
        known = json.loads(self.path.read_text("utf-8")) if self.path.exists() else {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(dict(sorted({**known, **self._new}.items())), indent=2) + "\n", "utf-8")
