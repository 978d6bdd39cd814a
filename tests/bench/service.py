"""Masks per second end to end, as a share of the bare forward in the same precision.

By the clock on an idle machine; and by processor time, which other programs on the machine leave alone: the forward's
per mask divided by all that the worker process uses per mask.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.table import Table

from bench.figures import Figures
from bench.forward import bare_forward, load_full_size, random_crops
from bench.material import full_size_weights, jpeg, masks, photograph
from bench.stack import cpu_seconds, running_services, running_worker, upload
from maskscore import Client, Job, JobState, Mask, ScoringOptions
from maskscore.masks import encode_mask
from maskscore.prompts import load_builtin
from reference import Reference

__all__ = ["Rates", "add_round", "add_row", "encoded_mask", "run", "submit_and_wait"]

OPTIONS = ScoringOptions(prompts="demo")
LARGE = 100
SMALL_SHAPE = (480, 640)
# Scores against the specification's code, on the same weights.
_TOLERANCE = {"fp32": 1e-3, "bf16": 3e-2}


@dataclass
class Rates:
    """Masks per second by the clock and per core-second, one entry per round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, count: int, wall_s: float, cpu_s: float) -> None:
        """Add a round."""
        self.wall.append(count / wall_s)
        self.cpu.append(count / cpu_s if cpu_s else 0.0)


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Measure both precisions, large and small jobs."""
    weights = full_size_weights()
    plain = Reference.from_architecture("ViT-B-32", weights / "open_clip_model.safetensors")
    table = Table(
        title="masks per second end to end, ViT-B-32 at full size", caption=f"medians of {_rounds(full)} rounds"
    )
    for column in ("precision, load", "masks/s", "share", "masks per core-s", "share by processor time"):
        table.add_column(column, justify="left" if column == "precision, load" else "right")
    with running_services() as services:
        loads = _loads()
        for precision in ("fp32", "bf16"):
            forward = bare_forward(load_full_size(precision))
            crops = random_crops(96 if precision == "bf16" else 48)
            forward(crops[:16])
            rates = {name: Rates() for name in ("bare", *loads)}
            with running_worker(services, weights, prompts="demo", precision=precision) as (client, worker):
                submit_and_wait(client, loads["small"](5))
                _check(client, loads["large"](1)[0], plain, _TOLERANCE[precision])
                for _ in range(_rounds(full)):
                    add_round(rates["bare"], len(crops), lambda: forward(crops), time.process_time)  # noqa: B023
                    for name in loads:
                        jobs = loads[name](_jobs(name, precision, full=full))
                        count = sum(len(list(job.masks)) for job in jobs)
                        add_round(
                            rates[name],
                            count,
                            lambda: submit_and_wait(client, jobs),  # noqa: B023
                            lambda: cpu_seconds(worker.pid),
                        )
            bare = rates.pop("bare")
            add_row(table, f"{precision}, bare forward", bare, bare)
            for name, rate in rates.items():
                wall_share, cpu_share = add_row(table, f"{precision}, {name} jobs", rate, bare)
                figures[f"service.{precision}_{name}_share"] = wall_share
                figures[f"service.{precision}_{name}_cpu_share"] = cpu_share
                figures[f"service.{precision}_{name}_masks_per_s"] = statistics.median(rate.wall)
    console.print(table)


def _rounds(full: bool) -> int:
    return 5 if full else 3


def _jobs(load: str, precision: str, *, full: bool) -> int:
    jobs = {"large": 4, "small": 80}[load]
    return jobs * (2 if precision == "bf16" else 1) * (3 if full else 1)


def _loads() -> dict[str, Callable[[int], list[Job]]]:
    """Return, by name, what makes that many new jobs."""
    photo, small = upload(jpeg(photograph()), "photo.jpg"), upload(jpeg(photograph(*SMALL_SHAPE)), "small.jpg")
    many = [encoded_mask(number, bits) for number, bits in enumerate(masks(LARGE))]
    few = [
        encoded_mask(number, bits) for number, bits in enumerate(masks(40, height=SMALL_SHAPE[0], width=SMALL_SHAPE[1]))
    ]
    rng = np.random.default_rng(2)

    def large(count: int) -> list[Job]:
        return [Job(image=photo, masks=many, options=OPTIONS) for _ in range(count)]

    def little(count: int) -> list[Job]:
        picked = [int(rng.integers(0, 35)) for _ in range(count)]
        return [
            Job(image=small, masks=few[at : at + 1 + number % 5], options=OPTIONS) for number, at in enumerate(picked)
        ]

    return {"large": large, "small": little}


def encoded_mask(number: int, bits: npt.NDArray[np.bool_]) -> Mask:
    return Mask(id=str(number), segmentation=encode_mask(bits))


def add_round(rates: Rates, count: int, call: Callable[[], Any], cpu: Callable[[], float]) -> None:
    """Add a round in which ``call`` handles ``count`` masks; ``cpu`` returns the processor time so far."""
    started, used = time.perf_counter(), cpu()
    call()
    rates.add(count, time.perf_counter() - started, cpu() - used)


def submit_and_wait(client: Client, jobs: list[Job]) -> None:
    for result in client.as_completed(client.submit_many(jobs), timeout=1800):
        if result.state is not JobState.SUCCEEDED or any(part.skipped for part in result.components):
            raise AssertionError(f"a job of the benchmark did not succeed: {result}")


def _check(client: Client, job: Job, plain: Reference, tolerance: float) -> None:
    """Two masks' scores against the specification's code."""
    components = client.submit(job).wait(timeout=600).components
    texts = load_builtin("demo").texts
    positive = len(load_builtin("demo").positive)
    pixels = _decoded()
    for index, bits in enumerate(masks(2)):
        expected = plain.probabilities(pixels, bits, texts, "original")
        difference = abs(float(components[index].p_pos_sum or 0) - float(expected[:positive].sum()))
        if difference > tolerance:
            raise AssertionError(f"the service's score differs by {difference:.2g} from the specification's")


def _decoded() -> npt.NDArray[np.uint8]:
    return np.array(Image.open(io.BytesIO(jpeg(photograph()))).convert("RGB"))


def add_row(table: Table, name: str, rates: Rates, bare: Rates) -> tuple[float, float]:
    """Add a row of medians, and return the shares of the bare forward by the clock and by processor time."""
    # Round by round, since a round shares the state that the machine is in.
    wall = statistics.median(ours / theirs for ours, theirs in zip(rates.wall, bare.wall, strict=True))
    cpu = statistics.median(ours / theirs for ours, theirs in zip(rates.cpu, bare.cpu, strict=True))
    rate, per_core = statistics.median(rates.wall), statistics.median(rates.cpu)
    table.add_row(name, f"{rate:.1f}", f"{wall:.0%}", f"{per_core:.1f}", f"{cpu:.0%}")
    return wall, cpu
