"""Text of KITTI MOTS and MOTSChallenge: a line per object and frame of one video, with COCO's compressed RLE.

``time_frame id class_id img_height img_width rle``. Source: https://www.vision.rwth-aachen.de/page/mots (annotation
format) and https://github.com/VisualComputingInstitute/mots_tools (``mots_common/io.py``). Class 10 is what to ignore.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from maskscore.formats.containers import opened
from maskscore.formats.format import Format, Grouping
from maskscore.formats.image_masks import ImageMasks, MasksDocumentError, Orphans, UnreadableMask
from maskscore.formats.json_stream import Grouped
from maskscore.formats.masks_from_entries import masks_of
from maskscore.formats.read_context import ReadContext

__all__ = ["FORMAT"]

_FIELDS = 6
_IGNORED_CLASS = 10
# Of the 64 characters of COCO's compressed RLE: maskscore.schema.rle_text.
_FIRST = 48
# Numbers of more digits are no frames, ids or sizes; reading very long ones takes long.
_MOST_DIGITS = 12


def _recognises(head: Any) -> bool:
    """Say whether the first line of a file's beginning is one of this format, and not of YOLO's numbers from 0 to 1."""
    tokens = head.split(b"\n", 1)[0].split()
    if len(tokens) != _FIELDS or not all(token.isdigit() and len(token) <= _MOST_DIGITS for token in tokens[:5]):
        return False
    return int(tokens[3]) > 1 and int(tokens[4]) > 1 and all(_FIRST <= byte < _FIRST + 64 for byte in tokens[5])


def _lines(lines: Iterable[bytes]) -> Iterator[tuple[int | None, Any]]:
    """Yield the frame and the entry of each line; of a line that has no frame ``None``."""
    for index, line in enumerate(lines):
        tokens = line.split()
        if not tokens:
            continue
        numbers = [int(token) for token in tokens[:5] if token.isdigit() and len(token) <= _MOST_DIGITS]
        if len(tokens) != _FIELDS or len(numbers) != _FIELDS - 1:
            message = f"Line {index + 1} is not `time_frame id class_id img_height img_width rle`."
            yield (numbers[0] if numbers and tokens[0].isdigit() else None), UnreadableMask(str(index), message)
            continue
        frame, object_id, class_id, height, width = numbers
        fields = {"class_id": class_id, "time_frame": frame}
        if class_id == _IGNORED_CLASS:
            message = f"Line {index + 1} is of the class {_IGNORED_CLASS}: a region to ignore."
            yield frame, UnreadableMask(str(object_id), message, fields)
            continue
        rle = {"size": [height, width], "counts": tokens[5].decode("latin-1")}
        yield frame, {"id": object_id, "segmentation": rle, **fields}


def _entries(data: Any, context: ReadContext) -> list[Any]:
    frames: dict[int | None, list[Any]] = {}
    for frame, entry in _lines(data.splitlines()):
        frames.setdefault(frame, []).append(entry)
    known = [frame for frame in frames if frame is not None]
    stem = str(context.id) if context.id is not None else (context.file_name or "").rsplit(".", 1)[0]
    chosen = int(stem) if stem.isdecimal() and len(stem) <= _MOST_DIGITS else None
    if chosen in known:
        entries = frames[chosen]
    elif len(known) == 1 and context.id is None and chosen is None:
        entries = frames[known[0]]
    else:
        raise MasksDocumentError(
            f"The file of KITTI MOTS has no frame with {context.words}, of {len(known)}: an image is called by its "
            "frame, such as 000012.png. Else give the frame as `image_id` beside the masks' URI."
        )
    context.counted(len(entries))
    return [*entries, *frames.get(None, [])]


def _group(path: Path, grouped: Grouped) -> None:
    with opened(path) as file:
        for row in _packed(_lines(file)):
            grouped.add_annotation(row, str(row["frame"]))


def _images(path: Path, grouped: Grouped, _: Orphans) -> Iterator[ImageMasks]:
    video = path.name.split(".", 1)[0]
    # Of MOTSChallenge every file is called `gt.txt`.
    folder = "" if video == "gt" else f"{video}/"
    for key, first in grouped.annotated():
        frame = first["frame"]
        entries = [_unpacked(row["entry"]) for row in grouped.annotations(key)]
        sizes = [entry["segmentation"]["size"] for entry in entries if isinstance(entry, dict)]
        size = (sizes[0][0], sizes[0][1]) if sizes else None
        yield ImageMasks(f"{folder}{frame:06d}", masks_of(entries), frame, size)


def _packed(lines: Iterable[tuple[int | None, Any]]) -> Iterator[dict[str, Any]]:
    for frame, entry in lines:
        if frame is None:
            raise MasksDocumentError(f"The file of KITTI MOTS cannot be read: {entry.message}")
        if isinstance(entry, UnreadableMask):
            entry = {"left_out": [entry.id, entry.message, entry.upstream]}
        yield {"frame": frame, "entry": entry}


def _unpacked(entry: dict[str, Any]) -> Any:
    return UnreadableMask(*entry["left_out"]) if "left_out" in entry else entry


FORMAT = Format(
    name="kitti-mots",
    scope="dataset",
    description="text of KITTI MOTS: a line per object and frame of a video, with an RLE",
    kinds=("text",),
    recognises=_recognises,
    entries=_entries,
    grouping=Grouping(_group, _images),
)
