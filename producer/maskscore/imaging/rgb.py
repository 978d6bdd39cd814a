"""Any picture that Pillow opens → RGB, and the right way up: the same for the worker and for the report."""

from __future__ import annotations

import io
import struct
from typing import Final

from PIL import Image, ImageCms

from maskscore.imaging.decode_limits import check_layout, sanitized
from maskscore.imaging.treatments import FILL

__all__ = ["SWAPS_SIDES", "TURNS", "has_other_colours", "open_picture", "orientation_of", "size_of", "to_rgb"]

# EXIF 2.3, table 6: how the stored picture becomes the one that was seen.
TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


# IEC 61966-2-1, adapted to D50 (ICC.1:2010, annex E): the columns of sRGB's matrix.
_SRGB_PRIMARIES: Final = {
    b"rXYZ": (0.4361, 0.2225, 0.0139),
    b"gXYZ": (0.3851, 0.7169, 0.0971),
    b"bXYZ": (0.1431, 0.0606, 0.7141),
}

SWAPS_SIDES: Final = (5, 6, 7, 8)
_ORIENTATION_TAG = 0x0112


def open_picture(data: bytes, formats: tuple[str, ...] | None = None) -> Image.Image:
    """Open an image file of one of Pillow's ``formats`` (``None``: any) without large metadata; nothing is decoded.

    Raises :class:`~maskscore.imaging.TooCostlyError`, and what Pillow raises for damaged bytes: nearly anything.
    """
    image = Image.open(io.BytesIO(sanitized(data)), formats=formats)
    if image.format == "PPM" and image.tile and image.tile[0].args == ("RGB", 65535):
        # Pillow rounds v / 257 here, one number at a time in Python; of every other format it takes the upper 8 bits.
        image.tile = [image.tile[0]._replace(codec_name="raw", args="RGB;16B")]
    check_layout(image, len(data))
    return image


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none, or none that makes sense."""
    try:
        tag = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # a damaged EXIF block says nothing about the picture
        return 1
    # TIFF may write it as a fraction, or as anything else.
    return int(tag) if tag in TURNS else 1


def size_of(image: Image.Image, *, upright: bool) -> tuple[int, int]:
    """Return ``(height, width)`` of a picture that is not loaded yet, the right way up or as it is stored."""
    width, height = image.size
    # Pillow turns a TIFF while it loads it, and states the size that it will have.
    turned = (image.format == "TIFF") != upright
    return (width, height) if turned and orientation_of(image) in SWAPS_SIDES else (height, width)


def to_rgb(image: Image.Image) -> tuple[Image.Image, bool]:
    """Return a loaded picture as RGB, itself if it is, and whether its own colour profile had to be ignored.

    CMYK and YCCK go through their embedded profile; RGB is taken as sRGB, whatever its profile. Transparency is
    composited on grey 128; of 16 bits the upper 8 are taken, in grey as in colours.
    """
    if image.mode == "CMYK":
        return _from_cmyk(image)
    if image.mode.startswith(("I", "F")):
        return _from_deep(image), False
    ignored = has_other_colours(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        backdrop = Image.new("RGBA", rgba.size, (FILL, FILL, FILL, 255))
        return Image.alpha_composite(backdrop, rgba).convert("RGB"), ignored
    # Pillow would copy what is RGB already.
    return (image if image.mode == "RGB" else image.convert("RGB")), ignored


def has_other_colours(image: Image.Image) -> bool:
    """Whether a profile of RGB has other primaries than sRGB; profiles of grey have no colours to be wrong."""
    profile: bytes | None = image.info.get("icc_profile")
    if not profile or profile[16:20] != b"RGB ":
        return False
    try:
        # ICC.1:2010, 7.3: a table of tags behind the header of 128 bytes; an XYZ is three numbers of 16.16 bits.
        (count,) = struct.unpack_from(">I", profile, 128)
        found = {}
        for number in range(min(count, 100)):
            signature, offset, _ = struct.unpack_from(">4sII", profile, 132 + 12 * number)
            if signature in _SRGB_PRIMARIES:
                found[signature] = [value / 65536 for value in struct.unpack_from(">3i", profile, offset + 8)]
    except struct.error:
        return True
    return any(
        signature not in found or any(abs(a - b) > 0.01 for a, b in zip(found[signature], primary, strict=True))
        for signature, primary in _SRGB_PRIMARIES.items()
    )


def _from_cmyk(image: Image.Image) -> tuple[Image.Image, bool]:
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert("RGB"), False
    try:
        converted = ImageCms.profileToProfile(
            image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        converted = None
    return (image.convert("RGB"), True) if converted is None else (converted, False)


def _from_deep(image: Image.Image) -> Image.Image:
    """Take the upper 8 of 16 bits (and of 32-bit integers that hold them), as Pillow itself does for colours."""
    if image.mode == "F":
        return _from_floats(image)
    values = image.convert("F")
    largest = float(values.getextrema()[1])  # type: ignore[arg-type]
    factor = 2**-8 if largest <= 65535 else 2**-23
    # Going to L cuts the fraction off.
    return values.point(lambda value: value * factor + 0.0).convert("L").convert("RGB")


def _from_floats(image: Image.Image) -> Image.Image:
    """Take floats as 0 to 1, or 0 to 255 where one is above 1; what is not finite is black or white."""
    # Pillow cannot tell NaN from a number; a float image is rare enough to ask NumPy, which a light install lacks.
    import numpy as np

    with np.errstate(invalid="ignore"):  # some NaN are signalling ones
        values = np.nan_to_num(np.asarray(image, np.float64), nan=0.0, posinf=255.0, neginf=0.0)
    scaled = values * 255 if values.max(initial=0) <= 1 else values
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8)).convert("RGB")
