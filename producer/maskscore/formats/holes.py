"""A polygon with holes → RLE. COCO's polygons have none: what they draw twice is drawn."""

from __future__ import annotations

from collections.abc import Sequence

from maskscore.formats.document import Size
from maskscore.formats.read_context import Sought
from maskscore.masks import filled_outline_spans, outline_steps
from maskscore.schema import RLE, text_from_counts

__all__ = ["rle_with_holes"]


def rle_with_holes(exterior: Sequence[float], holes: Sequence[Sequence[float]], size: Size, sought: Sought) -> RLE:
    """Return the pixels of a polygon less those of its holes, each filled as ``cv2.fillPoly`` fills it.

    So Supervisely draws them: a hole takes the pixels under its outline away, too.

    ``exterior`` and ``holes`` are flat ``[x1, y1, x2, y2, ...]`` in pixels; ``size`` is the image's ``(height,
    width)``. Raises :class:`~maskscore.formats.MasksDocumentError` for outlines that are too long to be drawn, and for
    an image of too many pixels.
    """
    sought.check_pixels(*size)
    sought.unpack(size[0] * size[1])
    sought.outline(sum(outline_steps(ring) for ring in (exterior, *holes)))
    rings = [filled_outline_spans(ring, *size) for ring in (exterior, *holes)]
    return RLE(size=size, counts=text_from_counts(_first_without_others(rings, size[0] * size[1])))


def _first_without_others(rings: Sequence[Sequence[tuple[int, int]]], pixels: int) -> list[int]:
    """Return the run lengths of what the first ring's half-open spans cover and no other's do; spans may overlap."""
    edges = sorted(
        (place, change, number > 0)
        for number, spans in enumerate(rings)
        for start, stop in spans
        for place, change in ((start, 1), (stop, -1))
    )
    depths = [0, 0]
    last = 0
    drawn = False
    result: list[int] = []
    for index, (place, change, is_hole) in enumerate(edges):
        depths[is_hole] += change
        if index + 1 < len(edges) and edges[index + 1][0] == place:
            continue
        now = depths[0] > 0 and not depths[1]
        if now != drawn:
            result.append(place - last)
            last, drawn = place, now
    return [*result, pixels - last]
