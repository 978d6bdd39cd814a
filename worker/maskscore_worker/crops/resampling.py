"""The source pixels and weights of each resized pixel: Pillow's windows, for many crops at once.

The arithmetic is Pillow's own (``precompute_coeffs`` and ``normalize_coeffs_8bpc`` in its ``Resample.c``): weights in
double precision, then rounded to whole numbers of 2⁻²², so that what is summed with them is the same on every device.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from maskscore.imaging import SUPPORT
from maskscore.schema import Interpolation

__all__ = ["PRECISION_BITS", "most_taps", "reach", "resampling_windows"]

PRECISION_BITS: Final = 22
"""A weight of one is ``1 << 22``."""

Ints = npt.NDArray[np.int64]


def most_taps(lengths: Ints, resized: Ints, interpolation: Interpolation) -> Ints:
    """Return how many pixels a window has at most, ``(n,)`` int64, where ``lengths`` become ``resized`` pixels."""
    support = SUPPORT[interpolation] * np.maximum(lengths / resized, 1.0)
    taps: Ints = np.ceil(support).astype(np.int64) * 2 + 1
    return taps


def reach(lengths: Ints, resized: Ints, offsets: Ints, size: int, interpolation: Interpolation) -> tuple[Ints, Ints]:
    """Return the first pixel, and the one after the last, that ``size`` resized pixels from ``offsets`` on look at.

    What lies before the first resized pixel or after the last one, where a square is filled up, looks at none.
    """
    scale = lengths / resized
    support = SUPPORT[interpolation] * np.maximum(scale, 1.0)
    first = (np.maximum(offsets, 0) + 0.5) * scale - support + 0.5
    last = (np.minimum(offsets + size, resized) - 1 + 0.5) * scale + support + 0.5
    return np.maximum(first, 0.0).astype(np.int64), np.minimum(last.astype(np.int64), lengths)


def resampling_windows(
    lengths: torch.Tensor,
    resized: torch.Tensor,
    offsets: torch.Tensor,
    *,
    size: int,
    taps: int,
    interpolation: Interpolation,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where windows start, ``(n, size)`` int32, and their weights, ``(n, size, taps)`` int32.

    ``lengths``, ``resized`` and ``offsets`` are ``(n,)`` int64 on one device: a side's pixels, how many they become,
    and the first of the ``size`` of these that are wanted; one that is not there gets the window of the nearest.
    ``taps`` is no less than :func:`most_taps` says for any; what a window has not, weighs nothing.
    """
    scale = (lengths.double() / resized.double())[:, None]
    filter_scale = scale.clamp(min=1.0)
    support = SUPPORT[interpolation] * filter_scale
    wanted = offsets[:, None] + torch.arange(size, device=lengths.device)
    wanted = torch.minimum(wanted.clamp(min=0), resized[:, None] - 1)
    centre = (wanted.double() + 0.5) * scale
    first = (centre - support + 0.5).clamp(min=0.0).long()
    last = torch.minimum((centre + support + 0.5).long(), lengths[:, None])
    places = first[..., None] + torch.arange(taps, device=lengths.device)
    distances = (places.double() - centre[..., None] + 0.5) * (1.0 / filter_scale)[..., None]
    weights = _bicubic(distances) if interpolation == "bicubic" else (1.0 - distances.abs()).clamp(min=0.0)
    weights = weights.masked_fill_(places >= last[..., None], 0.0)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    scaled = weights * (1 << PRECISION_BITS)
    return first.int(), (scaled + torch.where(scaled < 0, -0.5, 0.5)).int()


def _bicubic(x: torch.Tensor) -> torch.Tensor:
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return torch.where(x < 1.0, near, torch.where(x < 2.0, far, 0.0))
