"""An image file's bytes → an RGB array in the orientation of the masks, or a :class:`~maskscore.errors.JobError`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from maskscore.errors import FailureCode, JobError, WarningCode
from maskscore.imaging import (
    SWAPS_SIDES,
    TURNS,
    TooCostlyError,
    has_other_colours,
    open_picture,
    orientation_of,
    size_of,
    to_rgb,
)
from maskscore.schema import Notice, Orientation
from maskscore_worker.inputs.file_kinds import ends_early, looks_like

__all__ = ["DecodedImage", "ImageFile", "decode_image", "header_size"]

try:
    import simplejpeg
except ImportError:  # a platform without a wheel of it: Pillow decodes all
    simplejpeg = None

T = TypeVar("T")

# The limit is checked here, per call and as an error; Pillow's own is one for the process, and first a warning.
Image.MAX_IMAGE_PIXELS = None
# Once, since `warnings.catch_warnings` around each call would not be safe between threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

# The formats whose cost is bounded by their pixels and bytes. Of Pillow's others, EPS starts Ghostscript on the
# bytes, ICO, ICNS, BLP and IPTC hold a picture whose own header may state any size, FITS unpacks without a limit, and
# QOI, XPM and MSP are decoded in Python, minutes for a large one. A multi-picture JPEG (MPO) is opened as a JPEG.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "TGA")
Image.init()

_INVERSE_TURNS = {**TURNS, 6: TURNS[8], 8: TURNS[6]}


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """``pixels`` is ``(H, W, 3)`` uint8 RGB in the frame that the masks use; ``format`` is Pillow's name."""

    pixels: npt.NDArray[np.uint8]
    format: str
    exif_orientation: int
    orientation_applied: bool
    notices: list[Notice]


class ImageFile:
    """The bytes of an image file, which is opened once; ``uri`` is only for the sentences of errors. Of one thread."""

    def __init__(self, data: bytes, uri: str) -> None:
        self.data = data
        self.uri = uri
        self._image: Image.Image | None = None

    def open(self) -> Image.Image:
        """Return the picture, perhaps loaded. Raises :class:`~maskscore.errors.JobError` as :func:`decode_image`."""
        if self._image is None:
            self._image = _open(self.data, self.uri)
        return self._image

    def taken(self) -> Image.Image:
        """Do what :meth:`open` does, and keep the picture no longer: loaded, it takes as much memory as its pixels."""
        image, self._image = self.open(), None
        return image


def decode_image(
    file: ImageFile,
    *,
    orientation: Orientation,
    count_fitting: Callable[[int, int], int],
    max_pixels: int,
    memory: Callable[[tuple[int, int, int]], npt.NDArray[np.uint8]] = lambda shape: np.empty(shape, np.uint8),
) -> DecodedImage:
    """Decode an image; the content decides its format, not its name.

    ``count_fitting(height, width)`` counts the masks that fit a frame; ``orientation="auto"`` takes the frame that
    more masks fit, and the turned one for equal counts. CMYK and YCCK are converted through their embedded
    profile; RGB is taken as it is, whatever its profile, as the specification does. Transparency is composited on grey
    128, of 16 bits the upper 8 are taken, of several frames the first. JPEG, PNG, WebP, TIFF, BMP, GIF, PPM (PGM, PBM,
    PFM), JPEG 2000, AVIF and TGA are read. ``memory`` gives the memory that an ordinary JPEG is decoded into. Safe to
    call from threads.

    Raises :class:`~maskscore.errors.JobError`: ``image_undecodable``, ``image_truncated``, ``image_too_large`` (more
    pixels, or more work than they are worth; before decoding).
    """
    notices: list[Notice] = []
    data, uri, image = file.data, file.uri, file.taken()
    width, height = image.size
    if width * height > max_pixels:
        raise JobError(
            FailureCode.IMAGE_TOO_LARGE,
            f"{uri} has {width} x {height} pixels; at most {max_pixels:,} are decoded (MASKSCORE_MAX_PIXELS).",
        )
    format_ = image.format or "unknown"
    # A multi-picture JPEG's first picture is the photo; the others are previews or the second eye.
    if format_ != "MPO" and _has_more_frames(image):
        message = "The file has several frames or pages; the first one was scored."
        notices.append(Notice(code=WarningCode.FIRST_FRAME_ONLY, message=message))
    tag = orientation_of(image)
    pixels = _decoded_jpeg(image, data, memory) if tag == 1 else None
    if pixels is not None:
        _note_profile(image, has_other_colours(image), notices)
        return DecodedImage(pixels, format_, tag, False, notices)
    rgb = _with_codes(lambda: _loaded_rgb(image, tag, notices), data, uri)
    apply = tag != 1 and _turned(tag, orientation, rgb.size, count_fitting, notices)
    pixels = _with_codes(lambda: np.array(rgb.transpose(TURNS[tag]) if apply else rgb, np.uint8), data, uri)
    return DecodedImage(pixels, format_, tag, apply, notices)


