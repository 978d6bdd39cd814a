"""Masks per second end to end, as a share of the bare forward in the same precision (:mod:`bench.shares`)."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console

from bench.figures import Figures
from bench.forward import bare_forward, load_full_size, random_crops
from bench.material import full_size_weights, jpeg, masks, photograph
from bench.shares import Load, add_row, measure, table_of_shares
from bench.stack import running_services, running_worker, upload
from maskscore import Client, Job, JobState, Mask, ScoringOptions
from maskscore.masks import encode_mask
from maskscore.prompts import load_builtin
from reference import Reference

__all__ = ["encoded_mask", "run", "submit_and_wait"]

OPTIONS = ScoringOptions(prompts="demo")
LARGE = 100
SMALL_SHAPE = (480, 640)
# Scores against the specification's code, on the same weights.
_TOLERANCE = {"fp32": 1e-3, "bf16": 3e-2}


def run(console: Console, figures: Figures, *, full: bool) -> None:
    """Measure both precisions, large and small jobs."""
    weights = full_size_weights()
    plain = Reference.from_architecture("ViT-B-32", weights / "open_clip_model.safetensors")
    rounds = 7 if full else 5
    table = table_of_shares("masks per second end to end, ViT-B-32 at full size", rounds)
    with running_services() as services:
        loads = _loads()
        for precision in ("fp32", "bf16"):
            forward = bare_forward(load_full_size(precision))
            crops = random_crops(96 if precision == "bf16" else 48)
            forward(crops[:16])
            with running_worker(services, weights, prompts="demo", precision=precision) as (client, worker):
                submit_and_wait(client, loads["small"](5))
                _check(client, loads["large"](1)[0], plain, _TOLERANCE[precision])

                def jobs() -> dict[str, Load]:
                    made = {name: make(_jobs(name, precision, full=full)) for name, make in loads.items()}  # noqa: B023
                    return {name: _load(client, some) for name, some in made.items()}

                bare = Load(len(crops), partial(forward, crops))
                rates, forwards = measure(jobs, bare, worker.pid, rounds=rounds)
            add_row(table, f"{precision}, bare forward", forwards)
            for name, rate in rates.items():
                add_row(table, f"{precision}, {name} jobs", rate)
                figures[f"service.{precision}_{name}_share"] = rate.share
                figures[f"service.{precision}_{name}_cpu_share"] = rate.cpu_share
                figures[f"service.{precision}_{name}_masks_per_s"] = rate.masks_per_s
    console.print(table)


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


def _load(client: Client, jobs: list[Job]) -> Load:
    return Load(sum(len(list(job.masks)) for job in jobs), lambda: submit_and_wait(client, jobs))


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
