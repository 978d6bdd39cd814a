"""The size in an image's header, for masks that are normalised or whose axes it decides."""

from __future__ import annotations

from pathlib import Path
from typing import IO

__all__ = ["image_size"]


def image_size(image: Path | IO[bytes]) -> tuple[int, int] | None:
    """Return ``(height, width)`` in pixels, the right way up; ``None`` where Pillow is missing or cannot read it."""
    try:
        from PIL import Image

        from maskscore.rgb import size_of
    except ImportError:
        return None
    try:
        with Image.open(image) as opened:
            return size_of(opened, upright=True)
    except Exception:  # it is the worker's to say what is wrong with the image
        return None