def header_size(file: ImageFile, orientation: Orientation, *, max_pixels: int) -> tuple[int, int] | None:
    """Return ``(height, width)`` as the image's header has it, or ``None`` for what :func:`decode_image` refuses.

    It is that of the picture the right way up, as tools that write normalised coordinates see it, but for
    ``orientation="ignore"``.
    """
    try:
        image = file.open()
        # Pillow decodes a whole PNG to find an orientation behind its pixels.
        if image.width * image.height > max_pixels:
            return None
        return size_of(image, upright=orientation != "ignore")
    except JobError:
        return None


def _open(data: bytes, uri: str) -> Image.Image:
    if not data:
        raise JobError(FailureCode.IMAGE_UNDECODABLE, f"{uri} is empty (0 bytes). Upload the image again.")
    try:
        return _with_codes(lambda: open_picture(data, _FORMATS), data, uri)
    except JobError as error:
        guess = looks_like(data) if error.code == FailureCode.IMAGE_UNDECODABLE else None
        if guess is None:
            raise
        raise JobError(
            FailureCode.IMAGE_UNDECODABLE,
            f"{uri} is not an image of a known format: it looks like {guess}. Check what was uploaded there.",
        ) from None


def _with_codes(step: Callable[[], T], data: bytes, uri: str) -> T:
    """Run a step of Pillow; any exception becomes a :class:`~maskscore.errors.JobError` with a code."""
    try:
        return step()
    except TooCostlyError as error:
        raise JobError(FailureCode.IMAGE_TOO_LARGE, f"{uri} {error}") from error
    except MemoryError as error:
        raise JobError(FailureCode.IMAGE_TOO_LARGE, f"{uri} needs more memory than there is to decode it.") from error
    except Exception as error:
        message = str(error) or type(error).__name__
        reported = any(word in message.lower() for word in ("truncated", "end of file", "incomplete", "unexpected end"))
        if reported or ends_early(data):
            why = f" ({message})" if reported else ""
            raise JobError(
                FailureCode.IMAGE_TRUNCATED, f"{uri} is truncated: it ends too early{why}. Upload it again."
            ) from error
        if isinstance(error, UnidentifiedImageError):
            raise JobError(
                FailureCode.IMAGE_UNDECODABLE, f"{uri} is not an image of a known format. Upload it again."
            ) from error
        raise JobError(
            FailureCode.IMAGE_UNDECODABLE, f"{uri} cannot be decoded: {message}. Upload the image again."
        ) from error


def _has_more_frames(image: Image.Image) -> bool:
    # Not n_frames, which reads all of them: a small file may hold millions.
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # something follows, even if it is damaged; the first frame may still be whole
        return True


def _turned(
    tag: int,
    orientation: Orientation,
    size: tuple[int, int],
    count_fitting: Callable[[int, int], int],
    notices: list[Notice],
) -> bool:
    if orientation != "auto":
        return orientation == "apply"
    width, height = size
    stored = count_fitting(height, width)
    turned = count_fitting(width, height) if tag in SWAPS_SIDES else stored
    if stored == turned:
        message = (
            f"The image has the EXIF orientation {tag}, and the masks fit it turned as well as they fit it stored; it "
            "was turned. Set `orientation` to `apply` or `ignore`."
        )
        notices.append(Notice(code=WarningCode.ORIENTATION_AMBIGUOUS, message=message))
    return turned >= stored


def _loaded_rgb(image: Image.Image, tag: int, notices: list[Notice]) -> Image.Image:
    """Return the picture as it is stored, not turned."""
    image.load()
    rgb, profile_ignored = to_rgb(image)
    _note_profile(image, profile_ignored, notices)
    # Pillow has turned a TIFF while it loaded it, and no other format.
    return rgb.transpose(_INVERSE_TURNS[tag]) if tag != 1 and image.format == "TIFF" else rgb


def _decoded_jpeg(
    image: Image.Image, data: bytes, memory: Callable[[tuple[int, int, int]], npt.NDArray[np.uint8]]
) -> npt.NDArray[np.uint8] | None:
    """Return the pixels that Pillow would give, in two thirds of its time, and without the interpreter's lock.

    Both are libjpeg-turbo. ``None`` for what is no JPEG in colours, and for what is damaged or does not fit the memory:
    Pillow says what is wrong.
    """
    if simplejpeg is None or image.format != "JPEG" or image.mode != "RGB":
        return None
    try:
        pixels = memory((image.height, image.width, 3))
        decoded = simplejpeg.decode_jpeg(data, "RGB", strict=True, buffer=pixels)
    except (ValueError, MemoryError):
        return None
    return pixels if decoded.shape == pixels.shape else None


def _note_profile(image: Image.Image, ignored: bool, notices: list[Notice]) -> None:
    if ignored:
        message = (
            "The image's CMYK profile cannot be used; it was converted without one."
            if image.mode == "CMYK"
            else "The image's colour profile is not sRGB's and was not applied: its colours were taken as sRGB."
        )
        notices.append(Notice(code=WarningCode.PROFILE_IGNORED, message=message))
