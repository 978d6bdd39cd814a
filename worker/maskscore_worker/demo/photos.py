"""Real photos for a demo with real weights: scikit-image's own, cut into masks by one of its segmenters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["PHOTOS", "cut_into_masks", "photo"]

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
"""Photos that scikit-image's wheel carries, so that nothing is downloaded."""


def photo(name: str) -> npt.NDArray[np.uint8]:
    """Return a photo as ``(H, W, 3)`` uint8 RGB."""
    from skimage import data

    image: npt.NDArray[np.uint8] = getattr(data, name)()
    return image[..., :3]


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
