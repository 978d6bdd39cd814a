"""The formats that live in modules of their own. A new one is its module, a line here, its name in ``MasksFormat``.

(Its page is ``docs/formats/NAME.md``.)
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from maskscore.formats import label_studio_min, labelme, mmdet, sa1b, supervisely, via
from maskscore.formats.record import Format

__all__ = ["REGISTERED", "recognised"]

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
        )
    }
)
"""Name → format."""


def recognised(document: Any) -> str | None:
    """Return the name of the first of them that a parsed JSON document is of, or ``None``."""
    return next((name for name, format_ in REGISTERED.items() if format_.recognises(document)), None)
