"""Runs the demo: starts services and a worker, uploads images, scores them, prints a table, writes a report."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from maskscore import Client, Component, Job, JobResult, JobState, ScoringOptions
from maskscore.devstack import LocalServices, start_worker
from maskscore.masks import encode_mask
from maskscore.report import collect_entries, write_report
from maskscore.storage import Objects
from maskscore_worker.demo.scenes import draw_scene
from maskscore_worker.inputs import PHOTOS, cut_into_masks, photo

__all__ = ["DEMO_WEIGHTS", "run_demo"]

DEMO_WEIGHTS: Final = Path(__file__).with_name("model")

_BUCKET = "photos"
# Seeds far from those that the demo model was trained on.
_FIRST_SEED = 9_000_001


@dataclass(frozen=True, slots=True)
class DemoImage:
    """An image with its masks by id; for a drawn scene, ``truth`` has the kind of each mask."""

    name: str
    pixels: npt.NDArray[np.uint8]
    masks: list[tuple[str, npt.NDArray[np.bool_]]]
    truth: dict[str, Literal["object", "background", "fragment"]]


def run_demo(console: Console, *, weights: Path, images: int, report: Path) -> None:
    """Run the demo and stop everything it started, also when it fails."""
    drawn = weights == DEMO_WEIGHTS
    demo_images = list(_scenes(images) if drawn else _photos(images))
    note = (
        "Weights: the small demo model that comes with maskscore. It was trained on drawn shapes and knows nothing "
        "else; its scores say nothing about real photos."
        if drawn
        else f"Weights: {weights}"
    )
    console.print(note)
    with ExitStack() as stack:
        with console.status("Starting a private Redis and a private S3 server ..."):
            services = stack.enter_context(LocalServices())
            services.create_bucket(_BUCKET)
        os.environ.update(services.environment())
        environment = {
            "MASKSCORE_WEIGHTS": str(weights.absolute()),
            "MASKSCORE_PROMPTS": "demo" if drawn else "default",
            "MASKSCORE_BUCKETS": _BUCKET,
        }
        with console.status("Starting a worker: it loads the model ..."):
            stack.enter_context(start_worker(environment))
        with Client() as client:
            jobs = _upload(console, demo_images, environment["MASKSCORE_PROMPTS"])
            results = _score(console, client, jobs)
            _print_table(console, demo_images, results)
            with console.status("Writing the report ..."):
                report.parent.mkdir(parents=True, exist_ok=True)
                write_report(report, collect_entries(client, list(results)), title="maskscore demo", note=note)
        with console.status("Stopping everything ..."):
            stack.close()
    console.print(f"Report: {report.absolute()}", soft_wrap=True)
    console.print(_summary_line(demo_images, results), soft_wrap=True)


def _scenes(count: int) -> Iterator[DemoImage]:
    for number in range(count):
        scene = draw_scene(_FIRST_SEED + number)
        yield DemoImage(
            f"scene-{number + 1:02}.png",
            scene.image,
            [(mask.id, mask.mask) for mask in scene.masks],
            {mask.id: mask.kind for mask in scene.masks},
        )


def _photos(count: int) -> Iterator[DemoImage]:
    for name in PHOTOS[:count]:
        pixels = photo(name)
        masks = [(str(number), mask) for number, mask in enumerate(cut_into_masks(pixels), 1)]
        yield DemoImage(f"{name}.png", pixels, masks, {})


def _upload(console: Console, demo_images: list[DemoImage], prompts: str) -> list[Job]:
    """Put every image and its masks (in SA-1B's layout) into the bucket; return one job per image."""
    objects = Objects(buckets=None, result_buckets=None)
    jobs = []
    with console.status(f"Uploading {len(demo_images)} images and their masks ..."):
        for number, demo_image in enumerate(demo_images):
            encoded = io.BytesIO()
            Image.fromarray(demo_image.pixels).save(encoded, "PNG")
            annotations = [
                {"id": mask_id, "segmentation": encode_mask(mask).model_dump()} for mask_id, mask in demo_image.masks
            ]
            height, width = demo_image.pixels.shape[:2]
            document = {
                "image": {"image_id": number, "width": width, "height": height, "file_name": demo_image.name},
                "annotations": annotations,
            }
            image_uri = f"s3://{_BUCKET}/images/{demo_image.name}"
            masks_uri = f"s3://{_BUCKET}/masks/{Path(demo_image.name).stem}.json"
            objects.write(image_uri, encoded.getvalue(), content_type="image/png")
            objects.write(masks_uri, json.dumps(document).encode(), content_type="application/json")
            jobs.append(
                Job.model_validate(
                    {"image": image_uri, "masks": masks_uri, "options": ScoringOptions(prompts=prompts, top_k=3)}
                )
            )
    objects.close()
    return jobs


def _score(console: Console, client: Client, jobs: list[Job]) -> dict[str, JobResult]:
    """Submit the jobs and return their results by job id, in the order of the jobs."""
    results: dict[str, JobResult] = {}
    columns = (
        TextColumn("Scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("jobs, {task.fields[masks]} masks"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("scoring", total=len(jobs), masks=0)
        for result in client.as_completed(client.submit_many(jobs), timeout=600):
            results[result.job_id] = result
            masks = sum(len(done.components) for done in results.values())
            progress.update(bar, advance=1, masks=masks)
    return {job.job_id: results[job.job_id] for job in jobs}


def _print_table(console: Console, demo_images: list[DemoImage], results: dict[str, JobResult]) -> None:
    # Widths that fit 80 columns.
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column, width in (("image", 9), ("mask", 16), ("positive", 17), ("negative", 17)):
        table.add_column(column, overflow="ellipsis", no_wrap=True, max_width=width)
    for column, width in (("s_pos", 5), ("s_neg", 5), ("mult", 4)):
        table.add_column(column, justify="right", no_wrap=True, min_width=width)
    for demo_image, result in zip(demo_images, results.values(), strict=True):
        if result.error is not None:
            table.add_row(demo_image.name, "", f"[red]{result.error.code}[/red]", "", "", "", "")
        for component in result.components:
            table.add_row(Path(demo_image.name).stem, component.id, *_cells(component))
    console.print(table)


def _cells(component: Component) -> tuple[str, ...]:
    if component.skipped is not None or component.s_pos is None or component.s_neg is None:
        return (component.skipped.code if component.skipped else "", "", "", "", "")
    colour = {2.0: "green", 1.0: "cyan", 0.5: "yellow", 0.1: "red"}.get(component.semantic_multiplier or 0.0, "white")
    return (
        component.s_pos_text or "",
        component.s_neg_text or "",
        f"{component.s_pos:.3f}",
        f"{component.s_neg:.3f}",
        f"[{colour}]{component.semantic_multiplier}[/{colour}]",
    )


def _summary_line(demo_images: list[DemoImage], results: dict[str, JobResult]) -> str:
    scored = [
        (demo_image.truth.get(component.id), component.p_pos_sum)
        for demo_image, result in zip(demo_images, results.values(), strict=True)
        for component in result.components
        if component.p_pos_sum is not None
    ]
    jobs = sum(result.state is JobState.SUCCEEDED for result in results.values())
    line = f"demo: {jobs} jobs, {len(scored)} masks scored"
    objects = [p for kind, p in scored if kind == "object"]
    backgrounds = [p for kind, p in scored if kind == "background"]
    if objects and backgrounds:
        above = sum(p > max(backgrounds) for p in objects)
        line += f", {above} of {len(objects)} object masks ranked above every background mask"
    return line
