"""Photos with masks to try weights on: scikit-image's own or a folder's, cut into masks by one of its segmenters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from maskscore.errors import JobError, SettingsError
from maskscore_worker.inputs.images import ImageFile, decode_image

__all__ = ["PHOTOS", "cut_into_masks", "photo", "photos_in"]

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
"""Photos that scikit-image's wheel carries, so that nothing is downloaded."""

_MOST_PHOTOS: Final = 20
_MOST_PIXELS: Final = 100_000_000


def photo(name: str) -> npt.NDArray[np.uint8]:
    """Return a photo as ``(H, W, 3)`` uint8 RGB."""
    from skimage import data

    image: npt.NDArray[np.uint8] = getattr(data, name)()
    return image[..., :3]


def photos_in(folder: Path) -> list[npt.NDArray[np.uint8]]:
    """Return the first 20 images of a folder by name, ``(H, W, 3)`` uint8 RGB; files that are no images are left out.

    Raises :class:`~maskscore.errors.SettingsError` where there is none.
    """
    photos: list[npt.NDArray[np.uint8]] = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        try:
            decoded = decode_image(
                ImageFile(path.read_bytes(), str(path)),
                orientation="auto",
                count_fitting=lambda height, width: 0,
                max_pixels=_MOST_PIXELS,
            )
        except JobError:
            continue
        photos.append(decoded.pixels)
        if len(photos) == _MOST_PHOTOS:
            break
    if not photos:
        raise SettingsError(f"No file in {folder} is an image that can be decoded. Name a folder that holds photos.")
    return photos


def cut_into_masks(image: npt.NDArray[np.uint8], *, most: int = 20) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield the largest segments of the image as ``(H, W)`` masks.

    Felzenszwalb and Huttenlocher, "Efficient Graph-Based Image Segmentation" (IJCV 2004): it finds regions of even
    colour, not objects: most of its segments are background or fragments.
    """
    from skimage.segmentation import felzenszwalb

    smallest = image.shape[0] * image.shape[1] // 200
    segments = felzenszwalb(image, scale=500, sigma=0.9, min_size=smallest)
    labels, areas = np.unique(segments, return_counts=True)
    for label in labels[np.argsort(-areas)][:most]:
        yield segments == label
