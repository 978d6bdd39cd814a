"""Copies and parts among 1,000 masks of one image: ours against pycocotools' table of all pairs, on one core."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from pycocotools import mask as coco
from rich.console import Console
from rich.table import Table

from bench.figures import Figures
from bench.material import masks
from bench.turns import in_turn
from maskscore.masks.arrays import find_displaced

__all__ = ["run"]

MASKS = 1000
NMS, PARTS = 0.8, 0.9
# Of each hundred masks so many are moved copies of others, and so many are halves.
COPIES, HALVES = 15, 10


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Measure NMS, with and without parts, and the table of all IoUs that both stand for."""
    rles = _rles()
    areas = [int(coco.area(rle)) for rle in rles]
    boxes: list[Any] = [tuple(map(int, coco.toBbox(rle))) for rle in rles]
    ours: dict[str, Callable[[], list[Any]]] = {
        f"nms {NMS}": lambda: find_displaced(rles, areas, boxes, nms=NMS),
        f"nms {NMS}, drop-parts {PARTS}": lambda: find_displaced(rles, areas, boxes, nms=NMS, drop_parts=PARTS),
        f"nms {NMS}, drop-wholes {PARTS}": lambda: find_displaced(rles, areas, boxes, nms=NMS, drop_wholes=PARTS),
    }
    everything = "pycocotools' IoU of all pairs"
    found = {name: len(call()) for name, call in ours.items()}
    if found[f"nms {NMS}"] != _greedy(coco.iou(rles, rles, [False] * MASKS)):
        raise AssertionError("other masks are left out than by the table of all pairs")
    measured = in_turn({**ours, everything: lambda: coco.iou(rles, rles, [False] * MASKS)}, repeats=21 if full else 7)
    table = Table(title=f"{MASKS:,} masks of an image of 2250 x 1500", caption=f"peak memory {_peak_mib(ours):.1f} MiB")
    for column in ("step", "masks left out", "processor ms per image"):
        table.add_column(column, justify="left" if column == "step" else "right")
    for name, taken in measured.items():
        table.add_row(name, str(found.get(name, "")), f"{taken.cpu_s * 1000:.1f}")
    console.print(table)
    figures["copies.nms_ms"] = measured[f"nms {NMS}"].cpu_s * 1000
    figures["copies.nms_and_parts_ms"] = measured[f"nms {NMS}, drop-parts {PARTS}"].cpu_s * 1000
    figures["copies.ratio"] = measured[everything].cpu_s / measured[f"nms {NMS}"].cpu_s


def _rles() -> list[Any]:
    rng = np.random.default_rng(2)
    rles: list[Any] = []
    while len(rles) < MASKS:
        drawn = masks(100 - COPIES - HALVES, seed=len(rles))
        drawn += [np.roll(drawn[place], 1, axis=1) for place in rng.integers(len(drawn), size=COPIES)]
        for place in rng.integers(len(drawn), size=HALVES):
            half = drawn[place].copy()
            half[: int(np.median(np.nonzero(half)[0]))] = False
            drawn.append(half)
        rles += [coco.encode(np.asfortranarray(bits, np.uint8)) for bits in drawn]
    return [rles[place] for place in rng.permutation(MASKS)]


def _greedy(ious: Any) -> int:
    """Return how many masks a plain NMS over the table of all IoUs leaves out."""
    kept: list[int] = []
    for mask in range(len(ious)):
        if not kept or ious[mask, kept].max() < NMS:
            kept.append(mask)
    return len(ious) - len(kept)


def _peak_mib(calls: dict[str, Callable[[], list[Any]]]) -> float:
    tracemalloc.start()
    for call in calls.values():
        call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20
