"""Treatment, crop and resize of many crops at once in PyTorch's operations, for any device.

Everything is whole numbers, as in Pillow, so the crops are Pillow's to the bit wherever they are made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from maskscore_worker.crops.crop_plan import Column, DevicePlan
from maskscore_worker.crops.resampling import PRECISION_BITS, resampling_windows

__all__ = ["Windows", "make_crops", "windows_of"]

# Values in flight at a time: what bounds the memory, not the crops.
_CHUNK: Final = 1 << 22

Windows = tuple[torch.Tensor, torch.Tensor]


def make_crops(image: torch.Tensor, plan: DevicePlan, tables: torch.Tensor | None) -> torch.Tensor:
    """Return the crops of a plan, ``(n, size, size, 3)`` uint8, on the image's device.

    ``image`` is ``(H, W, 3)`` uint8, ``tables`` ``(2, 3, 256)`` uint8: what becomes of a channel's value outside and
    inside the mask; ``None`` leaves all as it is.
    """
    size = plan.host.size
    along, down = windows_of(plan)
    lines = _resize_across(_treated_pixels(image, plan, tables), plan, along, size)
    crops = _resize_down(lines, plan, down, size)
    if plan.host.filled_up:
        _fill_up(crops, plan)
    if not plan.host[Column.TURNED].any():
        return crops
    return torch.where(plan[Column.TURNED].bool().view(-1, 1, 1, 1), crops.transpose(1, 2), crops)


def windows_of(plan: DevicePlan) -> tuple[Windows, Windows]:
    """Return the windows along lines and down them: starts within what the plan keeps of a crop, and weights."""
    count = len(plan.host)
    taps = int(max(plan.host[Column.ALONG_TAPS].max(), plan.host[Column.DOWN_TAPS].max()))
    # Both sides' columns lie in the same order in the table.
    sides = [
        torch.cat([plan[Column(Column.ALONG_SIZE + step)], plan[Column(Column.DOWN_SIZE + step)]]) for step in range(4)
    ]
    starts, weights = resampling_windows(
        sides[0], sides[1], sides[2], size=plan.host.size, taps=taps, interpolation=plan.host.interpolation
    )
    starts -= sides[3][:, None]
    return (starts[:count], weights[:count]), (starts[count:], weights[count:])


def _treated_pixels(image: torch.Tensor, plan: DevicePlan, tables: torch.Tensor | None) -> torch.Tensor:
    """Return the crops' treated pixels, line after line, ``(P, 3)`` uint8."""
    height, width = image.shape[:2]
    flat = image.view(-1, 3)
    treated = torch.empty((plan.host.pixels, 3), dtype=torch.uint8, device=image.device)
    numbers = torch.arange(len(plan.host), device=image.device)
    # Each crop's edges in a range of their own, so that one sorted list serves all.
    own = height * width + 1
    counts = plan[Column.EDGES]
    channels = torch.arange(3, device=image.device) * 256
    keys = plan.edges + own * numbers.repeat_interleave(counts, output_size=len(plan.edges))
    for start in range(0, len(treated), _CHUNK):
        place = torch.arange(start, min(start + _CHUNK, len(treated)), device=image.device)
        crop = torch.searchsorted(plan[Column.PIXEL_START], place, right=True) - 1
        line = (place - plan[Column.PIXEL_START][crop]) // plan[Column.LENGTH][crop]
        along = place - plan[Column.PIXEL_START][crop] - line * plan[Column.LENGTH][crop]
        turned = plan[Column.TURNED][crop].bool()
        row = plan[Column.Y][crop] + torch.where(turned, along, line)
        column = plan[Column.X][crop] + torch.where(turned, line, along)
        values = flat[row * width + column]
        if tables is not None:
            # After an odd number of edges a pixel is inside; every crop has an even number of them.
            passed = torch.searchsorted(keys, column * height + row + own * crop, right=True)
            values = tables.view(-1)[values.int() + ((passed & 1) * 768)[:, None] + channels]
        treated[start : start + len(place)] = values
    return treated


