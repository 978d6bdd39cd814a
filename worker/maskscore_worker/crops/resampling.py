"""The source pixels and weights of each resized pixel: Pillow's bicubic windows, for many crops at once.

The arithmetic is Pillow's own (``precompute_coeffs`` and ``normalize_coeffs_8bpc`` in its ``Resample.c``): weights in
double precision, then rounded to whole numbers of 2⁻²², so that what is summed with them is the same on every device.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["PRECISION_BITS", "bicubic_windows", "most_taps", "reach"]

PRECISION_BITS: Final = 22
"""A weight of one is ``1 << 22``."""

_SUPPORT: Final = 2.0

Ints = npt.NDArray[np.int64]


def most_taps(lengths: Ints, resized: Ints) -> Ints:
    """Return how many pixels a window has at most, ``(n,)`` int64, where ``lengths`` become ``resized`` pixels."""
    taps: Ints = np.ceil(_SUPPORT * np.maximum(lengths / resized, 1.0)).astype(np.int64) * 2 + 1
    return taps


def reach(lengths: Ints, resized: Ints, offsets: Ints, size: int) -> tuple[Ints, Ints]:
    """Return the first pixel, and the one after the last, that ``size`` resized pixels from ``offsets`` on look at."""
    scale = lengths / resized
    support = _SUPPORT * np.maximum(scale, 1.0)
    first = (offsets + 0.5) * scale - support + 0.5
    last = (offsets + size - 1 + 0.5) * scale + support + 0.5
    return np.maximum(first, 0.0).astype(np.int64), np.minimum(last.astype(np.int64), lengths)


def bicubic_windows(
    lengths: torch.Tensor, resized: torch.Tensor, offsets: torch.Tensor, *, size: int, taps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where windows start, ``(n, size)`` int32, and their weights, ``(n, size, taps)`` int32.

    ``lengths``, ``resized`` and ``offsets`` are ``(n,)`` int64 on one device: a side's pixels, how many they become,
    and the first of the ``size`` of these that are wanted. ``taps`` is no less than :func:`most_taps` says for any;
    what a window has not, weighs nothing.
    """
    scale = (lengths.double() / resized.double())[:, None]
    filter_scale = scale.clamp(min=1.0)
    support = _SUPPORT * filter_scale
    steps = torch.arange(size, device=lengths.device)
    centre = ((offsets[:, None] + steps).double() + 0.5) * scale
    first = (centre - support + 0.5).clamp(min=0.0).long()
    last = torch.minimum((centre + support + 0.5).long(), lengths[:, None])
    places = first[..., None] + torch.arange(taps, device=lengths.device)
    weights = _bicubic((places.double() - centre[..., None] + 0.5) * (1.0 / filter_scale)[..., None])
    weights = weights.masked_fill_(places >= last[..., None], 0.0)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    scaled = weights * (1 << PRECISION_BITS)
    return first.int(), (scaled + torch.where(scaled < 0, -0.5, 0.5)).int()


def _bicubic(x: torch.Tensor) -> torch.Tensor:
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return torch.where(x < 1.0, near, torch.where(x < 2.0, far, 0.0))
