"""The formats that live in modules of their own. A new one is its module, a line here, its name in ``MasksFormat``.

(Its page is ``docs/reference/formats/NAME.md``.)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from maskscore.formats import kitti_mots, label_studio_min, labelme, mmdet, sa1b, supervisely, via, vos
from maskscore.formats.format import Format

__all__ = ["REGISTERED", "recognised", "recognised_folder", "recognised_text"]

REGISTERED: Mapping[str, Format] = MappingProxyType(
    {
        format_.name: format_
        for format_ in (
            sa1b.SA1B,
            sa1b.GROUNDED_SAM2,
            mmdet.FORMAT,
            label_studio_min.FORMAT,
            labelme.FORMAT,
            via.FORMAT,
            supervisely.FORMAT,
            kitti_mots.FORMAT,
            vos.FORMAT,
        )
    }
)
"""Name → format."""


def recognised(document: Any) -> str | None:
    """Return the name of the first of them that a parsed JSON document is of, or ``None``."""
    return _first("json", document)


def recognised_text(head: bytes) -> str | None:
    """Return the name of the first of them that a text of this beginning is of, or ``None``."""
    return _first("lines", head)


def recognised_folder(path: Path) -> str | None:
    """Return the name of the first of them that a folder is of, or ``None``."""
    return _first("folder", path)


def _first(kind: str, shown: Any) -> str | None:
    return next((name for name, known in REGISTERED.items() if known.kind == kind and known.recognises(shown)), None)
