"""What would cost a decoder more than its picture is worth: found in the bytes, before they are decoded.

A decoder cannot be stopped from outside, so what it may cost is bounded by what can be counted first. Pixels are not
enough: a JPEG of 1.4 MiB whose pixels are few may hold thousands of scans, each of which goes over all of them.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_PIECES", "MAX_SCANS", "TooCostlyError", "check_layout", "sanitized"]

MAX_SCANS: Final = 100
"""Scans of a JPEG. Encoders write about 10 for a progressive one; libtiff stops at 100, too (``tif_jpeg.c``)."""
MAX_PIECES: Final = 100_000
"""JPEG segments, PNG chunks, GIF blocks before the picture, strips or tiles of a TIFF: Pillow handles each in Python.

PNG writers cut 64 MiB into 8,192 chunks of 8 KiB.
"""
_MAX_TILE_PIXELS: Final = 1 << 24
"""A tile of a TIFF is decoded whole, however small the picture is."""
_MAX_BYTES_IN_PYTHON: Final = 1 << 24
"""What Pillow decodes in Python (plain PPM, run-length BMP) takes about 0.3 s per MiB and keeps other threads out."""

# JPEG (ITU-T T.81, B.1.1.2): a marker that a segment follows, or EOI; not those that stand alone within a scan. Of the
# bytes that may fill up before it, the last alone: a pattern that begins with one certain byte is searched ten times
# as fast.
_MARKER: Final = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])")
_SEQUENTIAL: Final = (0xC0, 0xC1)
_SOS, _EOI = 0xDA, 0xD9
_PNG: Final = b"\x89PNG\r\n\x1a\n"
# What becomes pixels, orientation or a warning; other ancillary chunks (first letter small) are not looked at.
_PNG_KEPT: Final = frozenset((b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"))
_PNG_TEXTS: Final = (b"tEXt", b"zTXt", b"iTXt")
# Where an orientation may stand outside eXIf: XMP, and what ImageMagick writes.
_PNG_ORIENTED: Final = (b"XML:com.adobe.xmp", b"Raw profile type exif")
# Pillow refuses a whole picture for one unpacked chunk of more.
_MAX_METADATA: Final = 1 << 20


class TooCostlyError(ValueError):
    """A picture that is not decoded; the message goes on from its name: ``has 5,000 scans; …``."""


def sanitized(data: bytes) -> bytes:
    """Check what decoding an image file would cost, and return its bytes; a PNG's without large metadata.

    Raises :class:`TooCostlyError`. Damage is left for the decoder to find.
    """
    if data.startswith(_PNG):
        return _without_metadata(data)
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data)
    elif data.startswith(b"GIF8"):
        _check_gif(data)
    elif data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        _check_tiff(data)
    return data


def check_layout(image: Image, size: int) -> None:
    """Check the parts of an opened picture, not loaded yet, of a file of ``size`` bytes.

    Raises :class:`TooCostlyError`.
    """
    from PIL import Image as PillowImage

    tiles = getattr(image, "tile", [])
    tags = getattr(image, "tag_v2", {})
    width, height = tags.get(322, 0), tags.get(323, 0)  # TIFF 6.0, 15: TileWidth, TileLength
    if width * height > max(_MAX_TILE_PIXELS, 2 * image.width * image.height):
        raise TooCostlyError(
            f"has tiles of {width} x {height} pixels for a picture of {image.width} x {image.height}. Save it again."
        )
    slow = any(tile[0] in PillowImage.DECODERS for tile in tiles)
    if slow and size > _MAX_BYTES_IN_PYTHON:
        raise TooCostlyError(
            f"is a {image.format} of {size:,} bytes in an encoding that is decoded slowly; of that at most "
            f"{_MAX_BYTES_IN_PYTHON:,} are taken. Save it in another encoding, or as PNG."
        )


def _check_jpeg(data: bytes) -> None:
    segments = scans = 0
    components = b""
    found = _MARKER.search(data, 2)
    while found is not None and found[1][0] != _EOI:
        marker, start = found[1][0], found.end()
        if marker in _SEQUENTIAL:
            components = data[start + 7 : start + 8]
        elif marker == _SOS and components and data[start + 2 : start + 3] == components:
            # libjpeg ends behind the first scan where that has all components, and there is nothing to count.
            return
        segments += 1
        scans += marker == _SOS
        if scans > MAX_SCANS:
            raise TooCostlyError(
                f"has more than {MAX_SCANS} scans, and each costs as much as a whole picture. Save it again, as a "
                "baseline or an ordinary progressive JPEG."
            )
        if segments > MAX_PIECES:
            raise TooCostlyError(f"has more than {MAX_PIECES:,} segments. Save it again without its metadata.")
        length = int.from_bytes(data[start : start + 2], "big")
        found = _MARKER.search(data, start + length)


def _check_gif(data: bytes) -> None:
    """Count the blocks before the first picture (GIF89a, 15 and 23 to 26)."""
    flags = data[10] if len(data) > 10 else 0
    place = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    blocks = 0
    while data[place : place + 1] == b"!":
        place += 2
        while place < len(data) and data[place]:
            place += 1 + data[place]
            blocks += 1
            if blocks > MAX_PIECES:
                raise TooCostlyError(f"has more than {MAX_PIECES:,} blocks. Save it again without its comments.")
        place += 1
        blocks += 1


def _check_tiff(data: bytes) -> None:
    """Count the strips or tiles that the first directory lists (TIFF 6.0, 2; BigTIFF has numbers of 8 bytes)."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    wide = b"+" in data[2:4]

    def number(place: int, size: int) -> int:
        return int.from_bytes(data[place : place + size], order)

    start = number(8, 8) if wide else number(4, 4)
    entries, first, step = (number(start, 8), start + 8, 20) if wide else (number(start, 2), start + 2, 12)
    for place in range(first, min(first + min(entries, MAX_PIECES) * step, len(data)), step):
        count = number(place + 4, 8 if wide else 4)
        if number(place, 2) in (273, 324) and count > MAX_PIECES:  # StripOffsets, TileOffsets
            raise TooCostlyError(
                f"has {count:,} strips or tiles; at most {MAX_PIECES:,} are decoded. Save it with fewer."
            )


