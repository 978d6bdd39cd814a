"""Masks → regions: the box of each mask and the bits inside it, decoded no further than the box."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from maskscore.errors import FailureCode, JobError, SkipCode
from maskscore.formats import UnreadableMask
from maskscore.masks import count_fitting, drawable, is_stray
from maskscore.masks.arrays import (
    Bits,
    ReadMask,
    Runs,
    TooMuchWork,
    bits_in_box,
    box_of_runs,
    filled_outline_runs,
    polygon_runs,
    read_counts,
    read_texts,
    runs_of_bits,
)
from maskscore.schema import RLE, Box, Mask, Polygons

__all__ = ["AnyMask", "Region", "SkippedRegion", "Unusable", "check_sizes", "decode_mask", "find_regions"]

AnyMask = Mask | UnreadableMask

# Points farther out, in image sides, are of another image, or damaged.
_FAR = 10
# Rows of labels that are counted at a time.
_BAND = 256
# Components in larger boxes are kept as runs.
_MOST_BITS = 1 << 20
# Characters of compressed RLE that are read in one go: all of most images, in some tens of megabytes.
_MOST_TEXT = 1 << 18


@dataclass(frozen=True, slots=True)
class Region:
    """A mask, or one connected component of it, inside its box XYWH; ``drawn`` in whichever form it was found."""

    index: int
    id: str
    part: int | None
    box: Box
    area: int
    image_height: int
    drawn: Runs | Bits

    @property
    def bits(self) -> Bits:
        """``(h, w)`` bool inside the box; made at each call where the mask came as runs."""
        return bits_in_box(self.drawn, self.box, self.image_height) if isinstance(self.drawn, Runs) else self.drawn

    @property
    def runs(self) -> Runs:
        """Where the image's pixels are inside, in column-major order; made at each call for a component."""
        return self.drawn if isinstance(self.drawn, Runs) else runs_of_bits(self.drawn, self.box, self.image_height)


@dataclass(frozen=True, slots=True)
class SkippedRegion:
    """A mask without a score, and why."""

    index: int
    id: str
    code: SkipCode
    message: str
    part: int | None = None
    box: Box | None = None
    area: int | None = None


