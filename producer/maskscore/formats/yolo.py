"""Label text of Ultralytics: a line per object, ``class x1 y1 x2 y2 ...`` with the sides of the image as 1.

Source: https://docs.ultralytics.com/datasets/segment and ``Results.save_txt`` in
https://github.com/ultralytics/ultralytics (``ultralytics/engine/results.py``), which may add a confidence
(``save_conf``) and a tracker's number at the end of a line. Its outlines are those of ``cv2.findContours``, and its
masks are drawn of them by ``cv2.fillPoly`` (``polygon2mask`` in ``ultralytics/data/utils.py``).
"""

from __future__ import annotations

import math
from typing import Any

from maskscore.formats.format import Format
from maskscore.formats.image_masks import MasksDocumentError, Size, UnreadableMask
from maskscore.formats.read_context import ReadContext

__all__ = ["FORMAT", "starts_with_class"]

# A rounded coordinate may lie a little outside; a pixel's lies far.
_MOST = 1.5
_FEWEST_NUMBERS = 7


def _recognises(head: bytes) -> bool:
    """Say whether a file's beginning is a line of numbers, with spaces between them."""
    line, _, further = head.partition(b"\n")
    # Ultralytics writes a class without a polygon for a mask that it has lost in scaling. A number alone is JSON, too.
    is_short = bool(further.strip()) and starts_with_class(head)
    return is_short or (len(line.split()) >= 5 and _are_numbers(line))


def starts_with_class(head: bytes) -> bool:
    """Say whether the first line is a whole number, and at most a few numbers more, as YOLO's of a lost mask."""
    line = head.split(b"\n", 1)[0]
    tokens = line.split()
    return 0 < len(tokens) < 5 and tokens[0].isdigit() and _are_numbers(line)


def _are_numbers(line: bytes) -> bool:
    return all(map(_is_number, line.split()[:5]))


def _is_number(token: bytes) -> bool:
    try:
        float(token)
    except ValueError:
        return False
    return token[-1:] != b","


def _entries(data: bytes, context: ReadContext) -> list[Any]:
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
    context.counted(len(lines))
    rows = [line.split() for line in lines]
    size = (0, 0)
    if any(len(row) >= _FEWEST_NUMBERS for row in rows):
        size = context.needed_size("The polygons are normalised to 0 ... 1")
    columns = _columns(rows)
    return [_entry(row, columns, size, index) for index, row in enumerate(rows)]


def _columns(rows: list[list[str]]) -> tuple[str, ...] | None:
    """Return the fields behind the polygon, the same in each line; ``None`` where the lines do not agree.

    A tracker's numbers are whole ones, most of them above 1, which neither coordinates nor confidences are. A single
    number more than pairs that is 1 is the first object's number, and not a confidence, if there is no other line.
    """
    long = [row for row in rows if len(row) >= _FEWEST_NUMBERS]
    last = [row[-1] for row in long]
    counted = all(map(_is_count, last))
    large = counted and any(int(text) > 1 for text in last)
    odd = {len(row) % 2 for row in long}
    if odd == {0}:
        return ("track_id",) if large or (counted and len(last) == 1) else ("confidence",)
    if odd == {1}:
        return ("confidence", "track_id") if large and all(len(row) > _FEWEST_NUMBERS for row in long) else ()
    return None


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and int(text[:18]) > 0 and len(text) <= 18


def _entry(tokens: list[str], columns: tuple[str, ...] | None, size: Size, index: int) -> Any:
    try:
        numbers = [float(token) for token in tokens]
    except ValueError:
        return UnreadableMask(str(index), f"Line {index + 1} is not made of numbers.")
    if columns is None:
        columns = _columns([tokens]) or ()
    fields: dict[str, Any] = {"class": int(numbers[0]) if numbers[0].is_integer() else tokens[0]}
    if len(numbers) == 1:
        message = f"Line {index + 1} has a class and no polygon: the mask was lost when the label was written."
        return UnreadableMask(str(index), message, fields)
    if len(numbers) < _FEWEST_NUMBERS:
        return UnreadableMask(
            str(index), f"Line {index + 1} has a box or less, and no polygon of three points.", fields
        )
    end = len(numbers) - len(columns)
    fields |= dict(zip(columns, numbers[end:], strict=True))
    if "track_id" in fields:
        fields["track_id"] = int(tokens[-1])
    coordinates = numbers[1:end]
    odd = [number for number in coordinates if not math.isfinite(number) or abs(number) > _MOST]
    if odd:
        message = f"Line {index + 1} has the coordinate {odd[0]:g}; they are shares of the image's sides, from 0 to 1."
        return UnreadableMask(str(index), message, fields)
    height, width = size
    scaled = [number * (height if position % 2 else width) for position, number in enumerate(coordinates)]
    return {**fields, "segmentation": [scaled], "polygon_convention": "opencv"}


FORMAT = Format(
    name="yolo",
    scope="image",
    description="label text of Ultralytics: a class and a normalised polygon per line",
    kinds=("text",),
    recognises=_recognises,
    entries=_entries,
)