def _without_metadata(data: bytes) -> bytes:
    """Return a PNG (https://www.w3.org/TR/png-3/#5Chunk-layout) without the chunks that nobody reads."""
    parts = []
    chunks, start, place = 0, 0, len(_PNG)
    while place + 12 <= len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        end = place + 12 + length
        chunks += 1
        if chunks > MAX_PIECES:
            raise TooCostlyError(f"has more than {MAX_PIECES:,} chunks. Save it again without its metadata.")
        if end > len(data):
            break
        if kind[0] & 0x20 and not _is_kept(kind, data, place + 8, place + 8 + length):
            if place > start:
                parts.append(data[start:place])
            start = end
        place = end
        if kind == b"IEND":
            break
    return b"".join([*parts, data[start:]]) if start else data


def _is_kept(kind: bytes, data: bytes, start: int, stop: int) -> bool:
    if kind in _PNG_KEPT:
        return True
    if kind == b"iCCP":
        return _unpacks_small(data[data.find(b"\0", start, stop) + 2 : stop])
    if kind not in _PNG_TEXTS or not data.startswith(_PNG_ORIENTED, start):
        return False
    keyword, _, rest = data[start:stop].partition(b"\0")
    if kind == b"zTXt":
        return _unpacks_small(rest[1:])
    if kind == b"iTXt" and rest[:1] == b"\1":
        return _unpacks_small(rest[2:].split(b"\0", 2)[-1])
    return len(keyword) + len(rest) <= _MAX_METADATA


def _unpacks_small(packed: bytes) -> bool:
    unpacking = zlib.decompressobj()
    try:
        unpacking.decompress(packed, _MAX_METADATA)
    except zlib.error:  # Pillow goes on without it
        return len(packed) <= _MAX_METADATA
    return not unpacking.unconsumed_tail