class Unusable(Exception):  # noqa: N818 - never leaves this district
    """A mask that cannot be scored: a code of ``skipped``, and why."""

    def __init__(self, code: SkipCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def check_sizes(masks: Sequence[AnyMask], height: int, width: int) -> None:
    """Raise :class:`~maskscore.errors.JobError` (``mask_size_mismatch``) when no mask at all is of this image."""
    sizes = {mask.segmentation.size for mask in masks if isinstance(mask, Mask) and isinstance(mask.segmentation, RLE)}
    if not sizes or (height, width) in sizes or count_fitting(masks, height, width):
        return
    some = ", ".join(f"{w} x {h}" for h, w in sorted(sizes)[:3])
    raise JobError(
        FailureCode.MASK_SIZE_MISMATCH,
        f"No mask fits the image: it has {width} x {height} pixels, the masks are of {some} (width x height). They "
        "belong to another image, to a resized one, or to the other EXIF orientation (see `orientation`).",
    )


def find_regions(
    masks: Sequence[AnyMask],
    *,
    height: int,
    width: int,
    min_area: int,
    split_components: bool,
    check_count: Callable[[int], object] = lambda _: None,
    has_two_frames: bool = False,
    displaced: Mapping[int, tuple[SkipCode, str]] | None = None,
) -> Iterator[Region | SkippedRegion]:
    """Yield the regions of the masks, in their order, one at a time.

    ``height`` and ``width`` are the image's. Boxes are computed from the masks. With ``split_components`` each
    8-connected component is a region of its own, the largest first (equal ones by position), and ``min_area`` (pixels)
    applies to each; the smaller ones of a mask are one skipped region together, behind the others. ``check_count`` is
    called with how many regions there are, with those of the mask that comes next, before these are made; it may raise.
    ``has_two_frames`` says that the image has an EXIF orientation that swaps its sides, so that polygons may be in
    pixels of the frame that was not taken. ``displaced`` are positions of masks that are skipped as copies or parts,
    with why.
    """
    count = 0
    displaced = displaced or {}
    read = _read_ahead(masks, height, width)
    for index, mask in enumerate(masks):
        found = next(read)
        if found is None:
            try:
                runs = decode_mask(mask, height, width, has_two_frames=has_two_frames)
            except Unusable as reason:
                yield SkippedRegion(index, mask.id, reason.code, reason.message)
                continue
            found = ReadMask(runs, box_of_runs(runs, height), runs.area)
        whole = Region(index, mask.id, None, found.box, found.area, height, found.runs)
        if index in displaced:
            code, message = displaced[index]
            yield SkippedRegion(index, mask.id, code, message, None, whole.box, whole.area)
        elif split_components:
            for region in _components(whole, min_area, count, check_count):
                count += 1
                yield region
        elif whole.area >= min_area:
            yield whole
        else:
            message = f"The mask has {whole.area:,} pixels; min_area is {min_area}."
            yield SkippedRegion(index, mask.id, SkipCode.BELOW_MIN_AREA, message, None, whole.box, whole.area)


def _read_ahead(masks: Sequence[AnyMask], height: int, width: int) -> Iterator[ReadMask | None]:
    """Yield for each mask what was read of it with its neighbours; None for one that is to be decoded by itself."""
    start = 0
    while start < len(masks):
        texts: list[str] = []
        size = 0
        while start + len(texts) < len(masks):
            mask = masks[start + len(texts)]
            rle = mask.segmentation if isinstance(mask, Mask) else None
            if not isinstance(rle, RLE) or not isinstance(rle.counts, str) or rle.size != (height, width):
                break
            size += len(rle.counts)
            if texts and size > _MOST_TEXT:
                break
            texts.append(rle.counts)
        read = read_texts(texts, height=height, width=width) if len(texts) > 1 else None
        yield from read if read is not None else [None] * max(1, len(texts))
        start += max(1, len(texts))


def _check_frame(mask: AnyMask, height: int, width: int) -> None:
    if isinstance(mask, Mask) and mask.polygon_size == (width, height) and height != width:
        raise Unusable(
            SkipCode.MASK_SIZE_MISMATCH,
            f"The polygons are of an image of {height} x {width} pixels (width x height), which is scored as {width} x "
            f"{height}: they are of its other EXIF orientation (see `orientation`).",
        )


def decode_mask(mask: AnyMask, height: int, width: int, *, has_two_frames: bool) -> Runs:
    """Return the runs of a mask, at least one. Raises :class:`Unusable` for a mask that cannot be scored."""
    if has_two_frames:
        _check_frame(mask, height, width)
    if isinstance(mask, UnreadableMask):
        raise Unusable(SkipCode.MASK_INVALID, mask.message)
    if isinstance(mask.segmentation, RLE):
        return _decode_rle(mask.segmentation, height, width)
    return _decode_polygons(mask, mask.segmentation, height, width)


def _decode_rle(rle: RLE, height: int, width: int) -> Runs:
    if rle.size != (height, width):
        raise Unusable(
            SkipCode.MASK_SIZE_MISMATCH,
            f"The mask is of {rle.size[1]} x {rle.size[0]} pixels (width x height), the image of {width} x {height}.",
        )
    try:
        runs = read_counts(rle.counts, pixels=height * width)
    except ValueError as error:
        raise Unusable(SkipCode.MASK_INVALID, f"The RLE cannot be used: {error}.") from error
    if not len(runs.starts):
        raise Unusable(SkipCode.EMPTY_MASK, "The mask has no pixel.")
    return runs


def _decode_polygons(mask: Mask, polygons: Polygons, height: int, width: int) -> Runs:
    if not polygons:
        raise Unusable(SkipCode.MASK_INVALID, "The mask has no polygon.")
    kept = drawable(polygons)
    with_strays = len(kept) == len(polygons)
    parts = [
        _checked(number, part, height, width)
        for number, part in enumerate(polygons)
        if with_strays or not is_stray(part)
    ]
    try:
        draw = filled_outline_runs if mask.polygon_convention == "opencv" else polygon_runs
        runs = draw(parts, height, width)
    except TooMuchWork as error:
        raise Unusable(SkipCode.MASK_INVALID, f"The mask cannot be drawn: {error}.") from error
    if not len(runs.starts):
        xs, ys = np.concatenate([part[0::2] for part in parts]), np.concatenate([part[1::2] for part in parts])
        if xs.max() <= 0 or ys.max() <= 0 or xs.min() >= width or ys.min() >= height:
            raise Unusable(SkipCode.OUTSIDE_IMAGE, f"The polygon lies outside the image of {width} x {height} pixels.")
        raise Unusable(SkipCode.EMPTY_MASK, "The polygon is so thin that it holds no pixel.")
    return runs


def _checked(number: int, part: list[float], height: int, width: int) -> npt.NDArray[np.float64]:
    """Return one polygon as an array, if it is one that can be drawn."""
    if len(part) % 2:
        raise Unusable(SkipCode.MASK_INVALID, f"Polygon {number} has {len(part)} numbers; x and y must come in pairs.")
    if len(part) < 6:
        raise Unusable(
            SkipCode.MASK_INVALID,
            f"Polygon {number} has {len(part) // 2} points; it needs at least three points, as one flat list "
            "[x1, y1, x2, y2, ...].",
        )
    numbers = np.asarray(part, np.float64)
    if not np.isfinite(numbers).all():
        raise Unusable(SkipCode.MASK_INVALID, f"Polygon {number} has a coordinate that is not finite.")
    farthest = numbers[np.abs(numbers).argmax()]
    if abs(farthest) > _FAR * max(height, width, 100):
        raise Unusable(
            SkipCode.MASK_INVALID,
            f"Polygon {number} has a coordinate of {farthest:g}, far outside the image of {width} x {height}.",
        )
    return numbers


def _components(
    whole: Region, min_area: int, before: int, check_count: Callable[[int], object]
) -> Iterator[Region | SkippedRegion]:
    """Yield the components of at least ``min_area`` pixels, and what is said of the others.

    A mask of a few bytes may have a component for every fourth pixel, so nothing is made per component before
    ``check_count`` has seen how many are large enough, with the ``before`` ones of other masks.
    """
    labels, count = ndimage.label(whole.bits, structure=np.ones((3, 3), int))
    areas = np.zeros(count + 1, np.int64)
    # Some rows at a time: a count, and a gather, would make 64-bit copies of all labels.
    bands = [slice(row, row + _BAND) for row in range(0, len(labels), _BAND)]
    for band in bands:
        areas += np.bincount(labels[band].ravel(), minlength=count + 1)
    areas[0] = 0
    (large,) = np.nonzero(areas >= min_area)
    check_count(before + len(large) + (len(large) < count))
    order = large[np.argsort(-areas[large], kind="stable")]
    numbers = np.zeros(count + 1, labels.dtype)
    numbers[order] = np.arange(1, len(order) + 1)
    for band in bands:
        labels[band] = numbers[labels[band]]
    x, y = whole.box[:2]
    for part, (label, (rows, columns)) in enumerate(zip(order, ndimage.find_objects(labels), strict=True)):
        own: Bits = labels[rows, columns] == part + 1
        box = (x + columns.start, y + rows.start, own.shape[1], own.shape[0])
        # Thin components may have boxes as large as the image, and many of them are in memory at a time.
        drawn = own if own.size <= _MOST_BITS else runs_of_bits(own, box, whole.image_height)
        yield Region(whole.index, whole.id, part, box, int(areas[label]), whole.image_height, drawn)
    if len(large) < count:
        yield _left_out(whole, count, areas, min_area, list(map(int, large)))


def _left_out(
    whole: Region, count: int, areas: npt.NDArray[np.int64], min_area: int, large: list[int]
) -> SkippedRegion:
    small = count - len(large)
    area = whole.area - int(areas[large].sum())
    if count == 1:
        message = f"The mask has {area:,} pixels; min_area is {min_area}."
    elif not large:
        message = (
            f"None of the mask's {count:,} parts has {min_area:,} pixels (min_area): the largest has "
            f"{int(areas.max()):,}, all together {area:,}."
        )
    else:
        message = (
            f"{small:,} of the mask's {count:,} parts, {area:,} pixels together, are below min_area ({min_area:,})."
        )
    box = None if large else whole.box
    return SkippedRegion(whole.index, whole.id, SkipCode.BELOW_MIN_AREA, message, None, box, area)
