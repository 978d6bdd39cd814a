"""Treatment, crop and resize of many crops at once as three Triton kernels: what torch_ops does, in one read each.

PyTorch's operations write every index and every product to memory; here they stay in registers. The same whole numbers,
so the same crops.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from maskscore_worker.crops.crop_plan import Column, DevicePlan
from maskscore_worker.crops.resampling import PRECISION_BITS
from maskscore_worker.crops.torch_ops import windows_of

__all__ = ["make_crops"]

# A kernel sees no other globals than these.
_X = tl.constexpr(int(Column.X))
_Y = tl.constexpr(int(Column.Y))
_TURNED = tl.constexpr(int(Column.TURNED))
_LENGTH = tl.constexpr(int(Column.LENGTH))
_ALONG_RESIZED = tl.constexpr(int(Column.ALONG_RESIZED))
_ALONG_OFFSET = tl.constexpr(int(Column.ALONG_OFFSET))
_ALONG_TAPS = tl.constexpr(int(Column.ALONG_TAPS))
_DOWN_RESIZED = tl.constexpr(int(Column.DOWN_RESIZED))
_DOWN_OFFSET = tl.constexpr(int(Column.DOWN_OFFSET))
_DOWN_TAPS = tl.constexpr(int(Column.DOWN_TAPS))
_PIXEL_START = tl.constexpr(int(Column.PIXEL_START))
_LINE_START = tl.constexpr(int(Column.LINE_START))
_EDGE_START = tl.constexpr(int(Column.EDGE_START))
_EDGES = tl.constexpr(int(Column.EDGES))
_BITS = tl.constexpr(PRECISION_BITS)
_HALF = tl.constexpr(1 << (PRECISION_BITS - 1))

# Numbers that change from batch to batch: a kernel of their own for multiples of 16 would be compiled amid a job.
_PLAIN = ["crops", "height", "width", "pixels", "lines", "most", "fill"]


def make_crops(image: torch.Tensor, plan: DevicePlan, tables: torch.Tensor | None) -> torch.Tensor:
    """Return what :func:`maskscore_worker.crops.torch_ops.make_crops` returns."""
    count, lines, pixels, size = len(plan.host), plan.host.lines, plan.host.pixels, plan.host.size
    device = image.device
    owner = torch.arange(count, dtype=torch.int32, device=device)
    owner = owner.repeat_interleave(plan[Column.LINES], output_size=lines)
    along, down = windows_of(plan)
    # For one tap, neighbours in the picture are neighbours in memory.
    starts, weights = zip(*((side[0], side[1].transpose(1, 2).contiguous()) for side in (along, down)), strict=True)
    taps = weights[0].shape[1]
    treated = torch.empty((pixels, 3), dtype=torch.uint8, device=device)
    resized = torch.empty((lines, size, 3), dtype=torch.uint8, device=device)
    crops = torch.empty((count, size, size, 3), dtype=torch.uint8, device=device)
    # Each number of steps is compiled anew, so there are few: 8, 16 or 24.
    steps = -(-int(plan.host[Column.EDGES].max()).bit_length() // 8) * 8 if tables is not None else 0
    height, width = image.shape[:2]
    treat: Any = _treat[(lines,)]
    treat(
        image,
        treated,
        owner,
        plan.table,
        plan.edges,
        image if tables is None else tables,
        count,
        height,
        width,
        STEPS=steps,
        MASKED=tables is not None,
        BLOCK=128,
    )
    across: Any = _across[(lines, triton.cdiv(size, 64))]
    across(treated, resized, owner, plan.table, starts[0], weights[0], count, pixels, size, taps, BLOCK=64)
    downwards: Any = _down[(count * size, triton.cdiv(size * 3, 256))]
    red, green, blue = plan.host.fill
    downwards(
        resized,
        crops,
        plan.table,
        starts[1],
        weights[1],
        count,
        lines,
        size,
        taps,
        red | green << 8 | blue << 16,
        FILLED_UP=plan.host.filled_up,
        BLOCK=256,
    )
    return crops


@triton.jit(do_not_specialize=_PLAIN, do_not_specialize_on_alignment=["edges"])  # type: ignore[untyped-decorator]
def _treat(  # type: ignore[no-untyped-def]
    image,
    treated,
    owner,
    table,
    edges,
    tables,
    crops,
    height,
    width,
    STEPS: tl.constexpr,  # noqa: N803
    MASKED: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    """One program per line: look each pixel up in the runs by halving, and its values in the tables."""
    line = tl.program_id(0)
    crop = tl.load(owner + line)
    own = line - tl.load(table + _LINE_START * crops + crop)
    length = tl.load(table + _LENGTH * crops + crop)
    first = tl.load(table + _PIXEL_START * crops + crop) + own * length
    x = tl.load(table + _X * crops + crop)
    y = tl.load(table + _Y * crops + crop)
    turned = tl.load(table + _TURNED * crops + crop)
    edge_start = tl.load(table + _EDGE_START * crops + crop)
    edge_count = tl.load(table + _EDGES * crops + crop)
    for start in range(0, length.to(tl.int32), BLOCK):
        along = start + tl.arange(0, BLOCK)
        here = along < length
        row = y + tl.where(turned != 0, along, own)
        column = x + tl.where(turned != 0, own, along)
        place = (row * width + column) * 3
        table_start = tl.zeros((BLOCK,), tl.int64)
        if MASKED:
            position = column * height + row
            low = tl.zeros((BLOCK,), tl.int64)
            high = low + edge_count
            for _ in range(STEPS):
                middle = (low + high) // 2
                searching = low < high
                edge = tl.load(edges + edge_start + middle, mask=searching, other=0)
                passed = edge <= position
                low = tl.where(searching & passed, middle + 1, low)
                high = tl.where(searching & (edge > position), middle, high)
            table_start = (low % 2) * 768
        for channel in tl.static_range(3):
            value = tl.load(image + place + channel, mask=here, other=0)
            if MASKED:
                value = tl.load(tables + table_start + channel * 256 + value.to(tl.int64), mask=here, other=0)
            tl.store(treated + (first + along) * 3 + channel, value, mask=here)


@triton.jit(do_not_specialize=_PLAIN)  # type: ignore[untyped-decorator]
def _across(  # type: ignore[no-untyped-def]
    treated,
    resized,
    owner,
    table,
    starts,
    weights,
    crops,
    pixels,
    size,
    most,
    BLOCK: tl.constexpr,  # noqa: N803
):
    """One program per line and stretch of the resized line; sums in whole numbers."""
    line = tl.program_id(0).to(tl.int64)
    crop = tl.load(owner + line).to(tl.int64)
    own = line - tl.load(table + _LINE_START * crops + crop)
    first = tl.load(table + _PIXEL_START * crops + crop) + own * tl.load(table + _LENGTH * crops + crop)
    taps = tl.load(table + _ALONG_TAPS * crops + crop).to(tl.int32)
    x = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = x < size
    channel = tl.arange(0, 4)
    both = here[:, None] & (channel < 3)[None, :]
    start = first + tl.load(starts + crop * size + x, mask=here, other=0)
    total = tl.zeros((BLOCK, 4), tl.int32) + _HALF
    for tap in range(0, taps):
        weight = tl.load(weights + (crop * most + tap) * size + x, mask=here, other=0)
        place = tl.minimum(start + tap, pixels - 1)
        value = tl.load(treated + place[:, None] * 3 + channel[None, :], mask=both, other=0)
        total += value.to(tl.int32) * weight[:, None]
    level = tl.minimum(tl.maximum(total >> _BITS, 0), 255)
    tl.store(resized + (line * size + x)[:, None] * 3 + channel[None, :], level.to(tl.uint8), mask=both)


@triton.jit(do_not_specialize=_PLAIN)  # type: ignore[untyped-decorator]
def _down(  # type: ignore[no-untyped-def]
    resized,
    finished,
    table,
    starts,
    weights,
    crops,
    lines,
    size,
    most,
    fill,
    FILLED_UP: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    """One program per row of a crop and stretch of it; writes crops whose lines were columns turned back."""
    number = tl.program_id(0).to(tl.int64)
    crop, row = number // size, number % size
    taps = tl.load(table + _DOWN_TAPS * crops + crop).to(tl.int32)
    turned = tl.load(table + _TURNED * crops + crop)
    start = tl.load(table + _LINE_START * crops + crop) + tl.load(starts + crop * size + row)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = place < size * 3
    total = tl.zeros((BLOCK,), tl.int32) + _HALF
    for tap in range(0, taps):
        weight = tl.load(weights + (crop * most + tap) * size + row)
        line = tl.minimum(start + tap, lines - 1)
        value = tl.load(resized + line * size * 3 + place, mask=here, other=0)
        total += value.to(tl.int32) * weight
    level = tl.minimum(tl.maximum(total >> _BITS, 0), 255)
    column, channel = place // 3, place % 3
    if FILLED_UP:
        down = row + tl.load(table + _DOWN_OFFSET * crops + crop)
        along = column + tl.load(table + _ALONG_OFFSET * crops + crop)
        reached = (down >= 0) & (down < tl.load(table + _DOWN_RESIZED * crops + crop))
        reached = reached & (along >= 0) & (along < tl.load(table + _ALONG_RESIZED * crops + crop))
        level = tl.where(reached, level, (fill >> (channel * 8)) & 255)
    target = tl.where(turned != 0, column * size + row, row * size + column)
    tl.store(finished + (crop * size * size + target) * 3 + channel, level.to(tl.uint8), mask=here)
