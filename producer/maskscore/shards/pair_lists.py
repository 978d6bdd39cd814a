"""The pairs of a list, an object of JSON Lines, from a cursor on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from maskscore.errors import FailureCode, JobError
from maskscore.schema import ImageMasksPair, ShardCursor, explain
from maskscore.shards.byte_streams import ByteStream, open_stream
from maskscore.storage import Objects

__all__ = ["ListedPair", "listed_pairs"]

_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ListedPair:
    """A pair of a list, or why its line is none.

    ``number`` counts from 0 over the lines that are not blank: the row in ``images``.
    """

    number: int
    pair: ImageMasksPair | JobError


@contextmanager
def listed_pairs(
    objects: Objects, uri: str, cursor: ShardCursor, *, etag: str | None = None, max_bytes: int, **ranges: Any
) -> Iterator[tuple[Iterator[ListedPair], str]]:
    """Open a list, which may be compressed, at a cursor (``offset`` pairs are done); yield its pairs and its ETag.

    A line that is no :class:`~maskscore.schema.ImageMasksPair` is ``document_invalid``, one of more than ``max_bytes``
    is ``masks_too_large``. ``ranges`` are those of :class:`~maskscore.shards.RangeStream`. Raises
    :class:`~maskscore.errors.JobError` as :meth:`maskscore.storage.Objects.read_range` does, also while it is read:
    ``masks_changed`` for another object than that of the cursor.
    """
    with open_stream(objects, uri, etag=etag or cursor.etag, what="masks", **ranges) as (stream, pin):
        yield _pairs(stream, uri, cursor.offset, max_bytes), pin


def _pairs(stream: ByteStream, uri: str, done: int, max_bytes: int) -> Iterator[ListedPair]:
    number = 0
    for place, line in enumerate(_lines(stream, max_bytes), 1):
        if line is not None and not line.strip():
            continue
        if number >= done:
            yield ListedPair(number, _pair(line, f"{uri}, line {place:,}", max_bytes))
        number += 1
    if stream.error is not None and number >= done:
        message = f"{uri}: the compressed data is damaged after {number:,} pairs: {stream.error}."
        yield ListedPair(number, JobError(FailureCode.DOCUMENT_INVALID, message))


def _pair(line: bytes | None, place: str, max_bytes: int) -> ImageMasksPair | JobError:
    if line is None:
        message = f"{place} has more than the {max_bytes:,} bytes that are read (MASKSCORE_MAX_MASKS_BYTES)."
        return JobError(FailureCode.MASKS_TOO_LARGE, message)
    try:
        return ImageMasksPair.model_validate_json(line)
    except ValidationError as error:
        message = f"{place} is not an object with `image` and `masks`: {explain(error)}."
        return JobError(FailureCode.DOCUMENT_INVALID, message)


def _lines(stream: ByteStream, max_bytes: int) -> Iterator[bytes | None]:
    """Yield the lines without their ends; ``None`` for one that is too long, which is read past."""
    begun, too_long = b"", False
    while piece := stream.read(_PIECE):
        first, *others = piece.split(b"\n")
        too_long = too_long or len(begun) + len(first) > max_bytes
        begun = b"" if too_long else begun + first
        for following in others:
            yield None if too_long else begun
            too_long = len(following) > max_bytes
            begun = b"" if too_long else following
    # A line that damage has cut off is no line.
    if too_long or (begun and stream.error is None):
        yield None if too_long else begun
