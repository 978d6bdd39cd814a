"""Images, arrays and archives as the bytes of their files."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["image_file", "npy_file", "npz_file", "zip_file"]


def image_file(image: Image.Image | npt.NDArray[Any], format_: str = "PNG", **options: Any) -> bytes:
    """Return an image, or an ``(H, W)`` or ``(H, W, C)`` array, as Pillow saves it with these options."""
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, format_, **options)
    return buffer.getvalue()


def npy_file(array: npt.NDArray[Any]) -> bytes:
    """Return what ``numpy.save`` writes."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz_file(*arrays: npt.NDArray[Any], **named: Any) -> bytes:
    """Return what ``numpy.savez_compressed`` writes."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, *arrays, **named)
    return buffer.getvalue()


def zip_file(members: dict[str, bytes]) -> bytes:
    """Return a ZIP archive of these members, deflated."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()
