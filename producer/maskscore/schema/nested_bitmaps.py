"""Masks as nested lists, as ``mask.tolist()`` gives them → run lengths, in plain Python."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from maskscore.schema.rle_text import text_from_counts

__all__ = ["rle_of_rows", "rows_of_bitmap"]

_RUNS: Final = re.compile(b"\x00+|[^\x00]+")
_USUAL: Final = ({0}, {1}, {255}, {0, 1}, {0, 255})
_FEWEST_ROWS: Final = 4
# Three or four corners, and the first once more.
_LENGTHS_OF_SQUARES: Final = (6, 8, 10)


def rows_of_bitmap(lists: Sequence[Any]) -> Sequence[Any] | None:
    """Return the rows of a mask of H rows of W values, also where it is the only one of a stack; ``None`` for polygons.

    It is a mask where it has booleans; or where there are several rows, all equally long, with no more than two values:
    0 and 1, or 0 and 255; in four rows and more 0 and any other, unless they are as long as triangles or squares.
    Polygons of such coordinates would all lie on the corners of one square, so longer ones would repeat a corner.
    """
    first = lists[0] if lists else None
    if not isinstance(first, list) or not first:
        return None
    if len(lists) == 1 and isinstance(first[0], list):
        return rows_of_bitmap(first) if first[0] and not isinstance(first[0][0], list) else None
    if isinstance(first[0], bool):
        return lists
    if len(lists) < 2:
        return None
    values: set[Any] = set()
    try:
        for row in lists:
            if not isinstance(row, list) or len(row) != len(first):
                return None
            values.update(row)
            # Nearly every polygon says at its first numbers that it is one.
            if len(values) > 2:
                return None
    except TypeError:  # lists in lists
        return None
    if values in _USUAL:
        return lists
    if len(lists) < _FEWEST_ROWS or len(first) in _LENGTHS_OF_SQUARES:
        return None
    return lists if 0 in values and _are_numbers(values) else None


def rle_of_rows(rows: Sequence[Any]) -> dict[str, Any]:
    """Return a mask of H rows of W values, of which what is not 0 is inside, as the fields of COCO's compressed RLE.

    Raises ValueError for rows of different lengths, and for values that are no numbers.
    """
    height, width = len(rows), len(rows[0])
    if any(not isinstance(row, list) or len(row) != width for row in rows):
        raise ValueError("a mask as nested lists has H rows of W values; these rows are not all equally long")
    try:
        values = set().union(*rows)
    except TypeError:
        values = {None}
    if not _are_numbers(values):
        raise ValueError("a mask as nested lists has H rows of W booleans or numbers; these have other values, too")
    pixels = bytes(map(bool, chain.from_iterable(zip(*rows, strict=True))))
    counts = [len(run[0]) for run in _RUNS.finditer(pixels)]
    return {"size": (height, width), "counts": text_from_counts([0, *counts] if pixels[0] else counts)}


def _are_numbers(values: set[Any]) -> bool:
    return all(isinstance(value, int | float) for value in values)
