"""A component's segmentation as COCO writes it: compressed RLE, or COCO's polygons as they came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from maskscore.formats import UnreadableMask
from maskscore.masks import Part, connected_parts, counts_of, drawable, spans_of
from maskscore.schema import RLE, Component, Mask, counts_from_text, text_from_counts

__all__ = ["CocoSegmentation", "rle_of"]


class CocoSegmentation:
    """The segmentations of one job's components.

    ``masks`` are the job's, in its order; ``height`` and ``width`` the image's in pixels. ``checked`` compares the
    areas of RLEs with the results', for masks that may have changed since.
    """

    def __init__(self, masks: Sequence[Mask | UnreadableMask], *, height: int, width: int, checked: bool) -> None:
        self._masks = masks
        self._height = height
        self._width = width
        self._checked = checked
        self._parts: tuple[int, list[Part]] = (-1, [])

    def segmentation(self, component: Component) -> Any:
        """Return ``{"size": [height, width], "counts": text}`` or polygons (of another convention than COCO's: RLE).

        Raises ValueError that says what is wrong when the masks hold no such component.
        """
        mask = self._masks[component.index] if component.index < len(self._masks) else None
        if not isinstance(mask, Mask) or mask.id != component.id:
            raise ValueError(f"the masks have no mask {component.id!r:.60} at position {component.index} any more")
        if component.part is not None:
            return self._part(mask, component, component.part)
        if not isinstance(mask.segmentation, RLE):
            if mask.polygon_convention in (None, "coco"):
                return drawable(mask.segmentation)
            # Whoever reads the export draws polygons by COCO's rule, and would get other pixels than were scored.
            spans = spans_of(mask, self._height, self._width)
            return _rle(counts_of(spans, self._height * self._width), self._height, self._width)
        counts = mask.segmentation.counts
        if self._checked and component.area is not None and _area(counts) != component.area:
            raise ValueError(f"the mask {component.id!r:.60} has other pixels now than when it was scored")
        return _rle(counts, *mask.segmentation.size)

    def _part(self, mask: Mask, component: Component, number: int) -> Any:
        if self._parts[0] != component.index:
            spans = spans_of(mask, self._height, self._width)
            self._parts = (component.index, connected_parts(spans, self._height))
        parts = self._parts[1]
        found = parts[number] if number < len(parts) else None
        if found is None or (found.area, found.box) != (component.area, component.box):
            raise ValueError(f"the mask {component.id!r:.60} has other components now than when it was scored")
        return _rle(counts_of(found.spans, self._height * self._width), self._height, self._width)


def rle_of(segmentation: Any, *, height: int, width: int) -> Any:
    """Return polygons as COCO's compressed RLE of an image of this size; an RLE as it is."""
    if not isinstance(segmentation, list):
        return segmentation
    spans = spans_of(Mask(id="", segmentation=segmentation), height, width)
    return _rle(counts_of(spans, height * width), height, width)


def _rle(counts: str | Sequence[int], height: int, width: int) -> dict[str, Any]:
    return {"size": [height, width], "counts": counts if isinstance(counts, str) else text_from_counts(counts)}


def _area(counts: str | Sequence[int]) -> int:
    return sum((counts_from_text(counts) if isinstance(counts, str) else counts)[1::2])
