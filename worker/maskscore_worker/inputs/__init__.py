"""Images as they come from the store: what kind of file it is, and its decoded pixels."""

from __future__ import annotations

from maskscore_worker.inputs.images import (
    DecodedImage,
    decode_image,
    header_size,
)

__all__ = [
    "DecodedImage",
    "decode_image",
    "header_size",
]
