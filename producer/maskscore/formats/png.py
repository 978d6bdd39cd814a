"""Pictures of one image's masks: a label map (PNG, TIFF, BMP, GIF), or one binary mask (JPEG, too)."""

from __future__ import annotations

from typing import Any

from maskscore.formats.format import Format
from maskscore.formats.read_context import ReadContext

__all__ = ["PNG_BINARY", "PNG_LABELS"]


def _format(name: str, description: str) -> Format:
    def entries(picture: Any, context: ReadContext) -> list[Any]:
        from maskscore.formats.picture_masks import entries_of_picture

        return entries_of_picture(picture, name, context)

    return Format(
        name=name,
        scope="image",
        description=description,
        kinds=("png", "picture"),
        recognises=lambda picture: picture.format_name == name,
        entries=entries,
    )


PNG_LABELS = _format("png-labels", "label map in a PNG, TIFF, BMP or GIF: each value but 0 is a mask")
PNG_BINARY = _format("png-binary", "PNG, TIFF, BMP, GIF or JPEG of one mask: the bright pixels are inside")
