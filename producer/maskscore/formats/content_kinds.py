"""The first bytes by which files are known, whatever they are called."""

from __future__ import annotations

from typing import Literal

__all__ = ["Kind", "kind_by_magic", "pillow_format"]

Kind = Literal["json", "png", "picture", "npz", "npy", "xml", "text"]
"""What a file is by its first bytes; ``picture`` is TIFF, BMP, GIF or JPEG."""

_PICTURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    # BigTIFF.
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"BM", "BMP"),
)
_OTHERS: tuple[tuple[bytes, Kind], ...] = (
    (b"PK\x03\x04", "npz"),
    (b"PK\x05\x06", "npz"),
    (b"\x93NUMPY", "npy"),
)


def pillow_format(data: bytes) -> str | None:
    """Return Pillow's name of a picture's format, or ``None`` for what is read as no picture."""
    return next((name for magic, name in _PICTURES if data.startswith(magic)), None)


def kind_by_magic(data: bytes) -> Kind | None:
    """Return what a file is that begins so; ``None`` for text and whatever is not known."""
    if (picture := pillow_format(data)) is not None:
        return "png" if picture == "PNG" else "picture"
    return next((kind for magic, kind in _OTHERS if data.startswith(magic)), None)
