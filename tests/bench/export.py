"""Filter, the best million of all, and Parquet from parts; and the same from results of single jobs.

Parts are a real part's rows, repeated by Arrow with other scores, boxes, images and shards. The rate of jobs is that of
the masks of results that lie ready: it is what an export of jobs does after the results are fetched.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from bench.figures import Figures
from bench.material import masks
from maskscore.export import ExportCounts, ExportedJob, ExportedMask, Ranking, Selection
from maskscore.export.file_metadata import FileMetadata
from maskscore.export.mask_buffer import open_mask_buffer
from maskscore.export.parquet_writer import _write
from maskscore.masks import encode_mask
from maskscore.parts import ImageOutcome, part_names, part_tables, write_part
from maskscore.schema import Component, ImageInfo, JobResult, JobState

__all__ = ["run"]

PART_ROWS = 100_000
TOP = 1_000_000
JOBS, MASKS = 300, 100
HEIGHT, WIDTH = 1500, 2250

_CHILD = """
import resource, sys, time
from maskscore import Client, ClientSettings
from maskscore.export import Parts, Selection, write_parquet
folder, output, top = sys.argv[1:]
client = Client(ClientSettings(redis_url="redis://127.0.0.1:1/0"))
started = time.perf_counter()
counts = write_parquet(client, Parts(folder), output, Selection(min_multiplier=1.0, max_neg=0.5, top=int(top)))
print(time.perf_counter() - started, counts.kept, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Export 10 million rows of parts (100 million) in a process of its own, and 30,000 masks of jobs."""
    rows = 100_000_000 if full else 10_000_000
    components = _components()
    with TemporaryDirectory(prefix="maskscore-bench-") as folder:
        started = time.perf_counter()
        size = _write_parts(Path(folder) / "parts", components, rows)
        made_s = time.perf_counter() - started
        command = [sys.executable, "-c", _CHILD, f"{folder}/parts/", f"{folder}/best.parquet", str(TOP)]
        done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=True)
        taken_s, kept, memory = map(float, done.stdout.split())
        if kept != pq.ParquetFile(f"{folder}/best.parquet").metadata.num_rows:
            raise AssertionError("the export holds other rows than it counted")
        jobs_per_s = _jobs_rate(Path(folder), components)
    per_s = rows / taken_s
    table = Table(title=f"filter, best {TOP:,}, Parquet; parts of {size / 2**30:.1f} GiB, written in {made_s:.0f} s")
    for column in ("source", "masks", "s", "masks/s", "most memory MiB"):
        table.add_column(column, justify="left" if column == "source" else "right")
    table.add_row("parts", f"{rows:,}", f"{taken_s:.1f}", f"{per_s:,.0f}", f"{memory / 2**20:,.0f}")
    table.add_row("jobs", f"{JOBS * MASKS:,}", f"{JOBS * MASKS / jobs_per_s:.1f}", f"{jobs_per_s:,.0f}", "")
    console.print(table)
    console.print(f"ratio {per_s / jobs_per_s:.0f}; {kept:,.0f} masks kept")
    figures["shards.export_ratio"] = per_s / jobs_per_s
    figures["shards.export_rows_per_s"] = per_s
    figures["shards.export_memory_mib"] = memory / 2**20


def _components() -> list[tuple[Component, Any]]:
    found = []
    for number, bits in enumerate(masks(MASKS, height=HEIGHT, width=WIDTH)):
        component = Component(
            id=str(number),
            index=number,
            box=(10, 10, 200, 300),
            area=int(bits.sum()),
            s_pos=0.5,
            s_neg=0.1,
            s_pos_text=f"a photo of a thing {number % 30}",
            s_neg_text="grass",
            p_pos_sum=0.6,
            p_neg_sum=0.1,
            semantic_multiplier=1.0,
            upstream={"predicted_iou": 0.9, "stability_score": 0.95, "crop_box": [0, 0, WIDTH, HEIGHT]},
        )
        found.append((component, encode_mask(bits).model_dump()))
    return found


def _write_parts(folder: Path, components: list[tuple[Component, Any]], rows: int) -> int:
    """Write parts of 100,000 masks of 1,000 images, and return their bytes.

    What differs between the masks, images and shards of SA-1B is drawn at random, but for the segmentations: what is
    the same in all rows need not be read.
    """
    image = ImageInfo(uri="s3://sa-1b/sa_000000.tar!/sa_1.jpg", width=WIDTH, height=HEIGHT, format="JPEG")
    own = [component for component, _ in components]
    result = JobResult(job_id="shard", state=JobState.SUCCEEDED, image=image, components=own)
    segmentations = [segmentation for _, segmentation in components]
    one = part_tables([ImageOutcome(result, image.uri, segmentations=segmentations)], first_position=0)
    images = PART_ROWS // MASKS
    unit = pa.concat_tables([one.masks] * images).combine_chunks()
    unit_images = pa.concat_tables([one.images] * images).combine_chunks()
    rng = np.random.default_rng(14)
    of_image = np.arange(PART_ROWS) // MASKS
    for number in range(rows // PART_ROWS):
        shard = pa.array([f"run-sa_{number % 1000:06}"])
        positions = np.arange(number * images, (number + 1) * images)
        uris = pa.array([f"s3://sa-1b/sa_{number % 1000:06}.tar!/sa_{position}.jpg" for position in positions])
        heights = rng.integers(1500, 2250, images)
        crops = pa.array([f'{{"crop_box":[0,0,{WIDTH},{height}]}}' for height in heights])
        columns = {
            "job_id": shard.take(pa.array(np.zeros(PART_ROWS, int))),
            "position": positions[of_image],
            "image": uris.take(pa.array(of_image)),
            "image_height": pa.array(heights[of_image], pa.int32()),
            "upstream": crops.take(pa.array(of_image)),
            "semantic_multiplier": rng.choice([2.0, 1.0, 0.5, 0.1], PART_ROWS),
            "s_neg_text": pa.array([f"background {n}" for n in range(10)]).take(
                pa.array(rng.integers(0, 10, PART_ROWS))
            ),
        }
        for name in ("box_x", "box_y", "box_width", "box_height"):
            columns[name] = pa.array(rng.integers(1, 700, PART_ROWS), pa.int32())
        for name in ("s_pos", "s_neg", "p_pos_sum", "p_neg_sum", "upstream_predicted_iou", "upstream_stability_score"):
            columns[name] = rng.random(PART_ROWS)
        of_images = {"job_id": shard.take(pa.array(np.zeros(images, int))), "position": positions, "image": uris}
        tables = replace(one, masks=_with(unit, columns), images=_with(unit_images, of_images))
        write_part(tables, part_names("sa", number), folder)
    return sum(path.stat().st_size for path in folder.rglob("*.parquet"))


def _with(table: pa.Table, columns: Mapping[str, Any]) -> pa.Table:
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(
            place, table.schema.field(place), pa.array(values).cast(table.schema.field(place).type)
        )
    return table


def _jobs_rate(folder: Path, components: list[tuple[Component, Any]]) -> float:
    """Return how many masks of results a second are ranked, sorted and written."""
    ranking, counts = Ranking(), ExportCounts()
    selection = Selection(min_multiplier=1.0, max_neg=0.5, top=JOBS * MASKS)

    own = Component.model_fields.keys() & ExportedMask.model_fields.keys()

    def jobs() -> Any:
        for job in range(JOBS):
            image = ImageInfo(uri=f"s3://sa-1b/{job}.jpg", width=WIDTH, height=HEIGHT, format="JPEG")
            exported = []
            for one, segmentation in components:
                if selection.refused_by(one) is not None:
                    continue
                fields: dict[str, Any] = {name: getattr(one, name) for name in own}
                fields |= {"image": image.uri, "image_width": WIDTH, "image_height": HEIGHT, "job_id": str(job)}
                fields |= {"mask_id": one.id, "mask_index": one.index, "segmentation": segmentation}
                fields["rank_score"] = ranking.score(one, pixels=WIDTH * HEIGHT)
                exported.append(ExportedMask.model_construct(**fields))
            yield ExportedJob(image, None, FileMetadata(), exported)

    started = time.perf_counter()
    with open_mask_buffer(selection) as buffer:
        buffer.fill(jobs(), counts)
        _write(folder / "jobs.parquet", buffer)
    return JOBS * MASKS / (time.perf_counter() - started)
