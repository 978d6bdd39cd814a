"""The size in an image's header, for masks that are normalised or whose axes it decides."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from maskscore.schema import Orientation

__all__ = ["image_size"]


def image_size(image: Path | IO[bytes], orientation: Orientation = "auto") -> tuple[int, int] | None:
    """Return ``(height, width)`` in pixels; ``None`` where Pillow is missing or cannot read it.

    It is that of the picture the right way up, as tools that write normalised coordinates see it, but for
    ``orientation="ignore"``: then it is that of the picture as it is stored.
    """
    try:
        from maskscore.imaging import open_picture, size_of
    except ImportError:
        return None
    try:
        with open_picture(image.read_bytes() if isinstance(image, Path) else image.read()) as opened:
            return size_of(opened, upright=orientation != "ignore")
    except Exception:  # it is the worker's to say what is wrong with the image
        return None