def _resize_across(treated: torch.Tensor, plan: DevicePlan, windows: Windows, size: int) -> torch.Tensor:
    """Resize each line: ``(P, 3)`` → ``(lines, size, 3)`` uint8."""
    starts, weights = windows
    resized = torch.empty((plan.host.lines, size, 3), dtype=torch.uint8, device=treated.device)
    for crops, taps in _alike(plan.host[Column.ALONG_TAPS]):
        chosen = torch.from_numpy(crops).to(treated.device)
        lines = int(plan.host[Column.LINES][crops].sum())
        counts = plan[Column.LINES][chosen]
        owner = chosen.repeat_interleave(counts, output_size=lines)
        own_start = (counts.cumsum(0) - counts).repeat_interleave(counts, output_size=lines)
        line = torch.arange(lines, device=treated.device) - own_start
        step = max(1, _CHUNK // (size * taps * 3))
        for start in range(0, lines, step):
            crop, own = owner[start : start + step], line[start : start + step]
            first = plan[Column.PIXEL_START][crop] + own * plan[Column.LENGTH][crop]
            places = (first[:, None] + starts[crop])[..., None] + torch.arange(taps, device=treated.device)
            values = treated[places.clamp_(max=len(treated) - 1)]
            resized[plan[Column.LINE_START][crop] + own] = _weighted(values, weights[crop, :, :taps, None], dim=2)
    return resized


def _resize_down(lines: torch.Tensor, plan: DevicePlan, windows: Windows, size: int) -> torch.Tensor:
    """Resize across the lines: ``(lines, size, 3)`` → ``(n, size, size, 3)`` uint8."""
    starts, weights = windows
    resized = torch.empty((len(plan.host), size, size, 3), dtype=torch.uint8, device=lines.device)
    for crops, taps in _alike(plan.host[Column.DOWN_TAPS]):
        owner = torch.from_numpy(crops).to(lines.device).repeat_interleave(size)
        row = torch.arange(size, device=lines.device).repeat(len(crops))
        step = max(1, _CHUNK // (size * taps * 3))
        for start in range(0, len(owner), step):
            crop, own = owner[start : start + step], row[start : start + step]
            first = plan[Column.LINE_START][crop] + starts[crop, own]
            places = first[:, None] + torch.arange(taps, device=lines.device)
            values = lines[places.clamp_(max=len(lines) - 1)]
            resized[crop, own] = _weighted(values, weights[crop, own, :taps, None, None], dim=1)
    return resized


def _fill_up(crops: torch.Tensor, plan: DevicePlan) -> None:
    """Put the plan's colour where a crop does not reach, in place; ``crops`` are ``(n, down, along, 3)``."""
    steps = torch.arange(plan.host.size, device=crops.device)

    def outside(offset: Column, resized: Column) -> torch.Tensor:
        places = plan[offset][:, None] + steps
        return (places < 0) | (places >= plan[resized][:, None])

    down = outside(Column.DOWN_OFFSET, Column.DOWN_RESIZED)
    along = outside(Column.ALONG_OFFSET, Column.ALONG_RESIZED)
    empty = down[:, :, None] | along[:, None, :]
    for channel, level in enumerate(plan.host.fill):
        crops[..., channel].masked_fill_(empty, level)


def _weighted(values: torch.Tensor, weights: torch.Tensor, *, dim: int) -> torch.Tensor:
    half = 1 << (PRECISION_BITS - 1)
    total = (values.int() * weights).sum(dim=dim, dtype=torch.int32)
    return ((total + half) >> PRECISION_BITS).clamp_(0, 255).byte()


def _alike(taps: npt.NDArray[np.int64]) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
    """Yield crops whose windows are of about the same width, and the widest of them: one wide one pads no others."""
    classes = np.ceil(np.log2(taps)).astype(np.int64)
    for class_ in np.unique(classes):
        crops = np.flatnonzero(classes == class_)
        yield crops, int(taps[crops].max())
