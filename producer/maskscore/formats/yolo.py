"""Label text of Ultralytics: a line per object, ``class x1 y1 x2 y2 ...`` with the sides of the image as 1.

Source: https://docs.ultralytics.com/datasets/segment and ``Results.save_txt`` in
https://github.com/ultralytics/ultralytics (``ultralytics/engine/results.py``), which may add a confidence
(``save_conf``) and a tracker's number at the end of a line.
"""

from __future__ import annotations

import math
from typing import Any

from maskscore.formats.document import MasksDocumentError, Size, UnreadableMask
from maskscore.formats.sought import Sought

__all__ = ["entries_of_labels_text"]

# A rounded coordinate may lie a little outside; a pixel's lies far.
_MOST = 1.5
_FEWEST_NUMBERS = 7


def entries_of_labels_text(data: bytes, sought: Sought) -> list[Any]:
    """Return an entry per line, with the polygon in pixels; ``upstream`` has ``class``, ``confidence``, ``track_id``.

    A line with a box (four numbers after the class) becomes an :class:`~maskscore.formats.UnreadableMask`. Raises
    :class:`~maskscore.formats.MasksDocumentError` where it is no text, or the image's size is not known.
    """
    try:
        lines = [line for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise MasksDocumentError(f"The masks are not text: {error}.") from error
    if not lines:
        return []
    sought.counted(len(lines))
    size = sought.needed_size("The polygons are normalised to 0 ... 1")
    return [_entry(line.split(), size, index) for index, line in enumerate(lines)]


def _entry(tokens: list[str], size: Size, index: int) -> Any:
    try:
        numbers = [float(token) for token in tokens]
    except ValueError:
        return UnreadableMask(str(index), f"Line {index + 1} is not made of numbers.")
    fields, coordinates = _split(tokens, numbers)
    if len(numbers) < _FEWEST_NUMBERS:
        return UnreadableMask(
            str(index), f"Line {index + 1} has a box or less, and no polygon of three points.", fields
        )
    odd = [number for number in coordinates if not math.isfinite(number) or abs(number) > _MOST]
    if odd:
        message = f"Line {index + 1} has the coordinate {odd[0]:g}; they are shares of the image's sides, from 0 to 1."
        return UnreadableMask(str(index), message, fields)
    height, width = size
    scaled = [number * (height if position % 2 else width) for position, number in enumerate(coordinates)]
    return {**fields, "segmentation": [scaled]}


def _split(tokens: list[str], numbers: list[float]) -> tuple[dict[str, Any], list[float]]:
    """Return the fields and the coordinates: what is left over from pairs is a confidence or a tracker's number."""
    fields: dict[str, Any] = {"class": int(numbers[0]) if numbers[0].is_integer() else tokens[0]}
    rest = numbers[1:]
    # With both, a pair is too much, and its second number is a whole one above any coordinate.
    if len(rest) % 2 == 0 and len(rest) > 6 and rest[-1] > 1 and tokens[-1].isdigit():
        fields |= {"confidence": rest[-2], "track_id": int(tokens[-1])}
        return fields, rest[:-2]
    if len(rest) % 2:
        if rest[-1] > 1 and tokens[-1].isdigit():
            fields["track_id"] = int(tokens[-1])
        else:
            fields["confidence"] = rest[-1]
        return fields, rest[:-1]
    return fields, rest
