"""Recognises files that are no images by their first bytes, and image files that are truncated."""

from __future__ import annotations

import codecs
import io
from typing import Final, Literal

from PIL import TiffImagePlugin

__all__ = ["ends_early", "looks_like"]

_CONVERT: Final = ", which is not read: convert it to JPEG, PNG, WebP or TIFF"
_MAGIC: Final = (
    (b"%!PS", "PostScript" + _CONVERT),
    (b"\xc5\xd0\xd3\xc6", "PostScript" + _CONVERT),
    (b"%PDF", "a PDF" + _CONVERT),
    (b"\x00\x00\x01\x00", "an icon (ICO)" + _CONVERT),
    (b"icns", "an icon (ICNS)" + _CONVERT),
    (b"qoif", "QOI" + _CONVERT),
    (b"SIMPLE  =", "FITS" + _CONVERT),
    (b"8BPS", "a Photoshop document" + _CONVERT),
    (b"DDS ", "a DDS texture" + _CONVERT),
    (b"\x01\xda", "SGI" + _CONVERT),
    (b"\x59\xa6\x6a\x95", "a Sun raster" + _CONVERT),
    (b"\x0a\x05\x01", "PCX" + _CONVERT),
    (b"/* XPM */", "XPM" + _CONVERT),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "gzip"),
)
# Bytes per value of the types 1 to 12 (TIFF 6.0, 2): BYTE, ASCII, SHORT, LONG, RATIONAL, and so on.
_TIFF_SIZES: Final = dict(enumerate((1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8), start=1))
_JPEG2000 = b"\x00\x00\x00\x0cjP  "
_CODESTREAM_END = b"\xff\xd9"


def looks_like(data: bytes) -> str | None:
    """Return words such as ``an HTML page`` for bytes of another kind than an image that is read, or ``None``."""
    for magic, words in _MAGIC:
        if data.startswith(magic):
            return words
    if data[4:8] == b"ftyp" and data[8:12] not in (b"avif", b"avis"):
        heic = data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")
        return ("HEIC" + _CONVERT) if heic else "a film or another file of the MP4 family"
    start = data[:512].removeprefix(codecs.BOM_UTF8)
    lowered = start.lstrip().lower()
    if lowered[:1] == b"<":
        return "an HTML page" if b"<html" in lowered or b"<!doctype html" in lowered else "XML or SVG"
    if lowered[:1] in (b"{", b"["):
        return "JSON"
    try:
        # Not final: the 512 bytes may end within a character.
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return None
    return "text" if all(character.isprintable() or character.isspace() for character in text) else None


def ends_early(data: bytes) -> bool:
    """Say whether an image that could not be decoded is shorter than its own header says.

    For the formats whose decoders do not tell a cut file from a damaged one: GIF's header, WebP, TIFF, JPEG 2000, AVIF.
    """
    if data.startswith(b"GIF8"):
        return not data.rstrip(b"\x00").endswith(b";")
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if data.startswith((b"II*\x00", b"MM\x00*")):
        return _tiff_ends_early(data)
    if data.startswith(b"\xff\x4f\xff\x51"):
        return not data.endswith(_CODESTREAM_END)
    if data.startswith(_JPEG2000):
        return _boxes_end(data) > len(data) or not data.endswith(_CODESTREAM_END)
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return _boxes_end(data) > len(data)
    return False


def _tiff_ends_early(data: bytes) -> bool:
    """Say whether the first directory, one of its values or a piece of its picture lies past the end (TIFF 6.0, 2)."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"

    def number(position: int, size: int) -> int:
        return int.from_bytes(data[position : position + size], order)

    start = number(4, 4)
    entries = range(start + 2, start + 2 + 12 * number(start, 2), 12)
    if start + 2 > len(data) or entries.stop + 4 > len(data):
        return True
    for entry in entries:
        size = _TIFF_SIZES.get(number(entry + 2, 2), 1) * number(entry + 4, 4)
        if size > 4 and number(entry + 8, 4) + size > len(data):
            return True
    try:
        tags = TiffImagePlugin.TiffImageFile(io.BytesIO(data)).tag_v2
        offsets = tags.get(TiffImagePlugin.STRIPOFFSETS) or tags[TiffImagePlugin.TILEOFFSETS]
        sizes = tags.get(TiffImagePlugin.STRIPBYTECOUNTS) or tags[TiffImagePlugin.TILEBYTECOUNTS]
        return any(offset + size > len(data) for offset, size in zip(offsets, sizes, strict=False))
    except Exception:  # damaged in some other way
        return False


def _boxes_end(data: bytes) -> int:
    """Return where the last box of an ISO base media file ends (ISO/IEC 14496-12, 4.2), as the boxes state it."""
    position = 0
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        if size < 8:
            return len(data)  # 0: to the end of the file
        position += size
    return position + 8 if position < len(data) else position
