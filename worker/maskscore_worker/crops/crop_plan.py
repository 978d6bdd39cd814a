"""A plan of many crops of one image: a table of numbers that is copied to the device at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain

import numpy as np
import numpy.typing as npt
import torch

from maskscore.imaging import ClipTransform, frame_fill, frame_placement
from maskscore.schema import Interpolation, View
from maskscore_worker.crops.resampling import most_taps, reach
from maskscore_worker.crops.resize import goes_down_first
from maskscore_worker.masks import Region

__all__ = ["Column", "CropPlan", "DevicePlan", "plan_crops"]

Ints = npt.NDArray[np.int64]


class Column(IntEnum):
    """The rows of the table, each with one number per crop.

    A crop is a number of ``LINES``, each of ``LENGTH`` pixels: rows, or columns where it is ``TURNED`` (Pillow then
    makes it smaller by its height first). ``ALONG`` is the side that lines run along and that is resized first,
    ``DOWN`` the other one; ``…_FIRST`` is its first pixel that any window looks at, and only from there on are there
    lines and pixels. ``X`` and ``Y`` are the first such pixel's place in the image.
    """

    X = 0
    Y = 1
    TURNED = 2
    ALONG_SIZE = 3
    ALONG_RESIZED = 4
    ALONG_OFFSET = 5
    ALONG_FIRST = 6
    ALONG_TAPS = 7
    LENGTH = 8
    DOWN_SIZE = 9
    DOWN_RESIZED = 10
    DOWN_OFFSET = 11
    DOWN_FIRST = 12
    DOWN_TAPS = 13
    LINES = 14
    PIXEL_START = 15
    LINE_START = 16
    EDGE_START = 17
    EDGES = 18


@dataclass(frozen=True, slots=True)
class CropPlan:
    """``table`` is ``(columns, n)`` int64; ``packed`` are its numbers, and then where runs start and stop, in turn.

    Runs come crop after crop. ``fill`` is the colour, RGB, of what no crop reaches of a square.
    """

    table: Ints
    packed: Ints
    size: int
    interpolation: Interpolation
    fill: tuple[int, int, int]

    def __len__(self) -> int:
        return int(self.table.shape[1])

    def __getitem__(self, column: Column) -> Ints:
        row: Ints = self.table[column]
        return row

    @property
    def pixels(self) -> int:
        """Pixels of all crops together that any window looks at."""
        return int((self[Column.LINES] * self[Column.LENGTH]).sum())

    @property
    def filled_up(self) -> bool:
        """Whether a crop does not reach all of its square."""
        sides = ((Column.ALONG_OFFSET, Column.ALONG_RESIZED), (Column.DOWN_OFFSET, Column.DOWN_RESIZED))
        return any(
            bool(((self[offset] < 0) | (self[offset] + self.size > self[resized])).any()) for offset, resized in sides
        )

    @property
    def lines(self) -> int:
        """Lines of all crops together."""
        return int(self[Column.LINES].sum())

    def to(self, device: torch.device) -> DevicePlan:
        """Copy it to the device; on CUDA the caller goes on before the copy has ended."""
        packed = torch.from_numpy(self.packed)
        if device.type == "cuda":
            packed = packed.pin_memory().to(device, non_blocking=True)
        table, edges = packed[: self.table.size].view(self.table.shape), packed[self.table.size :]
        return DevicePlan(self, table, edges)


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """A plan's arrays as int64 tensors on a device, and the plan itself for what the host needs to know."""

    host: CropPlan
    table: torch.Tensor
    edges: torch.Tensor

    def __getitem__(self, column: Column) -> torch.Tensor:
        return self.table[column]


def plan_crops(regions: Sequence[Region], view: View, transform: ClipTransform) -> CropPlan:
    """Plan the crops of at least one region; what is cropped for a region is its box.

    Their runs are taken along unless the view's treatment is ``raw_crop``, for which masks do not matter.
    """
    size, interpolation = transform.size, transform.interpolation
    boxes = _columns(region.box for region in regions)
    lengths = boxes[2:]
    placements = _columns(frame_placement(*region.box[2:], view, transform) for region in regions)
    resized, offsets = placements[:2], placements[2:]
    turned = goes_down_first(*lengths, *resized)
    first, last = reach(lengths, resized, offsets, size, interpolation)
    taps = most_taps(lengths, resized, interpolation)
    edges = [] if view.treatment == "raw_crop" else [region.runs.edges for region in regions]
    counts = list(map(len, edges))
    packed = np.empty(len(Column) * len(regions) + sum(counts), np.int64)
    table = packed[: len(Column) * len(regions)].reshape(len(Column), -1)
    table[:] = 0
    table[Column.X], table[Column.Y] = boxes[:2] + first
    table[Column.TURNED] = turned
    for start, values in enumerate((lengths, resized, offsets, first, taps, last - first)):
        table[Column.ALONG_SIZE + start] = np.where(turned, values[1], values[0])
        table[Column.DOWN_SIZE + start] = np.where(turned, values[0], values[1])
    table[Column.PIXEL_START] = _starts(table[Column.LINES] * table[Column.LENGTH])
    table[Column.LINE_START] = _starts(table[Column.LINES])
    if edges:
        table[Column.EDGES] = counts
        table[Column.EDGE_START] = _starts(table[Column.EDGES])
        np.concatenate(edges, out=packed[table.size :])
    return CropPlan(table, packed, size, interpolation, frame_fill(view, transform))


def _columns(rows: Iterable[tuple[int, int, int, int]]) -> Ints:
    return np.fromiter(chain.from_iterable(rows), np.int64).reshape(-1, 4).T


def _starts(counts: Ints) -> Ints:
    return np.cumsum(counts) - counts
